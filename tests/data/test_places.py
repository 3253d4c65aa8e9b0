"""Rows of a table that a reference holds are recognized by their values, so that none is compared with its own copy."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.data import VIEWS, Places, Reference, TableViews, view_numbers
from spear_jax.data.own_past import NO_PLACE

NAMES = ["deviation", "spread", "reference_8", "past_8", "reference_32", "past_32"]


def oscillation(steps: int, seed: int = 0) -> np.ndarray:
    """Returns a noisy oscillation with 40 steps of stronger noise in the middle."""
    rng = np.random.default_rng(seed)
    values = np.sin(np.arange(steps) / 5) + rng.normal(0, 0.1, steps)
    values[steps // 2 : steps // 2 + 40] += rng.normal(0, 1.5, 40)
    return values


def in_pieces(reference: Reference, values: np.ndarray, piece: int) -> np.ndarray:
    """Returns the views of a table with one column, whose reference is known, as its rows arrive."""
    table = TableViews(NAMES, [reference], reference_steps=100, typical_width=1.0, whole=False)
    for begin in range(0, len(values), piece):
        table.add(values[begin : begin + piece, None])
    table.finish()
    return table.windows(np.zeros(1, int), len(values))[0, 0]


def no_places(rows: int) -> np.ndarray:
    return NO_PLACE + np.arange(rows)


@pytest.mark.parametrize("piece", [1, 50, 1000])
@pytest.mark.parametrize(("begin", "missing"), [(0, 0), (0, 20), (77, 0)])
def test_rows_that_the_reference_holds_are_not_compared_with_themselves(piece: int, begin: int, missing: int) -> None:
    values = oscillation(300)
    values[:missing] = np.nan
    reference = Reference.fit(values[missing:200], np.arange(missing, 200))
    stored = Reference.stored(reference.known(), json.loads(json.dumps(reference.description())))
    expected = view_numbers(NAMES, values[begin:], reference, np.arange(begin, 300))
    np.testing.assert_array_equal(in_pieces(stored, values[begin:], piece), expected)
    found_themselves = view_numbers(["reference_32"], values[begin:], reference, no_places(300 - begin))
    assert np.nanmedian(found_themselves[50:100]) == VIEWS["reference_32"].low < np.nanmin(expected[50:100, 4])


def cut(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leaves out rows in the middle."""
    places = np.r_[: len(values) // 2, len(values) // 2 + 50 : len(values)]
    return values[places], places


def prepended(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Puts rows of another series before the recorded ones."""
    return np.append(oscillation(100, seed=5), values), np.append(no_places(100), np.arange(len(values)))


def changed(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Changes one row in twenty."""
    values = values.copy()
    values[::20] += 1
    return values, np.arange(len(values))


def late(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Begins late, with values that are not recorded."""
    values = values.copy()
    values[600:610] = 0
    return values[600:], np.arange(600, len(values))


@pytest.mark.parametrize("edit", [cut, prepended, changed, late])
@pytest.mark.parametrize("steps", [3000, 9000])
def test_changed_copies_of_recorded_rows_are_recognized(
    edit: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], steps: int
) -> None:
    values = oscillation(steps)
    reference = Reference.fit(values, np.arange(steps))  # a sample of it, if it is long
    rows, places = edit(values)
    found = Places(reference).append(rows)
    compared = np.isin(places, reference.steps)  # at other places nothing could be left out
    # Those after a seam need 32 rows to be recognized, and some to be missed.
    assert (found != places)[compared].sum() < 80
    numbers = view_numbers(["reference_32"], rows, reference, found)[:, 0]
    assert (numbers[compared] == VIEWS["reference_32"].low).mean() < 0.03


def test_rows_without_enough_changes_keep_their_place() -> None:
    switch = np.zeros(2000)
    switch[500:530] = switch[1400:1500] = 1  # two pulses that differ in their length
    reference = Reference.fit(switch, np.arange(2000))
    np.testing.assert_array_equal(Places(reference).append(switch), np.arange(2000))
    later = np.concatenate([np.ones(50), np.zeros(200), np.ones(30), np.zeros(200)])
    numbers = view_numbers(["reference_32"], later, reference, Places(reference).append(later))[:, 0]
    # The pulse is known, although the reference has one such alone.
    assert (numbers[210:300] == VIEWS["reference_32"].low).all()


def test_an_event_of_a_table_that_begins_like_the_recorded_series_is_known() -> None:
    recorded, today = np.zeros(600), np.zeros(600)
    recorded[200:230] = today[205:235] = 1
    reference = Reference.fit(recorded, np.arange(600))
    numbers = view_numbers(["reference_32"], today, reference, Places(reference).append(today))[:, 0]
    assert (numbers[240:] == VIEWS["reference_32"].low).all() and numbers[150:300].mean() < 0


def test_a_table_may_begin_within_a_constant_stretch() -> None:
    values = oscillation(2000)
    values[1100:1200] = 0
    reference = Reference.fit(values, np.arange(2000))
    places = Places(reference).append(values[1150:1600])
    np.testing.assert_array_equal(places[100:], np.arange(1250, 1600))


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from(["noise", "levels", "period", "switch"]), st.integers(0, 9))
def test_places_do_not_depend_on_how_rows_arrive(data: st.DataObject, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    recorded = {
        "noise": rng.normal(size=600),
        "levels": rng.integers(0, 5, 600).astype(float),
        "period": np.tile(rng.normal(size=12), 50),
        "switch": np.repeat(rng.integers(0, 2, 60), 10).astype(float),
    }[kind]
    reference = Reference.fit(recorded, np.arange(600))
    pieces = [
        recorded[a : a + n]
        for a, n in data.draw(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 150)), min_size=1, max_size=5))
    ]
    rows = np.concatenate(pieces)
    rows[rng.random(len(rows)) < data.draw(st.sampled_from([0, 0.02, 0.3]))] = np.nan
    rows = np.append(np.full(data.draw(st.sampled_from([0, 0, 20, 100, 121, 125, 128, 140])), np.nan), rows)
    whole = Places(reference).append(rows)
    bounds = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    places, found, waiting = Places(reference), [], np.zeros(0)
    for part in np.split(rows, bounds):
        waiting = np.append(waiting, part)
        if found or Places.decided(waiting):
            found.append(places.append(waiting))
            waiting = np.zeros(0)
    np.testing.assert_array_equal(np.concatenate([*found, places.append(waiting)]), whole)


@pytest.mark.parametrize("rows", [5, 31, 32, 150])
def test_later_rows_are_compared_with_the_whole_reference(rows: int) -> None:
    values = oscillation(400)
    reference = Reference.fit(values[:200], np.arange(200))
    later = values[200 : 200 + rows].copy()
    expected = view_numbers(NAMES, later, reference, no_places(rows))
    np.testing.assert_array_equal(in_pieces(reference, later, 10), expected)
    nothing = np.full(rows, np.nan)
    assert np.isnan(in_pieces(reference, nothing, 10)).all()


def test_a_column_without_values_does_not_wait_for_its_first() -> None:
    reference = Reference.fit(oscillation(200), np.arange(200))
    table = TableViews(NAMES, [reference], reference_steps=100, typical_width=1.0, whole=False)
    table.add(np.full((127, 1), np.nan))
    assert table.final == 0
    table.add(np.full((1, 1), np.nan))
    assert table.final == 128 - max(VIEWS[name].look_ahead for name in NAMES)
