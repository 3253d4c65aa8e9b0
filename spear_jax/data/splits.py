"""Splits series into train, validation and test, before anything is scaled or cut into windows."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from spear_jax.data.runs import find_runs
from spear_jax.data.series import Series
from spear_jax.data.windows import window_starts
from spear_jax.errors import InputError

SPLITS = ("train", "validation", "test")

LEAKS = (
    "windows of one series are in several splits: neighbours seen in training inflate the test numbers; only for"
    " comparison with the literature"
)


def split_series(
    series: Sequence[Series],
    kind: str,
    fractions: Sequence[float],
    *,
    window: int,
    stride: int,
    gap: int,
    seed: int,
) -> dict[str, list[Series]]:
    """Divides recorded series into stretches for each split.

    Args:
      series: the recorded series.
      kind: 'series' holds out whole series, with similar shares of anomalous steps in each split; 'time' cuts every
        series in time order and drops `gap` steps after each cut; 'random' assigns windows at random, which leaks.
      fractions: shares of train, validation and test; they sum to 1.
      window: steps in a window, for 'random'.
      stride: steps from one window to the next, for 'random'.
      gap: steps dropped between two splits of one series, for 'time'.
      seed: decides which series, or which windows, go into which split.

    Returns:
      Stretches of the series by split. Windows are cut within a stretch, so none overlaps two splits.

    Raises:
      InputError: a split would be empty.
    """
    rng = np.random.default_rng(seed)
    if kind == "series":
        parts = dict(zip(SPLITS, _by_series(series, fractions, rng), strict=True))
    elif kind == "time":
        parts = _by_time(series, fractions, gap)
    else:
        parts = _by_window(series, fractions, window, stride, rng)
    for split, stretches in parts.items():
        if not stretches and kind == "time":
            raise InputError(
                f"data.split='time': nothing is left for {split}: the longest series has {max(map(len, series))} steps,"
                f" and data.gap={gap} steps are dropped after each of the two cuts (data.fractions={tuple(fractions)});"
                " use longer series, a smaller data.gap or other fractions"
            )
        if not stretches:
            raise InputError(
                f"data.split={kind!r}: nothing is left for {split} out of {len(series)} series with"
                f" data.fractions={tuple(fractions)}; use more series, other fractions or another split"
            )
    return parts


def _by_series(series: Sequence[Series], fractions: Sequence[float], rng: np.random.Generator) -> list[list[Series]]:
    """Assigns each group of series to the split furthest below its share, in order of their share of anomalous steps.

    Neighbours in that order are similar, so every split gets some of each kind. Ties are broken at random.
    """
    by_group: dict[str, list[Series]] = {}
    for item in series:
        by_group.setdefault(item.indivisible, []).append(item)
    groups = list(by_group.values())
    shuffled = [groups[i] for i in rng.permutation(len(groups))]
    ordered = sorted(shuffled, key=_anomalous_share)
    assigned: list[list[list[Series]]] = [[] for _ in fractions]
    deficit = rng.permuted(1e-6 * np.arange(1, len(fractions) + 1))
    for group in ordered:
        deficit = deficit + fractions
        split = int(np.argmax(deficit))
        deficit[split] -= 1
        assigned[split].append(group)
    for groups in assigned:  # no split stays empty if there are enough groups
        largest = max(assigned, key=len)
        if not groups and len(largest) > 1:
            groups.append(largest.pop())
    return [[item for group in groups for item in group] for groups in assigned]


def assign_folds(groups: Iterable[str], folds: int) -> dict[str, int]:
    """Returns the fold of each group: that of a fixed permutation of the groups sorted by name.

    Neither a seed nor the order of the groups matters, and folds differ in size by one group at most. On the 81
    channels of NASA these are the folds `default_rng(0).permutation(81) % folds` of the channels in order of their ids.

    Args:
      groups: names of all groups of the data set; a fold depends on their number.
      folds: the number of folds.

    Raises:
      InputError: there are fewer groups than folds.
    """
    ordered = sorted(set(groups))
    if len(ordered) < folds:
        raise InputError(
            f"config.data.folds={folds} must be at most {len(ordered)}, the number of series (of groups, such as"
            " patients) that can be held out"
        )
    numbers = np.random.default_rng(0).permutation(len(ordered)) % folds
    return dict(zip(ordered, numbers.tolist(), strict=True))


def split_fold(
    series: Sequence[Series], fold_of: Mapping[str, int], fold: int, *, fractions: Sequence[float], seed: int
) -> dict[str, list[Series]]:
    """Returns the series of one fold as test, and divides the others into train and validation.

    Args:
      series: the recorded series.
      fold_of: the fold of each group, from `assign_folds`.
      fold: the fold to test on.
      fractions: shares of train, validation and test; only the ratio of the first two counts.
      seed: decides which of the other series are for training.

    Raises:
      InputError: a split would be empty.
    """
    test = [item for item in series if fold_of[item.indivisible] == fold]
    others = [item for item in series if fold_of[item.indivisible] != fold]
    shares = np.array(fractions[:2]) / sum(fractions[:2])
    train, validation = _by_series(others, shares.tolist(), np.random.default_rng(seed))
    parts = {"train": train, "validation": validation, "test": test}
    for split, own in parts.items():
        if not own:
            raise InputError(
                f"config.data.fold={fold}: nothing is left for {split} out of {len(series)} series, of which"
                f" {len(test)} are in this fold; use more series or fewer folds"
            )
    return parts


def hold_out(series: Sequence[Series], share: float, *, gap: int, seed: int) -> dict[str, list[Series]]:
    """Divides recorded series into train and validation, so that both have anomalies where possible.

    Whole series are held out if both parts then have anomalies, or if there are several series and none is anomalous;
    else the end of each series.

    Raises:
      InputError: a part would be empty.
    """
    if len({item.indivisible for item in series}) > 1:
        train, validation = _by_series(series, (1 - share, share), np.random.default_rng(seed))
        anomalous = [any(item.labels.any() for item in part) for part in (train, validation)]
        if all(anomalous) or not any(anomalous):
            return {"train": train, "validation": validation}
    train, validation = [], []
    for item in series:
        cut = _find_cut(item.labels, share)
        train.append(item.stretch(0, cut))
        validation.append(item.stretch(min(cut + gap, len(item) - 1), len(item)))
    parts = {"train": [part for part in train if len(part)], "validation": [part for part in validation if len(part)]}
    if not all(parts.values()):
        raise InputError(f"n_samples={sum(map(len, series))}: too few to hold out some of them for validation")
    return parts


def _find_cut(labels: Bool[np.ndarray, "time"], share: float) -> int:
    """Returns the step at which to cut a series: outside anomalies, with at least one on each side if it has two."""
    target = round((1 - share) * len(labels))
    starts, ends = find_runs(labels)
    if not len(starts):
        return target
    if len(starts) == 1:  # belongs to the train part
        return max(target, int(ends[0])) if ends[0] < (len(labels) + target) / 2 else target
    between = np.clip(target, ends[:-1], starts[1:])
    return int(between[np.argmin(np.abs(between - target))])


def _anomalous_share(group: Sequence[Series]) -> float:
    return sum(int(item.labels.sum()) for item in group) / max(1, sum(map(len, group)))


def _by_time(series: Sequence[Series], fractions: Sequence[float], gap: int) -> dict[str, list[Series]]:
    parts: dict[str, list[Series]] = {split: [] for split in SPLITS}
    for item in series:
        ends = np.round(np.cumsum(fractions) * len(item)).astype(int)
        begins = (0, ends[0] + gap, ends[1] + gap)
        for split, begin, end in zip(SPLITS, begins, ends, strict=True):
            if end > begin:
                parts[split].append(item.stretch(int(begin), int(end)))
    return parts


def _by_window(
    series: Sequence[Series],
    fractions: Sequence[float],
    window: int,
    stride: int,
    rng: np.random.Generator,
) -> dict[str, list[Series]]:
    stretches = [
        item.stretch(int(begin), int(begin) + window)
        for item in series
        for begin in window_starts(len(item), window, stride)
    ]
    order = rng.permutation(len(stretches))
    ends = np.round(np.cumsum(fractions) * len(stretches)).astype(int)
    return {
        split: [stretches[i] for i in sorted(part)]
        for split, part in zip(SPLITS, np.split(order, ends[:2]), strict=True)
    }
