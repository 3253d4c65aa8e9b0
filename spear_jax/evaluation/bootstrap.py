"""Confidence intervals by the bootstrap over series: the steps of one series are no independent observations."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

RESAMPLES = 1000


COVERAGE = 0.95


def bootstrap(
    series: Int[np.ndarray, "steps"],
    labels: Bool[np.ndarray, "steps"],
    scores: Float[np.ndarray, "steps"],
    predicted: Bool[np.ndarray, "steps"],
    per_series: Sequence[Mapping[str, float | None]],
    *,
    seed: int,
) -> dict[str, list[float] | None]:
    """Percentile intervals (Efron, 1979) of pooled and of averaged metrics.

    Series are drawn with replacement, as many as there are; a draw with one class only is left out.

    Args:
      series: of each step.
      labels: True where anomalous.
      scores: higher is more anomalous.
      predicted: True where an anomaly is predicted.
      per_series: numbers of each stretch of steps, whose means are also given intervals.
      seed: of the draws.

    Returns:
      The lower and upper end by metric; None where no draw had a number, and of a single series, which says nothing
      of others.
    """
    numbers, owner = np.unique(series, return_inverse=True)
    rng = np.random.default_rng(seed)
    order = np.argsort(-scores, kind="stable")
    ranked_owner, ranked_labels = owner[order], labels[order].astype(float)
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last of each group of equal scores
    hit, flagged, positive = (
        np.bincount(owner, weights=what, minlength=len(numbers)) for what in (predicted & labels, predicted, labels)
    )
    found: dict[str, list[float]] = {name: [] for name in ("auroc", "aupr", "f1")}
    drawn = rng.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), RESAMPLES)
    for counts in drawn:
        weight = counts[ranked_owner].astype(float)
        true = np.cumsum(weight * ranked_labels)[last]
        every = np.cumsum(weight)[last]
        positives, negatives = true[-1], every[-1] - true[-1]
        if not positives or not negatives:
            continue
        recall = np.append(0.0, true / positives)
        fall_out = np.append(0.0, (every - true) / negatives)
        precision = np.divide(true, every, out=np.ones_like(true), where=every > 0)
        found["auroc"].append(float(np.sum(np.diff(fall_out) * (recall[1:] + recall[:-1]) / 2)))
        found["aupr"].append(float(np.sum(np.diff(recall) * precision)))
        found["f1"].append(float(2 * (counts @ hit) / (counts @ flagged + counts @ positive)))
    for name in per_series[0] if per_series else ():
        values = np.array([np.nan if one[name] is None else one[name] for one in per_series], float)
        values = values[np.isfinite(values)]
        if len(values):
            found[name] = rng.choice(values, (RESAMPLES, len(values))).mean(axis=1).tolist()
    ends = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    several = len(numbers) > 1
    return {name: np.quantile(values, ends).tolist() if values and several else None for name, values in found.items()}
