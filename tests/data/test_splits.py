"""Splits: no step in two of them, similar base rates, and a warning about the kind that leaks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.data.series import Series
from spear_jax.data.splits import SPLITS, split_series
from spear_jax.data.windows import cut_windows, window_starts
from spear_jax.errors import InputError

FRACTIONS = (0.6, 0.2, 0.2)


def make(lengths: list[int], seed: int = 0) -> list[Series]:
    rng = np.random.default_rng(seed)
    return [
        Series(f"s{i}", rng.normal(size=n).astype(np.float32), rng.random(n) < rng.uniform(0, 0.3))
        for i, n in enumerate(lengths)
    ]


def steps_by_split(series: list[Series], kind: str, window: int, stride: int, gap: int = 0) -> dict[str, set]:
    parts = split_series(series, kind, FRACTIONS, window=window, stride=stride, gap=gap, seed=3)
    names = [item.name for item in series]
    steps_of = {}
    for split in SPLITS:
        windows = cut_windows(parts[split], names, window, stride)
        steps = windows.start[:, None] + np.arange(window)
        steps_of[split] = {
            (int(s), int(t))
            for s, row, real in zip(windows.series, steps, windows.real, strict=True)
            for t in row[real]
        }
    return steps_of


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(30, 300), min_size=5, max_size=12),
    kind=st.sampled_from(["series", "time"]),
    window=st.integers(2, 40),
    stride=st.integers(1, 50),
    gap=st.integers(0, 2),
)
def test_no_step_of_validation_or_test_lies_in_a_training_window(lengths, kind, window, stride, gap):
    steps = steps_by_split(make(lengths), kind, window, stride, gap)
    assert not steps["train"] & steps["validation"]
    assert not steps["train"] & steps["test"]
    assert not steps["validation"] & steps["test"]


def test_random_windows_leak():
    steps = steps_by_split(make([400] * 5), "random", window=32, stride=8)
    assert steps["train"] & steps["test"], "overlapping windows assigned at random share steps"


def test_time_leaves_a_gap_between_splits():
    parts = split_series(make([100]), "time", FRACTIONS, window=4, stride=4, gap=7, seed=0)
    ends = [(p.start, p.start + len(p)) for split in SPLITS for p in parts[split]]
    assert ends == [(0, 60), (67, 80), (87, 100)]


def test_series_are_held_out_whole_and_alike_in_base_rate():
    series = make([200] * 50, seed=5)
    parts = split_series(series, "series", FRACTIONS, window=8, stride=8, gap=0, seed=1)
    assert [len(parts[split]) for split in SPLITS] == [30, 10, 10]
    assert sorted(p.name for split in SPLITS for p in parts[split]) == sorted(s.name for s in series)
    rates = [np.mean([p.labels.mean() for p in parts[split]]) for split in SPLITS]
    assert max(rates) - min(rates) < 0.03


def test_another_seed_gives_another_split():
    series = make([200] * 20)
    names = [
        [p.name for p in split_series(series, "series", FRACTIONS, window=8, stride=8, gap=0, seed=s)["test"]]
        for s in (0, 0, 1)
    ]
    assert names[0] == names[1] != names[2]


def test_too_few_series_are_refused_by_name():
    with pytest.raises(InputError, match=r"data.split='series': nothing is left for .* out of 2 series"):
        split_series(make([50, 50]), "series", FRACTIONS, window=8, stride=8, gap=0, seed=0)


def test_series_too_short_for_their_gap_are_refused_by_length():
    message = (
        r"data.split='time': nothing is left for validation: the longest series has 60 steps, of which data.gap=12 "
    )
    with pytest.raises(InputError, match=message):
        split_series(make([50, 60]), "time", FRACTIONS, window=8, stride=8, gap=12, seed=0)


@settings(deadline=None)
@given(length=st.integers(1, 500), window=st.integers(1, 100), stride=st.integers(1, 100))
def test_windows_reach_both_ends(length, window, stride):
    starts = window_starts(length, window, stride)
    assert starts[0] == 0
    assert (starts >= 0).all()
    assert starts[-1] + window == max(length, window)
    assert (np.diff(starts) > 0).all()
    assert (np.diff(starts) <= stride).all()
