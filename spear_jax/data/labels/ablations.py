"""Withholds labels from training: fewer labelled incidents, or labels of other windows as a control."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from spear_jax.data.batches import Examples
from spear_jax.data.runs import find_runs
from spear_jax.data.series import Series
from spear_jax.data.windows import Windows


def keep_labelled_share(
    training: Examples, windows: Windows, recorded: Sequence[Series], share: float, rng: np.random.Generator
) -> Examples:
    """Keeps the windows of a share of the incidents, and the same share of the windows without any.

    An incident is a labelled interval. At least one of each is kept; a window in which a kept incident meets another
    keeps the labels of both.
    """
    intervals = [find_runs(series.labels) for series in recorded]
    incidents = []  # of each window, as (series, number of the interval)
    for number, begin, length in zip(windows.series.tolist(), windows.start.tolist(), windows.lengths, strict=True):
        starts, ends = intervals[number]
        inside = np.flatnonzero((starts < begin + length) & (ends > begin))
        incidents.append({(number, interval) for interval in inside.tolist()})

    every = sorted(set().union(*incidents))
    chosen = {every[i] for i in _draw(len(every), share, rng)}
    normal = [row for row, met in enumerate(incidents) if not met]
    kept = [normal[i] for i in _draw(len(normal), share, rng)]
    return training.select(np.sort([*kept, *(row for row, met in enumerate(incidents) if met & chosen)]).astype(int))


def shuffle_targets(training: Examples, rng: np.random.Generator) -> Examples:
    """Gives every window the targets of another window of its length.

    The base rate stays, and no window learns from padding.
    """
    targets = training.targets.copy()
    lengths = training.mask.sum(axis=1)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        targets[rows] = targets[rng.permutation(rows)]
    return dataclasses.replace(training, targets=targets)


def _draw(count: int, share: float, rng: np.random.Generator) -> list[int]:
    """Draws a share of `count` things, and at least one."""
    return rng.permutation(count)[: max(round(share * count), 1)].tolist()
