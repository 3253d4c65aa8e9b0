"""Train, validation and test, decided before anything is scaled or cut into windows."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from spear_jax.data.runs import find_runs
from spear_jax.data.series import Series
from spear_jax.data.windows import window_starts
from spear_jax.errors import InputError

SPLITS = ("train", "validation", "test")


LEAKS = (
    "windows of one series lie in several splits: the test numbers are flattered by neighbours seen in training;"
    " only for comparison with literature"
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
      kind: 'series' holds out whole series, alike in their share of anomalous steps; 'time' cuts every series in
        time order, dropping `gap` steps after each cut; 'random' deals out windows at random, which leaks.
      fractions: shares of train, validation and test; they sum to 1.
      window: steps in a window, used by 'random'.
      stride: steps from one window to the next, used by 'random'.
      gap: steps left out between two splits of one series, used by 'time'.
      seed: decides which series, or which windows, go where.

    Returns:
      Stretches of the series by split. Windows are cut inside a stretch, so none ever touches two splits.

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
                f" of which data.gap={gap} are dropped behind each cut (data.fractions={tuple(fractions)}); use longer"
                " series, a smaller data.gap or other fractions"
            )
        if not stretches:
            raise InputError(
                f"data.split={kind!r}: nothing is left for {split} out of {len(series)} series with"
                f" data.fractions={tuple(fractions)}; use more series, other fractions or another split"
            )
    return parts


def _by_series(series: Sequence[Series], fractions: Sequence[float], rng: np.random.Generator) -> list[list[Series]]:
    """Each series, or group of them, goes whole to the part that lacks most, in order of its share of anomalous steps.

    Neighbours in that order are alike, so every part gets some of each kind; ties fall at random.
    """
    together: dict[str, list[Series]] = {}
    for one in series:
        together.setdefault(one.group or f"series {one.name}", []).append(one)
    groups = list(together.values())
    shuffled = [groups[i] for i in rng.permutation(len(groups))]
    ordered = sorted(shuffled, key=_share)
    dealt: list[list[list[Series]]] = [[] for _ in fractions]
    owed = rng.permuted(1e-6 * np.arange(1, len(fractions) + 1))
    for group in ordered:
        owed = owed + fractions
        split = int(np.argmax(owed))
        owed[split] -= 1
        dealt[split].append(group)
    for groups in dealt:  # where there are few, none may go empty-handed
        largest = max(dealt, key=len)
        if not groups and len(largest) > 1:
            groups.append(largest.pop())
    return [[one for group in groups for one in group] for groups in dealt]


def hold_out(series: Sequence[Series], share: float, *, gap: int, seed: int) -> dict[str, list[Series]]:
    """Divides recorded series into train and validation, so that both have anomalies where that can be.

    Whole series are held out where both parts then have anomalies, or where nobody recorded any and there are several;
    else the end of each series.

    Args:
      series: the recorded series.
      share: of the validation part.
      gap: steps left out between the two parts of one series.
      seed: decides which series are held out.

    Raises:
      InputError: a part would be empty.
    """
    if len({one.group or one.name for one in series}) > 1:
        train, validation = _by_series(series, (1 - share, share), np.random.default_rng(seed))
        if all(any(one.labels.any() for one in part) for part in (train, validation)):
            return {"train": train, "validation": validation}
        if not any(one.labels.any() for one in series):
            return {"train": train, "validation": validation}
    train, validation = [], []
    for one in series:
        cut = _cut(one.labels, share)
        train.append(one.stretch(0, cut))
        validation.append(one.stretch(min(cut + gap, len(one) - 1), len(one)))
    parts = {"train": [one for one in train if len(one)], "validation": [one for one in validation if len(one)]}
    if not all(parts.values()):
        raise InputError(f"n_samples={sum(map(len, series))}: too few to hold out some of them for validation")
    return parts


def _cut(labels: Bool[np.ndarray, "time"], share: float) -> int:
    """Where the last part of a series begins: not in an anomaly, and with anomalies on both sides where it has two."""
    usual = round((1 - share) * len(labels))
    starts, ends = find_runs(labels)
    if not len(starts):
        return usual
    if len(starts) == 1:  # it is learned from
        return max(usual, int(ends[0])) if ends[0] < (len(labels) + usual) / 2 else usual
    between = np.clip(usual, ends[:-1], starts[1:])
    return int(between[np.argmin(np.abs(between - usual))])


def _share(group: Sequence[Series]) -> float:
    """Share of anomalous steps."""
    return sum(int(one.labels.sum()) for one in group) / max(1, sum(map(len, group)))


def _by_time(series: Sequence[Series], fractions: Sequence[float], gap: int) -> dict[str, list[Series]]:
    parts: dict[str, list[Series]] = {split: [] for split in SPLITS}
    for one in series:
        ends = np.round(np.cumsum(fractions) * len(one)).astype(int)
        begins = (0, ends[0] + gap, ends[1] + gap)
        for split, begin, end in zip(SPLITS, begins, ends, strict=True):
            if end > begin:
                parts[split].append(one.stretch(int(begin), int(end)))
    return parts


def _by_window(
    series: Sequence[Series],
    fractions: Sequence[float],
    window: int,
    stride: int,
    rng: np.random.Generator,
) -> dict[str, list[Series]]:
    stretches = [
        one.stretch(int(begin), int(begin) + window)
        for one in series
        for begin in window_starts(len(one), window, stride)
    ]
    order = rng.permutation(len(stretches))
    ends = np.round(np.cumsum(fractions) * len(stretches)).astype(int)
    return {
        split: [stretches[i] for i in sorted(part)]
        for split, part in zip(SPLITS, np.split(order, ends[:2]), strict=True)
    }
