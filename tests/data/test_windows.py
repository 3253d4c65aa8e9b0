"""Windows and stitching: every step gets exactly one score."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.data.series import Series
from spear_jax.data.step_scores import stitch
from spear_jax.data.windows import cut_windows


def make(lengths: list[int]) -> list[Series]:
    first = np.cumsum([0, *lengths])
    return [
        Series(f"s{i}", np.arange(first[i], first[i + 1], dtype=np.float32), np.arange(n) % 3 == 0)
        for i, n in enumerate(lengths)
    ]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=5),
    window=st.integers(1, 40),
    stride=st.integers(1, 40),
)
def test_every_step_gets_its_own_score(lengths, window, stride):
    stride = min(stride, window)  # a longer one skips steps between windows
    series = make(lengths)
    windows = cut_windows(series, [item.name for item in series], window, stride)
    steps = stitch(windows, np.where(windows.real, windows.values, 1e9), series)
    assert len(steps.score) == sum(lengths)
    np.testing.assert_array_equal(steps.score, steps.value)
    np.testing.assert_array_equal(steps.step, np.concatenate([np.arange(n) for n in lengths]))
    np.testing.assert_array_equal(steps.label, np.concatenate([item.labels for item in series]))


def test_overlapping_windows_are_averaged():
    series = make([6])
    windows = cut_windows(series, ["s0"], 4, 2)
    scores = np.array([[0.0] * 4, [1.0] * 4])
    np.testing.assert_array_equal(stitch(windows, scores, series).score, [0, 0, 0.5, 0.5, 1, 1])


def test_a_short_series_is_padded_with_a_mask():
    windows = cut_windows(make([3]), ["s0"], 5, 5)
    np.testing.assert_array_equal(windows.real, [[True, True, True, False, False]])
    assert np.isnan(windows.values[0, 3:]).all()
    assert not windows.labels[0, 3:].any()


def test_stretches_know_their_place_in_the_recorded_series():
    (series,) = make([50])
    windows = cut_windows([series.stretch(20, 40).stretch(5, 15)], ["s0"], 10, 10)
    assert windows.start.tolist() == [25]
    np.testing.assert_array_equal(windows.values[0], np.arange(25, 35))
