"""Numbers of one series that count in anomaly intervals, where `metrics` counts in single steps.

An interval is a longest run of anomalous steps. Every function takes one series, its steps in order and evenly spaced:
of series laid end to end the last interval of one and the first of the next would be one. `per_series_metrics` and
`mean_over_series` therefore go series by series.

A number whose denominator is 0 is None: a recall without an anomaly, a precision without a prediction. F1 is None
where recall is, and 0 where recall is 0: no precision, known or not, would lift it, and a detector that stays silent
must not drop out of a mean.

Own code rather than aeon 1.6.0's: that has two of the five metrics, its VUS is another one (see `vus`) and takes 17 s
where this takes .1 s, its range metrics are equal but 0 where they are undefined or everything is predicted, and it
demands pandas < 3.1 and, by numba, numpy < 2.4. The tests hold what aeon and the authors' programs gave.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from spear_jax.data import find_runs

Flags: TypeAlias = Bool[np.ndarray, "steps"] | Int[np.ndarray, "steps"]


Bias: TypeAlias = Literal["flat", "front", "back", "middle"]


Cardinality: TypeAlias = Literal["reciprocal", "one"]


PER_SERIES = ("range_f1", "event_f1", "affiliation_f1", "vus_pr", "vus_roc")


MAX_DEFAULT_WINDOW = 500


class PrecisionRecall(NamedTuple):
    """Precision, recall and their harmonic mean, in [0, 1]; None where undefined."""

    precision: float | None
    recall: float | None
    f1: float | None


class Volumes(NamedTuple):
    """Volumes under the ROC and the precision-recall surface, in [0, 1]; None where undefined."""

    roc: float | None
    pr: float | None


def range_based(
    labels: Flags,
    predicted: Flags,
    *,
    alpha: float = 0.0,
    bias: Bias = "flat",
    cardinality: Cardinality = "reciprocal",
) -> PrecisionRecall:
    """Range-based precision and recall (Tatbul et al., NeurIPS 2018, arXiv:1803.03639).

    Recall is the mean over the true intervals of alpha [any step predicted] + (1 - alpha) gamma(x) omega: omega is the
    weighted share of the interval's steps that are predicted, x the number of predicted intervals that overlap it.
    Precision is the same mean over the predicted intervals with the roles exchanged and alpha = 0, as in the paper.

    Args:
      labels: True where anomalous.
      predicted: True where an anomaly is predicted.
      alpha: what being found at all counts for, in [0, 1].
      bias: where in an interval an overlap counts most.
      cardinality: gamma(x) for x > 1: 'reciprocal' is 1/x, 'one' leaves intervals in pieces unpunished.

    Raises:
      ValueError: shapes differ, or an argument is not one of those allowed.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}: allowed are numbers from 0 to 1")
    labels, predicted = _flags(labels, predicted)
    return _with_f1(
        _mean(_overlap(predicted, labels, 0.0, bias, cardinality)),
        _mean(_overlap(labels, predicted, alpha, bias, cardinality)),
    )


def event_wise(labels: Flags, predicted: Flags) -> PrecisionRecall:
    """Recall over events, precision over steps (Garg et al., IEEE TNNLS 2021, arXiv:2109.11428: composite F-score).

    An event, a true interval, is found if any step of it is predicted. TSB-AD calls this F1 event-based. Precision
    counts steps, so that one long false alarm costs more than a short one and predicting everything gains nothing.

    Args:
      labels: True where anomalous.
      predicted: True where an anomaly is predicted.

    Raises:
      ValueError: shapes differ.
    """
    labels, predicted = _flags(labels, predicted)
    starts, ends = find_runs(labels)
    return _with_f1(_mean(labels[predicted]), _mean(_count(predicted, starts, ends) > 0))


def point_adjusted_at_k(labels: Flags, predicted: Flags, k: float) -> PrecisionRecall:
    """Step by step, after point adjustment of well-found intervals: PA%K (Kim et al., AAAI 2022, arXiv:2109.05257).

    All steps of a true interval count as predicted if more than k % of them are. k = 0 is plain point adjustment, with
    which random scores look like the state of the art; k = 100 adjusts nothing.

    Args:
      labels: True where anomalous.
      predicted: True where an anomaly is predicted.
      k: per cent, in [0, 100]. The paper advises to look at all k.

    Raises:
      ValueError: shapes differ, or k is out of range.
    """
    if not 0 <= k <= 100:
        raise ValueError(f"k={k}: allowed are numbers from 0 to 100")
    labels, predicted = _flags(labels, predicted)
    starts, ends = find_runs(labels)
    lengths = ends - starts
    adjusted = predicted.copy()
    adjusted[labels] |= np.repeat(100 * _count(predicted, starts, ends) > k * lengths, lengths)
    return _with_f1(_mean(labels[adjusted]), _mean(adjusted[labels]))


