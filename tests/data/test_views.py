"""Views: numbers per step that know their series' past, the same for files and streams, without its future."""

import json
import pickle
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from spear_jax.data import (
    VIEWS,
    Reference,
    Series,
    ViewStream,
    largest_distance,
    look_ahead,
    own_past,
    view_numbers,
    views,
)
from spear_jax.data.neighbours import PAST
from spear_jax.data.own_past import NO_PLACE
from spear_jax.errors import InputError
from spear_jax.methods.unsupervised import nearest_neighbours

COMPUTED = [name for name in VIEWS if name != "value"]
STREAMED = [name for name in COMPUTED if not VIEWS[name].whole]
SMALL = ["deviation", "spread", "reference_8", "past_8", "reference_32", "past_32"]

# Views are computed in float32, and numbers near the lowest come from distances near rounding errors.
CLOSE = 1e-3


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def oscillation(steps: int = 700, seed: int = 0) -> np.ndarray:
    """Returns a noisy oscillation with 40 steps of stronger noise in the middle."""
    rng = np.random.default_rng(seed)
    values = np.sin(np.arange(steps) / 5) + rng.normal(0, 0.1, steps)
    values[steps // 2 : steps // 2 + 40] += rng.normal(0, 1.5, 40)
    return values


def brute_force(name: str, values: np.ndarray, past: np.ndarray, own: int = 0) -> np.ndarray:
    """Computes a view window by window in float64.

    Args:
      name: name of the view.
      values: the series, without missing values.
      past: its past; or empty, for a reference that is its first `own` steps.
      own: see `past`.
    """
    view = VIEWS[name]
    width, reference = view.width, values[:own] if own else past
    unit = reference.std()
    if view.kind == "deviation":
        return np.abs(values - np.median(reference)) / unit
    starts = np.arange(len(values) - width + 1)
    windows = sliding_window_view(values, width) / unit
    if view.kind == "spread":
        numbers = windows.std(axis=1)
    else:
        compared = sliding_window_view(reference, width) / unit
        places = np.arange(len(compared)) + (0 if own else -(10**6))

        def distance(query: np.ndarray, place: int) -> float:
            others = compared[np.abs(places - place) >= width]
            return np.linalg.norm(others - query, axis=1).min() if len(others) else np.inf

        within = np.array([distance(*pair) for pair in zip(compared, places, strict=True)])
        within = within[np.isfinite(within)]
        nearest = np.array([distance(*pair) for pair in zip(windows, starts, strict=True)])
        if view.kind == "reference":
            numbers = nearest / max(np.quantile(within, 0.9), 0.05 * width**0.5)
        else:
            for start in starts[width:]:
                before = windows[max(start - 4096, 0) : start - width + 1]
                nearest[start] = min(nearest[start], np.linalg.norm(before - windows[start], axis=1).min())
            floor = 0.05 * width**0.5
            most = 8 * max(np.quantile(within, 0.9), floor)
            logs = np.log2(np.clip(np.concatenate([within, nearest]), floor, most))
            means = np.cumsum(logs) / np.arange(1, len(logs) + 1)
            numbers = nearest / 2 ** means[len(within) :]
    steps = [numbers[max(t - width + 1, 0) : t + 1].mean() for t in range(len(values))]
    return np.log2(np.maximum(steps, 2.0**view.low))


def series_of(kind: str, steps: int, seed: int) -> np.ndarray:
    """Returns values of a kind that distances may be wrong for."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return rng.normal(size=steps)
    if kind == "oscillation":
        return oscillation(steps, seed)
    if kind == "repeats":
        return np.tile(rng.normal(size=11), steps // 11 + 1)[:steps] + (np.arange(steps) > steps * 0.8)
    return np.repeat(rng.integers(0, 3, steps // 7 + 1), 7)[:steps].astype(float)


KINDS = st.sampled_from(["noise", "oscillation", "repeats", "levels"])


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(SMALL),
    KINDS,
    st.integers(0, 9),
    st.sampled_from([(1, 0), (1e-3, 1e6), (50, -1e6), (1e-9, 0), (1e9, 0)]),
    st.sampled_from([0, 100]),
)
def test_numbers_are_those_of_brute_force(name: str, kind: str, seed: int, unit: tuple[float, float], own: int) -> None:
    both = series_of(kind, 300, seed) * unit[0] + unit[1]
    past, values = both[:120], both[120:]
    reference = Reference.fit(values[:own], np.arange(own)) if own else Reference.fit(past)
    if np.ptp(values[:own] if own else past) == 0:
        return
    expected = brute_force(name, values, past, own)
    np.testing.assert_allclose(view_numbers([name], values, reference)[:, 0], expected, atol=CLOSE)


@pytest.mark.parametrize("own", [0, 200])
def test_long_windows_agree_too(own: int) -> None:
    values, past = oscillation(600), oscillation(400, seed=1)
    reference = Reference.fit(values[:own], np.arange(own)) if own else Reference.fit(past)
    numbers = view_numbers(["reference_128", "past_128"], values, reference)
    if own:  # no two windows of 128 of a reference of 200 steps are without a common step
        assert np.isnan(numbers[:, 0]).all()
    else:
        np.testing.assert_allclose(numbers[:, 0], brute_force("reference_128", values, past), atol=CLOSE)
        np.testing.assert_allclose(numbers[:, 1], brute_force("past_128", values, past), atol=CLOSE)


@pytest.mark.parametrize("name", ["whole_8", "whole_32", "whole_128"])
def test_whole_views_are_the_nearest_neighbour_method(name: str) -> None:
    values, past = oscillation(500), oscillation(300, seed=1)
    numbers = view_numbers([name], values, Reference.fit(past))[:, 0]
    series = Series("a", values, np.zeros(500, bool), reference=past)
    expected = nearest_neighbours(series, VIEWS[name].width, seed=0)
    np.testing.assert_allclose(numbers, np.log2(expected), atol=CLOSE)
    assert look_ahead([name, "deviation"]) is None


def test_whole_views_compare_with_a_reference_within_the_series_once() -> None:
    values = oscillation(500)
    inside = Reference.fit(values[:200], np.arange(200))
    nothing = Reference.fit(values[:0], typical_width=np.ptp(values))
    names = ["whole_8", "whole_32"]
    np.testing.assert_allclose(view_numbers(names, values, inside), view_numbers(names, values, nothing), atol=CLOSE)


@st.composite
def cuts(draw: st.DrawFn, steps: int) -> list[int]:
    """Draws where a series is divided into chunks, some of them empty."""
    return sorted(draw(st.lists(st.integers(0, steps), max_size=8)))


@settings(deadline=None, max_examples=15)
@given(KINDS, st.integers(0, 9), cuts(400), st.floats(0, 0.5))
def test_a_stream_gives_the_numbers_of_a_file(kind: str, seed: int, bounds: list[int], missing: float) -> None:
    values = series_of(kind, 700, seed)
    values[np.random.default_rng(seed).random(700) < missing] = np.nan
    reference = Reference.fit(values[:300])
    values = values[300:]
    stream = ViewStream(STREAMED, reference)
    parts = [stream.append(part) for part in np.split(values, bounds)]
    assert sum(map(len, parts)) == len(values) - stream.look_ahead
    pending = stream.pending()
    numbers = np.concatenate([*parts, stream.finish()])
    np.testing.assert_array_equal(numbers, view_numbers(STREAMED, values, reference))
    np.testing.assert_array_equal(numbers[len(numbers) - len(pending) :], pending)


def test_a_stream_forgets_nothing_that_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (own_past, views):
        monkeypatch.setattr(module, "PAST_STEPS", 150)
    values, reference = series_of("noise", 800, 0), Reference.fit(series_of("noise", 20, 1))
    names = ["past_8", "past_128"]
    stream = ViewStream(names, reference)
    numbers = np.concatenate([*(stream.append(part) for part in np.split(values, range(0, 800, 37))), stream.finish()])
    np.testing.assert_array_equal(numbers, view_numbers(names, values, reference))


def test_rows_may_arrive_one_by_one() -> None:
    values, reference = oscillation(150), Reference.fit(oscillation(400, seed=1))
    stream, places = ViewStream(SMALL, reference), np.arange(7, 157)
    rows = [stream.append(values[[i]], places[[i]]) for i in range(150)]
    numbers = np.concatenate([*rows, stream.finish()])
    np.testing.assert_array_equal(numbers, view_numbers(SMALL, values, reference, places))


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(STREAMED), st.integers(130, 399), st.sampled_from([0, 130]))
def test_no_number_depends_on_later_steps_than_stated(name: str, step: int, own: int) -> None:
    values = oscillation(400)
    reference = Reference.fit(values[:own], np.arange(own)) if own else Reference.fit(oscillation(300, seed=1))
    ahead = look_ahead([name])
    assert ahead is not None
    changed = values.copy()
    changed[step + ahead + 1 :] = np.random.default_rng(step).choice(
        [np.nan, 1e30, 0.0], len(values[step + ahead + 1 :])
    )
    before, after = (view_numbers([name], series, reference)[: step + 1] for series in (values, changed))
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", STREAMED)
def test_the_look_ahead_is_no_longer_than_needed(name: str) -> None:
    values, reference = oscillation(400), Reference.fit(oscillation(300, seed=1))
    changed = values.copy()
    changed[200 + (look_ahead([name]) or 0)] += 9
    before, after = (view_numbers([name], series, reference)[200] for series in (values, changed))
    assert before != after


def test_an_anomaly_within_the_reference_is_not_compared_with_itself() -> None:
    values = oscillation()
    reference = Reference.fit(values, np.arange(len(values)))
    numbers = view_numbers(["reference_8", "reference_32"], values, reference)
    anomaly = slice(352, 388)
    assert (numbers[anomaly].mean(axis=0) > np.median(numbers, axis=0) + 1).all()
    shifted = view_numbers(["reference_8"], values, reference, NO_PLACE + np.arange(len(values)))
    assert (shifted == VIEWS["reference_8"].low).all()  # another stretch that looks the same


def test_no_window_spans_two_stretches_of_a_reference() -> None:
    first, second, values = (series_of("noise", 90, seed) for seed in range(3))
    both = Reference.fit(np.concatenate([first, second]), np.r_[100:190, 400:490])
    queries = both.standardize(values).astype(np.float32)
    nearest = both.nearest(queries, 1000 + np.arange(90), [32])[32]
    expected = np.inf
    for part in (first, second):
        windows, compared = (sliding_window_view(both.standardize(v), 32) for v in (values, part))
        distances = np.linalg.norm(windows[:, None] - compared, axis=-1).min(axis=1)
        expected = np.minimum(expected, distances)
    np.testing.assert_allclose(nearest[31:], expected, rtol=1e-5)
    assert np.isinf(nearest[:31]).all()


def test_missing_values_stay_missing_and_hide_nothing() -> None:
    values, past = oscillation(), oscillation(400, seed=1)
    gaps = np.random.default_rng(1).random(len(values)) < 0.1
    gaps[:20] = True
    values[gaps] = np.nan
    past[::9] = np.nan
    numbers = view_numbers(COMPUTED, values, Reference.fit(past))
    assert np.isnan(numbers[gaps]).all()
    assert np.isfinite(numbers[~gaps]).all()
    anomaly = ~gaps & (np.arange(len(values)) // 40 == 9)
    assert (numbers[anomaly].mean(axis=0) > np.median(numbers[~gaps], axis=0)).all()


@settings(deadline=None, max_examples=6)
@given(st.sampled_from([1e-6, 0.3, 7.0, 1e12]), st.sampled_from([-1e3, 0.0, 5.0]), KINDS)
def test_the_unit_does_not_matter(scale: float, offset: float, kind: str) -> None:
    both = series_of(kind, 600, 3)
    other = (both + offset) * scale
    numbers = [view_numbers(COMPUTED, v[300:], Reference.fit(v[:300], typical_width=np.ptp(v))) for v in (both, other)]
    # Rounding errors are more than nothing for windows that have an exact copy, and views of the whole have no floor.
    distant = np.maximum(numbers[0], -3), np.maximum(numbers[1], -3)
    kept = slice(None) if kind in ("noise", "oscillation") else slice(len(STREAMED))
    np.testing.assert_allclose(distant[0][:, kept], distant[1][:, kept], atol=CLOSE)


@pytest.mark.parametrize("large", [1e6, 1e30, 1e99, 1e300, np.inf, -np.inf])
def test_huge_values_are_anomalous_and_harm_no_other_step(large: float) -> None:
    values, reference = oscillation(400), Reference.fit(oscillation(400, seed=1))
    plain = view_numbers(COMPUTED, values, reference)
    values[100] = large
    numbers = view_numbers(COMPUTED, values, reference)
    assert np.isnan(numbers[100]).all() == np.isinf(large)
    assert np.isfinite(np.delete(numbers, 100, axis=0)).all()
    if np.isfinite(large):
        assert (numbers[100, : len(STREAMED)] > 8).all()
        # Nor does it make the rest of the series look usual.
        past = [COMPUTED.index(name) for name in ("past_8", "past_32", "past_128")]
        np.testing.assert_allclose(numbers[240:, past], plain[240:, past], atol=2)
    unrelated = [i for i, name in enumerate(COMPUTED) if VIEWS[name].kind in ("deviation", "spread", "reference")]
    np.testing.assert_array_equal(numbers[240:, unrelated], plain[240:, unrelated])


def test_huge_values_in_a_reference_raise_no_warning() -> None:
    past = oscillation(400)
    past[[50, 60, 70]] = 1e300, -np.inf, np.finfo(np.float64).max
    numbers = view_numbers(COMPUTED, oscillation(300), Reference.fit(past))
    assert np.isfinite(numbers).all()


def test_a_constant_reference_takes_the_typical_width() -> None:
    reference = Reference.fit(np.full(300, 0.1), typical_width=2.0)
    values = np.full(300, 0.1)
    values[200:] += 1.0
    numbers = view_numbers(COMPUTED, values, reference)
    assert np.isfinite(numbers).all()
    deviation = numbers[:, COMPUTED.index("deviation")]
    np.testing.assert_allclose(deviation[[0, 299]], [0, 12**0.5 / 2])


@pytest.mark.parametrize("past", [[], [np.nan] * 300, [1.0, 2.0] * 3, [0.0, 1.0, 3.0] * 4])
@pytest.mark.parametrize("steps", [0, 1, 7, 8, 20, 300])
def test_what_cannot_be_compared_is_missing(past: list[float], steps: int) -> None:
    values = np.random.default_rng(0).normal(size=steps)
    numbers = view_numbers(COMPUTED, values, Reference.fit(np.array(past)))
    assert numbers.shape == (steps, len(COMPUTED))
    columns = dict(zip(COMPUTED, numbers.T, strict=True))
    assert np.isfinite(columns["deviation"]).all()
    assert np.isnan(columns["reference_8"]).all()  # fewer than 16 steps, all of these references
    for width in (8, 32, 128):
        if steps < width:
            assert np.isnan(columns[f"past_{width}"]).all() and np.isnan(columns[f"whole_{width}"]).all()
        if steps == 300:
            assert np.isfinite(columns[f"past_{width}"][2 * width :]).all()
            assert np.isfinite(columns[f"whole_{width}"]).all()


def test_a_long_stream_holds_no_more_than_a_short_one() -> None:
    reference = Reference.fit(oscillation(100, seed=1))
    stream, sizes = ViewStream(["deviation", "spread", "past_8"], reference), []
    for _ in range(9):
        stream.append(oscillation(1000))
        sizes.append(len(pickle.dumps(stream)))
    assert max(sizes[5:]) <= sizes[4] < 64 * 1024


def test_the_past_is_searched_as_far_as_stated() -> None:
    rng = np.random.default_rng(0)
    values, reference = rng.normal(size=4400), Reference.fit(rng.normal(size=100))
    for lag, found in ((4096, True), (4097, False)):
        copied = values[: 30 + lag + 8].copy()
        copied[-8:] = copied[30:38]
        stream = ViewStream(["past_8"], reference)
        stream.append(copied)
        # Only one window holds the last step: the copy.
        assert (stream.pending()[-1, 0] == VIEWS["past_8"].low) == found


@pytest.mark.parametrize("steps", [0, 5, 100, 4096, 20_000])
def test_a_reference_is_stored_in_32_kilobytes(steps: int) -> None:
    values = np.random.default_rng(0).normal(size=steps)
    places = np.arange(steps) + np.arange(steps) // 10
    for reference in (Reference.fit(values), Reference.fit(values, places)):
        description = json.loads(json.dumps(reference.description(), allow_nan=False))
        assert reference.known().nbytes + len(json.dumps(description)) <= 32 * 1024
        restored = Reference.stored(reference.known(), description)
        np.testing.assert_array_equal(restored.values, reference.values)
        np.testing.assert_array_equal(restored.steps, reference.steps)
        new = oscillation(150)
        np.testing.assert_array_equal(view_numbers(SMALL, new, restored), view_numbers(SMALL, new, reference))
        del description["starts"]  # as earlier versions wrote it
        earlier = Reference.stored(reference.known(), description)
        np.testing.assert_array_equal(earlier.steps, PAST + np.arange(len(reference.values)))


def test_a_long_reference_is_sampled_evenly() -> None:
    values = np.sin(np.arange(20_000) / 9)
    reference = Reference.fit(values, np.arange(5, 20_005))
    kept = reference.steps[np.isfinite(reference.values)]
    assert len(kept) == 4096 and kept[0] == 5 and kept[-1] == 20_004
    np.testing.assert_allclose(np.diff(kept).max(), (20_000 - 512) / 7 - 511, atol=1)
    np.testing.assert_allclose(
        reference.values[np.isfinite(reference.values)], reference.standardize(values)[kept - 5], atol=1e-6
    )


def test_impossible_views_are_refused() -> None:
    reference = Reference.fit(oscillation(100))
    with pytest.raises(InputError, match="view 'whole_8' reads the whole series"):
        ViewStream(["deviation", "whole_8"], reference)
    for name in ("value", "reference_9"):
        with pytest.raises(InputError, match=f"view '{name}': must be one of deviation, spread"):
            view_numbers([name], oscillation(100), reference)


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_has_a_range(name: str) -> None:
    assert VIEWS[name].low < VIEWS[name].high


def test_the_distance_is_that_of_the_width_at_which_it_is_largest() -> None:
    names = ("deviation", "reference_8", "past_8", "past_32", "whole_128")
    numbers = np.array([[9, 2, 4, 1, 2], [9, 2, 4, 5, np.nan], [9, np.nan, 4, 1, -3], [9, -1, -3, np.nan, -4.0]])
    np.testing.assert_allclose(largest_distance(names, numbers), [3, 5, 2, 0])
    np.testing.assert_array_equal(largest_distance(names[:1], numbers[:, :1]), np.zeros(4))
