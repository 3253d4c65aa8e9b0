"""Computes the volume under the surface (VUS): AUROC and AUPR with tolerance for slightly misplaced detections."""

from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Num

from spear_jax.data import find_runs

StepFlags: TypeAlias = Bool[np.ndarray, "steps"] | Integer[np.ndarray, "steps"]
MAX_DEFAULT_WINDOW = 500


class Volumes(NamedTuple):
    """Volumes under the ROC and the precision-recall surface, in [0, 1]; None where undefined."""

    roc: float | None
    pr: float | None


def vus(
    labels: StepFlags,
    scores: Num[np.ndarray, "steps"],
    window: int | None = None,
    thresholds: int | None = None,
) -> Volumes:
    """Computes VUS-ROC and VUS-PR (Paparrizos et al., PVLDB 15, 2022).

    They are areas under range-based curves, averaged over tolerances. For each buffer l = 0 ... window, a normal step
    d <= l // 2 steps away from a true interval counts as anomalous with weight sqrt(1 - d / l), or 1 if two intervals
    are that near. P of the n steps are anomalous; at a threshold, N steps are predicted, among them T anomalous and
    buffer steps of total weight B; E is the share of intervals (widened by their buffers and merged where these
    overlap) that contain a predicted step. Then

        TPR = min((T + B) / (P + B / 2), 1) E,  FPR = (N - T - B) / (n - P - B / 2),  precision = (T + B) / N.

    The area under ROC uses trapezoids and ends in (1, 1); the area under PR sums the steps of TPR times precision.

    This is the authors' current definition (vus 0.0.6; TSB-AD 1.5 and its leaderboard, which set the window to the
    period of the series). Their first version, also in aeon, has the weight of all buffers in place of the B in
    P + B / 2, so that no detector reaches 1, and computes the PR area by trapezoids. Both use 250 thresholds, which is
    too few for rare anomalies: with .1 % of 100,000 steps anomalous, they report .21 for a VUS-PR of .77. Here every
    distinct score is a threshold.

    Random scores exceed .5 and the base rate, increasingly so for longer windows.

    Time grows with steps times window: 100,000 steps with a window of 100 take 0.1 s with 5 % anomalous and 0.3 s with
    40 %, on one CPU core.

    Args:
      labels: True where anomalous.
      scores: higher is more anomalous; only their order matters.
      window: the longest buffer, in steps; None means `default_window`. Values for different windows are not
        comparable.
      thresholds: number of thresholds, at even ranks; None means all, 250 reproduces the authors' values.

    Returns:
      The volumes; None for both if `labels` has one class only.

    Raises:
      ValueError: shapes differ, a score is NaN, or window or thresholds is too small.
    """
    (labels,) = as_flags(labels)
    scores = np.asarray(scores)
    _check_arguments(labels, scores, window, thresholds)
    if labels.all() or not labels.any():
        return Volumes(None, None)
    window = default_window(labels) if window is None else window
    starts, ends = find_runs(labels)
    n, positives = len(labels), int(labels.sum())

    order = np.argsort(scores, kind="stable")[::-1]
    rank = np.empty(n + 1, int)
    rank[order], rank[n] = np.arange(n), n  # a sentinel for intervals that end with the series
    last = _last_of_ties(scores[order], thresholds)
    nearest, second = _distances(labels, starts, ends)
    in_buffer = (~labels & (nearest <= window // 2))[order]
    nearest, second = nearest[order][in_buffer], second[order][in_buffer]
    # While only steps far from any interval are added, TPR is constant and FPR linear: keep the ends of such a stretch.
    moves = np.diff(np.cumsum(in_buffer | labels[order])[last], prepend=0) > 0
    last = last[moves | np.append(moves[1:], True)]
    predicted, hits, buffered = last + 1, np.cumsum(labels[order])[last], np.cumsum(in_buffer)[last]

    roc = pr = 0.0
    for length in range(window + 1):
        reach = length // 2
        slope = np.sqrt(np.maximum(1 - nearest / max(length, 1), 0))
        weights = np.where(nearest > reach, 0.0, np.where(second > reach, slope, 1.0))
        buffer = np.append(0.0, np.cumsum(weights))[buffered]
        expected = positives + buffer / 2
        tpr = np.minimum((hits + buffer) / expected, 1) * _share_detected(rank, last, starts, ends, reach)
        fpr = (predicted - hits - buffer) / (n - expected)
        roc += np.trapezoid(np.concatenate([[0], tpr, [1]]), np.concatenate([[0], fpr, [1]]))
        pr += np.sum(np.diff(tpr, prepend=0) * (hits + buffer) / predicted)  # not @: BLAS threads cost more here
    return Volumes(min(float(roc) / (window + 1), 1.0), min(float(pr) / (window + 1), 1.0))


def default_window(labels: StepFlags) -> int:
    """Returns the default longest buffer of VUS: the median length of the true intervals, clipped to [1, 500] steps.

    The authors of VUS recommend the median for labelled data. It depends on the labels alone, so that all detectors
    face the same tolerance on a series, and it follows the sampling rate; a fixed 100 would put 50 lenient steps on
    both sides of an anomaly of 5. The limit reflects that the borders of long anomalies are no less exact.

    Raises:
      ValueError: no step is anomalous.
    """
    starts, ends = find_runs(*as_flags(labels))
    if not len(starts):
        raise ValueError("labels: no step is anomalous, so there is no default window")
    return int(np.clip(np.median(ends - starts), 1, MAX_DEFAULT_WINDOW))


def as_flags(*flags: StepFlags) -> tuple[Bool[np.ndarray, "steps"], ...]:
    """Returns flags as bool arrays.

    Raises:
      ValueError: shapes differ, or are not one-dimensional.
    """
    if any(np.ndim(array) != 1 or len(array) != len(flags[0]) for array in flags):
        raise ValueError(f"shapes {[np.shape(array) for array in flags]}: need one flag per step")
    return tuple(np.asarray(array).astype(bool) for array in flags)


def _check_arguments(
    labels: Bool[np.ndarray, "steps"], scores: np.ndarray, window: int | None, thresholds: int | None
) -> None:
    if scores.shape != labels.shape:
        raise ValueError(f"scores of shape {scores.shape} for labels of shape {labels.shape}")
    if np.isnan(scores).any():
        raise ValueError("scores: NaN has no rank")
    if window is not None and window < 0:
        raise ValueError(f"window={window}: must be at least 0")
    if thresholds is not None and thresholds < 2:
        raise ValueError(f"thresholds={thresholds}: must be at least 2")


def _last_of_ties(ranked: Num[np.ndarray, "steps"], thresholds: int | None) -> Int[np.ndarray, "thresholds"]:
    """Returns the last index of each group of equal scores, or those nearest to `thresholds` evenly spaced ranks."""
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    if thresholds is None:
        return last
    return np.unique(last[np.searchsorted(last, np.linspace(0, len(ranked) - 1, thresholds).astype(int))])


def _distances(
    labels: Bool[np.ndarray, "steps"], starts: Int[np.ndarray, "intervals"], ends: Int[np.ndarray, "intervals"]
) -> tuple[Float[np.ndarray, "steps"], Float[np.ndarray, "steps"]]:
    """Returns the distance from each normal step to the nearest and second nearest interval; meaningless inside one."""
    steps = np.arange(len(labels))
    passed = np.searchsorted(ends, steps, side="right")
    far = [np.inf, np.inf]
    before = steps - np.concatenate([[-np.inf, -np.inf], ends - 1.0])[passed + np.array([[1], [0]])]
    after = np.concatenate([starts, far])[passed + np.array([[0], [1]])] - steps
    nearest, second = np.sort(np.concatenate([before, after]), axis=0)[:2]
    return nearest, second


def _share_detected(
    rank: Int[np.ndarray, "steps_and_1"],
    last: Int[np.ndarray, "thresholds"],
    starts: Int[np.ndarray, "intervals"],
    ends: Int[np.ndarray, "intervals"],
    reach: int,
) -> Float[np.ndarray, "thresholds"]:
    """Returns the share of intervals, widened by `reach` and merged where they overlap, with a step of rank <= last."""
    apart = np.flatnonzero(starts[1:] - ends[:-1] + 1 > 2 * reach)
    first = np.maximum(starts[np.append(0, apart + 1)] - reach, 0)
    end = np.minimum(ends[np.append(apart, -1)] + reach, len(rank) - 1)
    best = np.minimum.reduceat(rank, np.stack([first, end], axis=1).ravel())[::2]
    return np.searchsorted(np.sort(best), last, side="right") / len(best)
