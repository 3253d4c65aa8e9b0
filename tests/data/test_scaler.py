"""Scaling: fitted on what may be looked at, and sane for every range."""

import numpy as np
import pytest

from spear_jax.data.scaler import Scaler
from spear_jax.data.series import Series
from spear_jax.data.windows import cut_windows


def series(name: str, values, reference=()) -> Series:
    values = np.asarray(values, np.float32)
    return Series(name, values, np.zeros(len(values), bool), np.asarray(reference, np.float32))


def scaled(recorded, train, *, scale="train", window=4, margin=0.0, reference_steps=4):
    scaler = Scaler.fit(scale, recorded, train, reference_steps=reference_steps, margin=margin)
    return scaler(cut_windows(recorded, [one.name for one in recorded], window, window))


def test_the_reference_sets_the_range_and_values_beyond_it_stay_beyond():
    one = series("a", [0, 5, 10, 20], reference=[0, 10])
    np.testing.assert_allclose(scaled([one], [one]), [[0, 0.5, 1, 2]])


def test_without_a_past_the_training_stretch_is_the_reference():
    one = series("a", [0, 1, 2, 4, 100, 100, 100, 100])
    np.testing.assert_allclose(scaled([one], [one.stretch(0, 4)])[0], [0, 0.25, 0.5, 1])


def test_a_held_out_series_is_scaled_like_one_seen_in_training():
    values = [0, 1, 2, 4, 100, 100, 100, 100]
    seen, new = series("seen", values), series("new", values)
    rows = scaled([seen, new], [seen])
    np.testing.assert_array_equal(rows[:2], rows[2:])


@pytest.mark.parametrize("scale", ["train", "series"])
def test_only_scale_series_looks_ahead(scale):
    calm = series("a", [0, 1, 2, 4, 1, 1, 1, 1])
    wild = series("a", [0, 1, 2, 4, 99, -99, 99, 99])
    before = scaled([calm], [calm.stretch(0, 4)], scale=scale)[0]
    after = scaled([wild], [wild.stretch(0, 4)], scale=scale)[0]
    assert np.array_equal(before, after) == (scale == "train")


def test_a_constant_reference_puts_its_value_in_the_middle_of_a_typical_range():
    normal = series("normal", [0, 2, 0, 2], reference=[0, 2])
    constant = series("constant", [-1, -1, 0, 258], reference=[-1, -1])
    rows = scaled([normal, constant], [normal, constant])
    np.testing.assert_allclose(rows[1], [0.5, 0.5, 1.0, 130.0])


@pytest.mark.parametrize("low", [-1e8, 0, 3e7, 1.7e9])
@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e6])
def test_the_unit_changes_nothing(low: float, unit: float) -> None:
    values = (low + np.array([0, 1, 2, 4, 8, 3])) * unit
    one = Series("a", values, np.zeros(6, bool))
    np.testing.assert_allclose(scaled([one], [], window=6), [[0, 0.25, 0.5, 1, 2, 0.75]], atol=1e-4)


def test_what_sums_leave_behind_is_no_change():
    noisy = Series("noisy", np.array([0.1 + 0.2, 0.3, 0.3, 0.3, 0.3, 1.3]), np.zeros(6, bool))
    normal = series("normal", [0, 2, 0, 2, 0, 2])
    rows = scaled([normal, noisy], [], window=6)
    np.testing.assert_allclose(rows[1], [0.5, 0.5, 0.5, 0.5, 0.5, 1.0])


def test_the_reference_begins_with_the_first_value():
    late = series("late", [np.nan] * 5 + [10, 11, 12, 14, 18, 14, 10])
    np.testing.assert_allclose(scaled([late], [], window=12)[0, 5:], [0, 0.25, 0.5, 1, 2, 1, 0])


def test_only_training_series_say_what_is_typical():
    train = series("train", [0, 1, 0, 1], reference=[0, 2])
    constant = series("constant", [0, 1, 0, 1], reference=[0, 0])
    for reference in ([0, 1], [0, 1000]):
        held_out = series("held out", [0, 1, 0, 1], reference=reference)
        rows = scaled([train, constant, held_out], [train])
        np.testing.assert_allclose(rows[1], [0.5, 1, 0.5, 1])


def test_windows_scale_on_their_own():
    rows = scaled([series("a", [0, 1, 2, 4, 7, 7, 7, 7])], [], scale="window")
    np.testing.assert_allclose(rows, [[0, 0.25, 0.5, 1], [0.5, 0.5, 0.5, 0.5]])


def test_margin_widens_the_range():
    one = series("a", [0, 10, -5, 15], reference=[0, 10])
    np.testing.assert_allclose(scaled([one], [one], margin=0.5), [[0.25, 0.75, 0, 1]])


@pytest.mark.parametrize("scale", ["train", "series", "window"])
def test_nan_stays_nan_and_moves_nothing_else(scale):
    with_gap = series("a", [0, np.nan, 2, 4], reference=[np.nan, 0, 4])
    row = scaled([with_gap], [with_gap], scale=scale)[0]
    np.testing.assert_allclose(row, [0, np.nan, 0.5, 1])


def test_a_series_of_nan_alone_is_no_error():
    nothing = series("a", [np.nan] * 4)
    assert np.isnan(scaled([nothing], [nothing])).all()
