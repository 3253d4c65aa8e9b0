"""Computes interval metrics of one series, which count anomaly intervals rather than single steps.

An interval is a maximal run of anomalous steps. Labels are True where a step is anomalous, predictions where it is
predicted to be; shapes that differ raise ValueError. Every function takes one series, its steps in order and evenly
spaced: in concatenated series, the last interval of one could merge with the first of the next. `per_series_metrics`
and `mean_over_series` therefore work series by series.

A metric with a denominator of 0 is None: recall without an anomaly, precision without a prediction. F1 is None if
recall is None, and 0 if recall is 0, so that a detector that predicts nothing does not drop out of a mean.

aeon 1.6.0 has two of the five metrics. Its VUS differs (see `vus`) and takes 17 s where ours takes 0.1 s; its range
metrics agree with ours, but are 0 where undefined; and it requires pandas < 3.1 and, through numba, numpy < 2.4. The
tests compare with stored output of aeon and of the authors' programs.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from spear_jax.data import find_runs
from spear_jax.evaluation.volumes import StepFlags, as_flags, vus

PER_SERIES = ("range_f1", "event_f1", "affiliation_f1", "vus_pr", "vus_roc")


class PrecisionRecall(NamedTuple):
    """Precision, recall and their harmonic mean, in [0, 1]; None where undefined."""

    precision: float | None
    recall: float | None
    f1: float | None


def range_based(labels: StepFlags, predicted: StepFlags) -> PrecisionRecall:
    """Computes range-based precision and recall (Tatbul et al., NeurIPS 2018, arXiv:1803.03639).

    Recall averages omega / x over the true intervals, where omega is the share of the interval's steps that are
    predicted and x the number of predicted intervals that overlap it, at least 1. Precision is the same average over
    the predicted intervals, with the roles exchanged. In the paper's terms, alpha is 0, the bias flat and gamma(x) 1/x.
    """
    labels, predicted = as_flags(labels, predicted)
    return _with_f1(_mean(_overlap(predicted, labels)), _mean(_overlap(labels, predicted)))


def event_wise(labels: StepFlags, predicted: StepFlags) -> PrecisionRecall:
    """Computes recall over events, precision over steps (Garg et al., 2021, arXiv:2109.11428: composite F-score).

    An event, i.e. a true interval, is detected if any of its steps is predicted. TSB-AD calls this F1 event-based.
    Precision counts steps: a long false alarm costs more than a short one, and predicting everything gains nothing.
    """
    labels, predicted = as_flags(labels, predicted)
    starts, ends = find_runs(labels)
    return _with_f1(_mean(labels[predicted]), _mean(_count(predicted, starts, ends) > 0))


def point_adjusted_at_k(labels: StepFlags, predicted: StepFlags, k: float) -> PrecisionRecall:
    """Computes point-wise metrics after adjusting well-detected intervals: PA%K (Kim et al., 2022, arXiv:2109.05257).

    All steps of a true interval count as predicted if more than k % of them are. k = 0 is plain point adjustment, which
    makes random scores look like the state of the art; k = 100 adjusts nothing.

    The paper recommends reporting all k, from 0 to 100 per cent.
    """
    if not 0 <= k <= 100:
        raise ValueError(f"k={k}: must be between 0 and 100")
    labels, predicted = as_flags(labels, predicted)
    starts, ends = find_runs(labels)
    lengths = ends - starts
    adjusted = predicted.copy()
    adjusted[labels] |= np.repeat(100 * _count(predicted, starts, ends) > k * lengths, lengths)
    return _with_f1(_mean(labels[adjusted]), _mean(adjusted[labels]))


def affiliation(labels: StepFlags, predicted: StepFlags) -> PrecisionRecall:
    """Computes affiliation precision and recall (Huet, Navarro and Rossi, KDD 2022, arXiv:2206.13167).

    The series is divided into one zone per true interval, half-way between neighbours. In a zone, precision averages
    over predicted time the probability that a time drawn uniformly from the zone is at least as far from the true
    interval; recall averages over the true interval the probability that a time drawn that way is at least as far away
    as the nearest prediction in the zone. Recall is averaged over all zones (0 without a prediction), precision over
    the zones with a prediction. A step covers the time from its index to the next.

    Random predictions reach a precision of about .5 and, if frequent, a recall near 1: an F1 of .67, not 0.

    Returns:
      All None if nothing is anomalous, since there are no zones then.
    """
    labels, predicted = as_flags(labels, predicted)
    starts, ends = find_runs(labels)
    if not len(starts):
        return PrecisionRecall(None, None, None)
    cuts = (ends[:-1] + starts[1:]) / 2
    left, right = np.append(0.0, cuts), np.append(cuts, float(len(labels)))

    # All probabilities are linear in time between multiples of 1/4 (cuts are multiples of 1/2; midpoints between a cut
    # and a step's border, multiples of 1/4), so their values in the middle of each quarter give exact integrals.
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


def per_series_metrics(
    labels: StepFlags, scores: Num[np.ndarray, "steps"], predicted: StepFlags
) -> dict[str, float | None]:
    """Computes the metrics of `PER_SERIES` for one series, each with its default arguments.

    Returns:
      A number per name; all None if the series has one class only.
    """
    labels, predicted = as_flags(labels, predicted)
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


def mean_over_series(metrics: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Averages each metric of `PER_SERIES` over the series that define it; None if none does."""
    defined = {name: [row[name] for row in metrics if row[name] is not None] for name in PER_SERIES}
    return {name: _mean(np.array(values)) for name, values in defined.items()}


def _count(
    flags: Bool[np.ndarray, "steps"], starts: Int[np.ndarray, "intervals"], ends: Int[np.ndarray, "intervals"]
) -> Int[np.ndarray, "intervals"]:
    """Counts the True steps of each interval."""
    total = np.append(0, np.cumsum(flags))
    return total[ends] - total[starts]


def _mean(values: Num[np.ndarray, "values"] | Bool[np.ndarray, "values"]) -> float | None:
    return float(values.mean()) if len(values) else None


def _with_f1(precision: float | None, recall: float | None) -> PrecisionRecall:
    if precision is None or not recall:
        return PrecisionRecall(precision, recall, None if recall is None else 0.0)
    return PrecisionRecall(precision, recall, 2 * precision * recall / (precision + recall))


def _overlap(flags: Bool[np.ndarray, "steps"], other: Bool[np.ndarray, "steps"]) -> Float[np.ndarray, "intervals"]:
    """Scores the overlap of each interval of `flags` with the intervals of `other`."""
    starts, ends = find_runs(flags)
    other_starts, other_ends = find_runs(other)
    overlapping = np.searchsorted(other_starts, ends) - np.searchsorted(other_ends, starts, side="right")
    return _count(other, starts, ends) / (ends - starts) / np.maximum(overlapping, 1)


def _quarters(flags: Bool[np.ndarray, "steps"]) -> Float[np.ndarray, "quarters"]:
    """Returns the midpoints of the four quarters of every True step."""
    return (np.flatnonzero(flags)[:, None] + np.array([0.125, 0.375, 0.625, 0.875])).ravel()


def _by_zone(
    values: Float[np.ndarray, "values"], zone: Int[np.ndarray, "values"], zones: int
) -> Float[np.ndarray, "zones_with_values"]:
    """Averages the values of each zone, leaving out zones without values."""
    count = np.bincount(zone, minlength=zones)
    return np.bincount(zone, values, zones)[count > 0] / count[count > 0]
