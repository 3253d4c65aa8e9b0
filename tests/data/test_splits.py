"""Splits: no step in two of them, similar base rates, folds that test each series once, a warning about what leaks."""

import collections
import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIGS, write_nasa
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.config import load_config
from spear_jax.data import build_dataset, load_series
from spear_jax.data.series import Series
from spear_jax.data.splits import SPLITS, assign_folds, split_fold, split_series
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
    message = r"data.split='time': nothing is left for validation: the longest series has 60 steps, and data.gap=12 "
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


def in_groups(sizes: list[int]) -> list[Series]:
    """Returns series in groups of the given sizes; a group of one has no name of its own."""
    series = make([20] * sum(sizes))
    names = [f"g{i}" if size > 1 else "" for i, size in enumerate(sizes) for _ in range(size)]
    return [dataclasses.replace(item, group=name) for item, name in zip(series, names, strict=True)]


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 3), min_size=4, max_size=23), folds=st.integers(2, 6), data=st.data())
def test_every_series_is_tested_in_one_fold_and_no_group_is_divided(sizes, folds, data):
    series = in_groups(sizes)
    if len(sizes) < folds:
        with pytest.raises(InputError, match=rf"^config\.data\.folds={folds} must be at most {len(sizes)}[^\n]*$"):
            assign_folds([item.indivisible for item in series], folds)
        return
    fold_of = assign_folds([item.indivisible for item in series], folds)
    count = collections.Counter(fold_of.values())
    assert len(count) == folds and max(count.values()) - min(count.values()) <= 1
    shuffled = data.draw(st.permutations(series))
    assert assign_folds([item.indivisible for item in shuffled], folds) == fold_of
    if len(sizes) - max(count.values()) < 2:  # one group cannot be both train and validation
        return
    tested = []
    for fold in range(folds):
        parts = split_fold(shuffled, fold_of, fold, fractions=FRACTIONS, seed=data.draw(st.integers(0, 3)))
        assert sorted(item.name for split in SPLITS for item in parts[split]) == sorted(item.name for item in series)
        groups = [{item.indivisible for item in parts[split]} for split in SPLITS]
        assert sum(map(len, groups)) == len(sizes) and all(groups)
        tested += [item.name for item in parts["test"]]
    assert sorted(tested) == sorted(item.name for item in series)


def test_the_seed_divides_train_and_validation_but_not_the_folds():
    series = make([200] * 21, seed=5)
    fold_of = assign_folds([item.indivisible for item in series], 4)
    parts = [split_fold(series, fold_of, 1, fractions=FRACTIONS, seed=seed) for seed in (0, 0, 1)]
    train, validation, test = ([[item.name for item in part[split]] for part in parts] for split in SPLITS)
    assert test[0] == test[1] == test[2]
    assert train[0] == train[1] and validation[0] == validation[1]
    assert set(train[0]) != set(train[2])
    assert (len(train[0]), len(validation[0]), len(test[0])) == (12, 4, 5)


def test_an_empty_fold_is_refused_in_one_line():
    series = make([50] * 8)
    fold_of = assign_folds([item.indivisible for item in series], 4)
    read = [item for item in series if fold_of[item.indivisible] != 2]
    with pytest.raises(InputError, match=r"^config\.data\.fold=2: nothing is left for test out of 6 series[^\n]*$"):
        split_fold(read, fold_of, 2, fractions=FRACTIONS, seed=0)


def test_a_limit_moves_no_series_to_another_fold(tmp_path: Path):
    folder = write_nasa(tmp_path, {f"A-{i}": [(40, 60)] if i % 3 else [] for i in range(12)})
    config = load_config(f"{CONFIGS / 'nasa.py'}:debug")
    config.data.dir, config.data.folds, config.data.window, config.data.stride = str(folder), 3, 32, 32
    tested = {}
    for limit in (0, 7):
        config.data.limit_series = limit
        for fold in range(3):
            config.data.fold = fold
            dataset = build_dataset(config, load_series(config))
            tested[limit, fold] = {dataset.recorded[i].name for i in dataset.windows["test"].series}
            assert dataset.notes["fold"] == {"number": fold, "of": 3}
    for fold in range(3):
        assert tested[7, fold] < tested[0, fold]
    assert sum(len(tested[7, fold]) for fold in range(3)) == 7


@pytest.mark.skipif(
    not (Path(os.environ.get("SPEAR_DATA_DIR", "/nowhere")) / "nasa").is_dir(),
    reason="the NASA data are not in $SPEAR_DATA_DIR/nasa",
)
def test_the_folds_of_all_nasa_channels():
    config = load_config(f"{CONFIGS / 'nasa.py'}:nasa81")
    series = load_series(config).series
    names = [item.name for item in series]
    assert len(names) == 81 and config.data.folds == 4
    fold_of = assign_folds([item.indivisible for item in series], 4)
    expected = np.random.default_rng(0).permutation(81) % 4  # of the channels in order of their ids
    assert [fold_of[item.indivisible] for item in series] == expected.tolist()
    first = "A-1 A-9 D-1 D-13 D-14 D-16 D-6 D-7 E-1 E-11 E-12 E-6 F-4 F-7 M-3 M-4 M-5 P-1 R-1 S-1 T-5"
    assert [name for name, fold in zip(names, expected, strict=True) if fold == 0] == first.split()
    base_rates = [
        np.concatenate([item.labels for item in series if fold_of[item.indivisible] == fold]).mean()
        for fold in range(4)
    ]
    np.testing.assert_allclose(base_rates, [0.118, 0.124, 0.079, 0.183], atol=5e-4)
