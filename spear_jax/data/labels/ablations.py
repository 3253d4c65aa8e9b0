"""Keeps only some training windows or labels: a sample, a share of the incidents, or shuffled labels."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from spear_jax.data.batches import Examples
from spear_jax.data.runs import find_runs
from spear_jax.data.series import Series
from spear_jax.data.windows import Windows


def sample_normal_windows(windows: Windows, count: int, rng: np.random.Generator) -> Bool[np.ndarray, "windows"]:
    """Returns True for the windows to keep: all with an anomalous step, and a random sample of the others.

    The sample is spread evenly over the series: none gives a window more than another that has windows left.

    Args:
      windows: the training windows.
      count: windows without an anomalous step to keep; all of them are kept if there are fewer.
      rng: draws the sample.
    """
    normal = rng.permutation(np.flatnonzero(~windows.labels.any(axis=1)))
    # The number of windows of the same series that were drawn before: 0 for the first of each series.
    turn = np.zeros(len(normal), int)
    for series in np.unique(windows.series[normal]):
        own = windows.series[normal] == series
        turn[own] = np.arange(own.sum())
    kept = np.array(windows.labels.any(axis=1))
    kept[normal[np.argsort(turn, kind="stable")[:count]]] = True
    return kept


def keep_labelled_share(
    training: Examples, windows: Windows, recorded: Sequence[Series], share: float, rng: np.random.Generator
) -> Examples:
    """Keeps the windows of a share of the incidents, and the same share of the windows without any.

    An incident is a labelled interval. At least one incident and one normal window are kept; a window with a kept and
    a dropped incident keeps the labels of both.
    """
    intervals = [find_runs(series.labels) for series in recorded]
    incidents = []  # incidents of each window, as (series, number of the interval)
    for number, begin, length in zip(windows.series.tolist(), windows.start.tolist(), windows.lengths, strict=True):
        starts, ends = intervals[number]
        inside = np.flatnonzero((starts < begin + length) & (ends > begin))
        incidents.append({(number, interval) for interval in inside.tolist()})

    distinct = sorted(set().union(*incidents))
    chosen = {distinct[i] for i in _draw(len(distinct), share, rng)}
    normal = [row for row, in_window in enumerate(incidents) if not in_window]
    rows = [normal[i] for i in _draw(len(normal), share, rng)]
    rows += [row for row, in_window in enumerate(incidents) if in_window & chosen]
    return training.select(np.sort(rows).astype(int))


def shuffle_targets(training: Examples, rng: np.random.Generator) -> Examples:
    """Permutes the targets among windows of equal length.

    This keeps the base rate, and never assigns the target of a padding step to a real one.
    """
    targets = training.targets.copy()
    lengths = training.mask.sum(axis=1)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        targets[rows] = targets[rng.permutation(rows)]
    return dataclasses.replace(training, targets=targets)


def _draw(count: int, share: float, rng: np.random.Generator) -> list[int]:
    """Draws a share of the indices below `count`, at least one."""
    return rng.permutation(count)[: max(round(share * count), 1)].tolist()
