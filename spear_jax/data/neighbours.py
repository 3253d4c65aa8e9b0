"""Compares the windows of a series with one another: which are alike, and how far the nearest one is.

This is the float64 computation of offline methods, over a whole series and its past; `own_past` has the one that works
row by row.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

TILE = 1 << 19  # distances in memory at a time: 4 MB, which fit into the cache

PAST = -(1 << 40)  # start of a window of the past, far from all windows of the series


class WindowSample(NamedTuple):
    """Windows to compare others with.

    Attributes:
      windows: their values.
      starts: first step of each window in its series, ascending; `PAST` for those of the past.
    """

    windows: Float[np.ndarray, "references window"]
    starts: Int[np.ndarray, "references"]


def interpolate_missing(values: Float[np.ndarray, "time"]) -> Float[np.ndarray, "steps"]:
    """Interpolates missing values linearly; returns nothing if all are missing."""
    recorded = np.flatnonzero(np.isfinite(values))
    if not len(recorded):
        return np.zeros(0)
    return np.interp(np.arange(len(values)), recorded, values[recorded].astype(np.float64))


def sample_windows(
    past: Sequence[Float[np.ndarray, "_steps"]], own: Float[np.ndarray, "windows window"], limit: int, seed: int
) -> WindowSample:
    """Returns the windows of the past and of the series, or a random sample of `limit` of them.

    Args:
      past: stretches of the past; no window spans two of them.
      own: the windows of the series.
      limit: the largest number of windows.
      seed: seed of the sample.
    """
    window = own.shape[1]
    stretches = [np.lib.stride_tricks.sliding_window_view(part, window) for part in past if len(part) >= window]
    before = np.concatenate(stretches) if len(stretches) > 1 else (*stretches, own[:0])[0]
    total = len(before) + len(own)
    chosen = np.arange(total)
    if total > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(total, limit, replace=False))
    split = int(np.searchsorted(chosen, len(before)))
    starts = chosen - len(before)
    starts[:split] = PAST
    return WindowSample(np.concatenate([before[chosen[:split]], own[starts[split:]]]), starts)


def distances_to_nearest(
    references: WindowSample,
    own: Float[np.ndarray, "windows window"],
    reach: int,
    prepare: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Float[np.ndarray, "windows"]:
    """Returns each window's Euclidean distance to the nearest reference that starts over `reach` steps from it.

    Args:
      references: the windows to compare with.
      own: all windows of the series, one step apart.
      reach: steps.
      prepare: applied to the windows first.
    """
    if not len(references.windows):
        return np.zeros(len(own))
    # |q - r|^2 is |q|^2 + (|r|^2 - 2 q r), where the bracket is a single matrix product of (q, 1) and (-2 r, |r|^2).
    fitted = prepare(references.windows)
    factors = np.vstack([-2 * fitted.T, (fitted**2).sum(axis=1)])
    squared, begin = [], 0
    for block in blocks(own, max(TILE // len(fitted), 1)):
        queries = prepare(block)
        squared_norm = (queries**2).sum(axis=1)
        bracket = np.column_stack([queries, np.ones(len(queries))]) @ factors
        starts = begin + np.arange(len(block))
        firsts = np.searchsorted(references.starts, starts - reach)
        lasts = np.searchsorted(references.starts, starts + reach, side="right")
        for row, first, last in zip(bracket, firsts, lasts, strict=True):
            row[first:last] = np.inf
        near = bracket.min(axis=1) + squared_norm
        # Equal windows differ by rounding errors.
        squared.append(np.where(np.isfinite(near) & (near > 1e-12 * squared_norm), near, 0.0))
        begin += len(block)
    return np.sqrt(np.concatenate(squared))


def relative_to_mean(scores: Float[np.ndarray, "windows"]) -> Float[np.ndarray, "windows"]:
    """Divides scores by their mean."""
    return scores / (scores.mean() or 1.0)


def step_means(scores: Float[np.ndarray, "windows"], window: int) -> Float[np.ndarray, "time"]:
    """Returns each step's mean over its windows, of `window` steps each and one step apart."""
    ones = np.ones(window)
    return np.convolve(scores, ones) / np.convolve(np.ones(len(scores)), ones)


def blocks(windows: Float[np.ndarray, "windows window"], rows: int) -> list[Float[np.ndarray, "_rows window"]]:
    """Returns views of up to `rows` windows each."""
    return [windows[begin : begin + rows] for begin in range(0, len(windows), rows)]