def affiliation(labels: Flags, predicted: Flags) -> PrecisionRecall:
    """Affiliation precision and recall (Huet, Navarro and Rossi, KDD 2022, arXiv:2206.13167), with probabilities.

    Time is cut half-way between neighbouring true intervals into one zone for each. In a zone, precision is the mean
    over predicted time of the chance that a time drawn uniformly from the zone lies at least as far from the true
    interval; recall is the mean over the true interval of the chance that a time drawn so lies at least as far as the
    nearest prediction in the zone. Recall is the mean over all zones (0 in one without prediction), precision over
    those with a prediction. A step is the time from its index to the next.

    Random predictions get a precision of about .5 and, where they are many, a recall near 1: F1 .67, not 0.

    Args:
      labels: True where anomalous.
      predicted: True where an anomaly is predicted.

    Returns:
      None throughout where nothing is anomalous, since there is no zone then.

    Raises:
      ValueError: shapes differ.
    """
    labels, predicted = _flags(labels, predicted)
    starts, ends = find_runs(labels)
    if not len(starts):
        return PrecisionRecall(None, None, None)
    cuts = (ends[:-1] + starts[1:]) / 2
    left, right = np.append(0.0, cuts), np.append(cuts, float(len(labels)))

    # All chances are linear in time between multiples of 1/4 (cuts are multiples of 1/2, points half-way between a cut
    # and the border of a step multiples of 1/4), so that their values in the middle of quarters give exact integrals.
    time = _quarters(predicted)
    zone = np.searchsorted(cuts, time)
    distance = np.maximum(np.maximum(starts[zone] - time, time - ends[zone]), 0)
    shorter_side = np.minimum(starts - left, right - ends)[zone]
    nearer = (ends - starts)[zone] + np.minimum(distance, shorter_side) + distance
    precision = _by_zone(np.where(distance > 0, 1 - nearer / (right - left)[zone], 1.0), zone, len(starts))

    time = _quarters(labels)
    zone = np.searchsorted(cuts, time)
    first, end = find_runs(predicted)
    before = np.append(-np.inf, end)[np.searchsorted(end, time)]
    after = np.append(first, np.inf)[np.searchsorted(first, time)]
    distance = np.minimum(
        np.where(before > left[zone], time - before, np.inf),
        np.where(after < right[zone], after - time, np.inf),
    )
    distance[predicted[time.astype(int)]] = 0
    nearer = np.minimum(distance, time - left[zone]) + np.minimum(distance, right[zone] - time)
    recall = _by_zone(1 - nearer / (right - left)[zone], zone, len(starts))
    return _with_f1(_mean(precision), _mean(recall))


