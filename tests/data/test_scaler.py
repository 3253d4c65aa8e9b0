"""Scaling: fitted on what may be looked at, and sane for every range."""

import numpy as np
import pytest
from numpy.typing import ArrayLike

from spear_jax.data.scaler import Scaler, TableScaler
from spear_jax.data.series import Series
from spear_jax.data.windows import cut_windows


def make(name: str, values: ArrayLike, reference: ArrayLike = ()) -> Series:
    values = np.asarray(values, np.float32)
    return Series(name, values, np.zeros(len(values), bool), np.asarray(reference, np.float32))


def scale_windows(
    recorded: list[Series],
    train: list[Series],
    *,
    scale: str = "train",
    window: int = 4,
    margin: float = 0.0,
    reference_steps: int = 4,
) -> np.ndarray:
    scaler = Scaler.fit(scale, recorded, train, reference_steps=reference_steps, margin=margin)
    return scaler(cut_windows(recorded, [series.name for series in recorded], window, window))


def test_the_reference_defines_the_range_and_values_outside_stay_outside() -> None:
    series = make("a", [0, 5, 10, 20], reference=[0, 10])
    np.testing.assert_allclose(scale_windows([series], [series]), [[0, 0.5, 1, 2]])


def test_without_a_past_the_training_stretch_is_the_reference() -> None:
    series = make("a", [0, 1, 2, 4, 100, 100, 100, 100])
    np.testing.assert_allclose(scale_windows([series], [series.stretch(0, 4)])[0], [0, 0.25, 0.5, 1])


def test_a_held_out_series_is_scaled_like_one_seen_in_training() -> None:
    values = [0, 1, 2, 4, 100, 100, 100, 100]
    seen, new = make("seen", values), make("new", values)
    rows = scale_windows([seen, new], [seen])
    np.testing.assert_array_equal(rows[:2], rows[2:])


@pytest.mark.parametrize("scale", ["train", "series"])
def test_only_scale_series_looks_ahead(scale: str) -> None:
    calm = make("a", [0, 1, 2, 4, 1, 1, 1, 1])
    wild = make("a", [0, 1, 2, 4, 99, -99, 99, 99])
    before = scale_windows([calm], [calm.stretch(0, 4)], scale=scale)[0]
    after = scale_windows([wild], [wild.stretch(0, 4)], scale=scale)[0]
    assert np.array_equal(before, after) == (scale == "train")


def test_a_constant_reference_puts_its_value_in_the_middle_of_a_typical_range() -> None:
    normal = make("normal", [0, 2, 0, 2], reference=[0, 2])
    constant = make("constant", [-1, -1, 0, 258], reference=[-1, -1])
    rows = scale_windows([normal, constant], [normal, constant])
    np.testing.assert_allclose(rows[1], [0.5, 0.5, 1.0, 130.0])


@pytest.mark.parametrize("low", [-1e8, 0, 3e7, 1.7e9])
@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e6])
def test_scaling_does_not_depend_on_the_unit(low: float, unit: float) -> None:
    values = (low + np.array([0, 1, 2, 4, 8, 3])) * unit
    series = Series("a", values, np.zeros(6, bool))
    np.testing.assert_allclose(scale_windows([series], [], window=6), [[0, 0.25, 0.5, 1, 2, 0.75]], atol=1e-4)


def test_rounding_does_not_count_as_change() -> None:
    noisy = Series("noisy", np.array([0.1 + 0.2, 0.3, 0.3, 0.3, 0.3, 1.3]), np.zeros(6, bool))
    normal = make("normal", [0, 2, 0, 2, 0, 2])
    rows = scale_windows([normal, noisy], [], window=6)
    np.testing.assert_allclose(rows[1], [0.5, 0.5, 0.5, 0.5, 0.5, 1.0])


def test_the_reference_begins_with_the_first_value() -> None:
    late = make("late", [np.nan] * 5 + [10, 11, 12, 14, 18, 14, 10])
    np.testing.assert_allclose(scale_windows([late], [], window=12)[0, 5:], [0, 0.25, 0.5, 1, 2, 1, 0])


def test_the_typical_width_comes_from_training_series() -> None:
    train = make("train", [0, 1, 0, 1], reference=[0, 2])
    constant = make("constant", [0, 1, 0, 1], reference=[0, 0])
    for reference in ([0, 1], [0, 1000]):
        held_out = make("held out", [0, 1, 0, 1], reference=reference)
        rows = scale_windows([train, constant, held_out], [train])
        np.testing.assert_allclose(rows[1], [0.5, 1, 0.5, 1])


def test_windows_are_scaled_by_their_own_range() -> None:
    rows = scale_windows([make("a", [0, 1, 2, 4, 7, 7, 7, 7])], [], scale="window")
    np.testing.assert_allclose(rows, [[0, 0.25, 0.5, 1], [0.5, 0.5, 0.5, 0.5]])


def test_a_margin_widens_the_range() -> None:
    series = make("a", [0, 10, -5, 15], reference=[0, 10])
    np.testing.assert_allclose(scale_windows([series], [series], margin=0.5), [[0.25, 0.75, 0, 1]])


@pytest.mark.parametrize("scale", ["train", "series", "window"])
def test_nan_stays_nan_and_does_not_affect_other_values(scale: str) -> None:
    with_gap = make("a", [0, np.nan, 2, 4], reference=[np.nan, 0, 4])
    row = scale_windows([with_gap], [with_gap], scale=scale)[0]
    np.testing.assert_allclose(row, [0, np.nan, 0.5, 1])


def test_a_series_without_values_is_not_an_error() -> None:
    nothing = make("a", [np.nan] * 4)
    assert np.isnan(scale_windows([nothing], [nothing])).all()


def test_a_column_of_a_table_is_scaled_once_its_reference_has_arrived() -> None:
    values = np.array([[np.nan, 5], [0, 9], [1, 7], [2, 6], [4, 8.0]])
    scaler = TableScaler("train", [None, (5, 9)], reference_steps=3, margin=0.0, typical_width=1.0)
    assert scaler.awaited_rows == 3
    assert scaler.fit(values[:3], ended=False) == 1  # the first value of the first column is in row 1
    assert scaler.fit(values, ended=False) == 5
    assert scaler.awaited_rows == 0
    windows = cut_windows([make("a", values[:, 0]), make("b", values[:, 1])], ["a", "b"], 5, 5)
    np.testing.assert_allclose(scaler(windows), [[np.nan, 0, 0.5, 1, 2], [0, 1, 0.5, 0.25, 0.75]])


def test_the_end_of_a_table_ends_the_wait_for_a_reference() -> None:
    scaler = TableScaler("train", [None, None], reference_steps=3, margin=0.0, typical_width=1.0)
    values = np.array([[2, np.nan], [4, np.nan]])
    assert scaler.fit(values, ended=False) == 0
    assert scaler.fit(values, ended=True) == 2
    windows = cut_windows([make("a", values[:, 0]), make("b", values[:, 1])], ["a", "b"], 2, 2)
    np.testing.assert_allclose(scaler(windows), [[0, 1], [np.nan, np.nan]])