def vus(
    labels: Flags,
    scores: Num[np.ndarray, "steps"],
    window: int | None = None,
    thresholds: int | None = None,
) -> Volumes:
    """VUS-ROC and VUS-PR: areas under range-based curves, averaged over tolerances (Paparrizos et al., PVLDB 15, 2022).

    For each buffer l = 0 ... window, a normal step d <= l // 2 steps from a true interval counts as anomalous with the
    weight sqrt(1 - d / l), or 1 if two intervals are that near. Of n steps P are anomalous; at a threshold N steps are
    predicted, among them T anomalous ones and buffers of weight B; E is the share of the intervals, taken with their
    buffers and joined where these overlap, that hold a predicted step. Then

        TPR = min((T + B) / (P + B / 2), 1) E,  FPR = (N - T - B) / (n - P - B / 2),  precision = (T + B) / N.

    The area under ROC is by trapezoids and ends in (1, 1), that under PR the sum of TPR's steps times precision.

    This is what the authors compute today (vus 0.0.6; TSB-AD 1.5 and its leaderboard, whose windows are periods of the
    series). Their first code, which aeon carries, has the weight of all buffers in place of the B in P + B / 2, with
    which no detector reaches 1, and the PR area by trapezoids. Both look at 250 thresholds only, too few for rare
    anomalies: with .1 % of 100 000 steps anomalous and a VUS-PR of .77 they see .21. Here every distinct score is one.

    Random scores get more than .5 and more than the base rate, and all the more the longer the window.

    The time grows with steps times window: 100 000 steps with window 100 take .1 s where 5 % are anomalous and .3 s
    where 40 % are, on one CPU core.

    Args:
      labels: True where anomalous.
      scores: higher is more anomalous; only their order counts.
      window: the longest buffer, in steps; None takes `default_window`. Numbers of different windows do not compare.
      thresholds: how many to take, at even ranks; None takes all, 250 gives the authors' numbers.

    Returns:
      None for both where `labels` has one class only.

    Raises:
      ValueError: shapes differ, a score is NaN, or window or thresholds is too small.
    """
    (labels,) = _flags(labels)
    scores = np.asarray(scores)
    if scores.shape != labels.shape:
        raise ValueError(f"scores of shape {scores.shape} for labels of shape {labels.shape}")
    if np.isnan(scores).any():
        raise ValueError("scores: NaN has no rank")
    if window is not None and window < 0:
        raise ValueError(f"window={window}: allowed are 0, 1, 2 ...")
    if thresholds is not None and thresholds < 2:
        raise ValueError(f"thresholds={thresholds}: allowed are 2, 3 ...")
    if labels.all() or not labels.any():
        return Volumes(None, None)
    window = default_window(labels) if window is None else window
    starts, ends = find_runs(labels)
    n, positives = len(labels), int(labels.sum())

    order = np.argsort(scores, kind="stable")[::-1]
    rank = np.empty(n + 1, int)
    rank[order], rank[n] = np.arange(n), n  # one more, for what ends with the series
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # equal scores are predicted together
    if thresholds is not None:
        last = np.unique(last[np.searchsorted(last, np.linspace(0, n - 1, thresholds).astype(int))])
    nearest, second = _distances(labels, starts, ends)
    in_buffer = (~labels & (nearest <= window // 2))[order]
    nearest, second = nearest[order][in_buffer], second[order][in_buffer]
    # Where nothing but far steps comes in, TPR stands still and FPR follows N: the ends of such a stretch are enough.
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
        tpr = np.minimum((hits + buffer) / expected, 1) * _share_found(rank, last, starts, ends, reach)
        fpr = (predicted - hits - buffer) / (n - expected)
        roc += np.trapezoid(np.concatenate([[0], tpr, [1]]), np.concatenate([[0], fpr, [1]]))
        pr += np.sum(np.diff(tpr, prepend=0) * (hits + buffer) / predicted)  # not @: BLAS' threads cost more
    return Volumes(min(float(roc) / (window + 1), 1.0), min(float(pr) / (window + 1), 1.0))


def default_window(labels: Flags) -> int:
    """The longest buffer of VUS where none is given: the median length of the true intervals, in 1 ... 500 steps.

    The median is what the authors of VUS advise for labelled data. It depends on the labels alone, so that all
    detectors meet the same tolerance on a series, and it follows the sampling rate; a fixed 100 would put 50 lenient
    steps on both sides of an anomaly of 5. It ends at 500 since borders are not labelled less exactly where anomalies
    are long.

    Args:
      labels: True where anomalous.

    Raises:
      ValueError: no step is anomalous.
    """
    starts, ends = find_runs(*_flags(labels))
    if not len(starts):
        raise ValueError("labels: without an anomalous step there is no window")
    return int(np.clip(np.median(ends - starts), 1, MAX_DEFAULT_WINDOW))


def per_series_metrics(labels: Flags, scores: Num[np.ndarray, "steps"], predicted: Flags) -> dict[str, float | None]:
    """The numbers of `PER_SERIES` for one series, each function at its defaults.

    Args:
      labels: True where anomalous.
      scores: higher is more anomalous.
      predicted: True where an anomaly is predicted.

    Returns:
      A number per name; None throughout where the series has one class only.

    Raises:
      ValueError: shapes differ or a score is NaN.
    """
    labels, predicted = _flags(labels, predicted)
    volumes = vus(labels, scores)
    if volumes.roc is None:
        return dict.fromkeys(PER_SERIES)
    return {
        "range_f1": range_based(labels, predicted).f1,
        "event_f1": event_wise(labels, predicted).f1,
        "affiliation_f1": affiliation(labels, predicted).f1,
        "vus_pr": volumes.pr,
        "vus_roc": volumes.roc,
    }


def mean_over_series(series: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of each number of `PER_SERIES` over the series where it is defined; None where it is in none.

    Args:
      series: what `per_series_metrics` gave for each.
    """
    defined = {name: [one[name] for one in series if one[name] is not None] for name in PER_SERIES}
    return {name: _mean(np.array(values)) for name, values in defined.items()}


def _flags(*flags: Flags) -> tuple[Bool[np.ndarray, "steps"], ...]:
    if any(np.ndim(one) != 1 or len(one) != len(flags[0]) for one in flags):
        raise ValueError(f"shapes {[np.shape(one) for one in flags]}: a flag per step is needed")
    return tuple(np.asarray(one).astype(bool) for one in flags)


def _count(
    flags: Bool[np.ndarray, "steps"], starts: Int[np.ndarray, "intervals"], ends: Int[np.ndarray, "intervals"]
) -> Int[np.ndarray, "intervals"]:
    """How many steps of each interval are True."""
    so_far = np.append(0, np.cumsum(flags))
    return so_far[ends] - so_far[starts]


def _mean(values: Num[np.ndarray, "values"] | Bool[np.ndarray, "values"]) -> float | None:
    return float(values.mean()) if len(values) else None


def _with_f1(precision: float | None, recall: float | None) -> PrecisionRecall:
    if precision is None or not recall:
        return PrecisionRecall(precision, recall, None if recall is None else 0.0)
    return PrecisionRecall(precision, recall, 2 * precision * recall / (precision + recall))


def _overlap(
    flags: Bool[np.ndarray, "steps"],
    other: Bool[np.ndarray, "steps"],
    alpha: float,
    bias: Bias,
    cardinality: Cardinality,
) -> Float[np.ndarray, "intervals"]:
    """What each interval of `flags` gets for its overlap with the intervals of `other`."""
    starts, ends = find_runs(flags)
    other_starts, other_ends = find_runs(other)
    lengths = ends - starts
    number = np.repeat(np.arange(len(starts)), lengths)
    steps = np.flatnonzero(flags)
    ahead, behind = steps - starts[number] + 1, ends[number] - steps
    weights = {"flat": np.ones(len(steps)), "front": behind, "back": ahead, "middle": np.minimum(ahead, behind)}
    if bias not in weights:
        raise ValueError(f"bias={bias!r}: allowed are {', '.join(weights)}")
    if cardinality not in ("reciprocal", "one"):
        raise ValueError(f"cardinality={cardinality!r}: allowed are reciprocal, one")
    weight = weights[bias]
    covered = np.bincount(number, weight * other[steps], len(starts)) / np.bincount(number, weight, len(starts))
    overlapping = np.searchsorted(other_starts, ends) - np.searchsorted(other_ends, starts, side="right")
    if cardinality == "reciprocal":
        covered = covered / np.maximum(overlapping, 1)
    return alpha * (overlapping > 0) + (1 - alpha) * covered


def _quarters(flags: Bool[np.ndarray, "steps"]) -> Float[np.ndarray, "quarters"]:
    """Middles of the four quarters of every step that is True."""
    return (np.flatnonzero(flags)[:, None] + np.array([0.125, 0.375, 0.625, 0.875])).ravel()


def _by_zone(
    values: Float[np.ndarray, "values"], zone: Int[np.ndarray, "values"], zones: int
) -> Float[np.ndarray, "zones_with_values"]:
    """The mean in each zone that has values."""
    count = np.bincount(zone, minlength=zones)
    return np.bincount(zone, values, zones)[count > 0] / count[count > 0]


def _distances(
    labels: Bool[np.ndarray, "steps"], starts: Int[np.ndarray, "intervals"], ends: Int[np.ndarray, "intervals"]
) -> tuple[Float[np.ndarray, "steps"], Float[np.ndarray, "steps"]]:
    """Steps from each normal step to the nearest interval and to the second nearest; meaningless in intervals."""
    steps = np.arange(len(labels))
    passed = np.searchsorted(ends, steps, side="right")
    far = [np.inf, np.inf]
    before = steps - np.concatenate([[-np.inf, -np.inf], ends - 1.0])[passed + np.array([[1], [0]])]
    after = np.concatenate([starts, far])[passed + np.array([[0], [1]])] - steps
    nearest, second = np.sort(np.concatenate([before, after]), axis=0)[:2]
    return nearest, second


def _share_found(
    rank: Int[np.ndarray, "steps_and_1"],
    last: Int[np.ndarray, "thresholds"],
    starts: Int[np.ndarray, "intervals"],
    ends: Int[np.ndarray, "intervals"],
    reach: int,
) -> Float[np.ndarray, "thresholds"]:
    """Share of the intervals, widened by `reach` and joined where they then overlap, with a step of rank <= last."""
    apart = np.flatnonzero(starts[1:] - ends[:-1] + 1 > 2 * reach)
    first = np.maximum(starts[np.append(0, apart + 1)] - reach, 0)
    end = np.minimum(ends[np.append(apart, -1)] + reach, len(rank) - 1)
    best = np.minimum.reduceat(rank, np.stack([first, end], axis=1).ravel())[::2]
    return np.searchsorted(np.sort(best), last, side="right") / len(best)
