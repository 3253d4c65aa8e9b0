"""Computes confidence intervals by a bootstrap over series, since the time steps of one series are not independent."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

RESAMPLES = 1000
COVERAGE = 0.95


def confidence_intervals(
    series: Int[np.ndarray, "steps"],
    labels: Bool[np.ndarray, "steps"],
    scores: Float[np.ndarray, "steps"],
    predicted: Bool[np.ndarray, "steps"],
    per_series: Sequence[Mapping[str, float | None]],
    *,
    seed: int,
) -> dict[str, list[float] | None]:
    """Computes percentile intervals (Efron, 1979) of pooled and of averaged metrics.

    Each resample draws as many series as there are, with replacement; resamples with one class only are dropped.

    Args:
      series: the series that each step belongs to.
      labels: True where anomalous.
      scores: higher is more anomalous.
      predicted: True where an anomaly is predicted.
      per_series: metrics of each series, whose means get intervals as well.
      seed: seed of the resampling.

    Returns:
      The lower and upper end by metric; None if no resample defines the metric, or if there is a single series, which
      says nothing about others.
    """
    names, owner = np.unique(series, return_inverse=True)
    rng = np.random.default_rng(seed)
    order = np.argsort(-scores, kind="stable")
    ranked_owner, ranked_labels = owner[order], labels[order].astype(float)
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last of each group of equal scores
    hits, flagged, positive = (
        np.bincount(owner, weights=flags, minlength=len(names)) for flags in (predicted & labels, predicted, labels)
    )
    samples: dict[str, list[float]] = {name: [] for name in ("auroc", "aupr", "f1")}
    for counts in rng.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES):
        weight = counts[ranked_owner].astype(float)
        true_positives = np.cumsum(weight * ranked_labels)[last]
        total = np.cumsum(weight)[last]
        positives, negatives = true_positives[-1], total[-1] - true_positives[-1]
        if not positives or not negatives:
            continue
        recall = np.append(0.0, true_positives / positives)
        fall_out = np.append(0.0, (total - true_positives) / negatives)
        precision = np.divide(true_positives, total, out=np.ones_like(total), where=total > 0)
        samples["auroc"].append(float(np.sum(np.diff(fall_out) * (recall[1:] + recall[:-1]) / 2)))
        samples["aupr"].append(float(np.sum(np.diff(recall) * precision)))
        samples["f1"].append(float(2 * (counts @ hits) / (counts @ flagged + counts @ positive)))
    for name in per_series[0] if per_series else ():
        values = np.array([np.nan if row[name] is None else row[name] for row in per_series], float)
        values = values[np.isfinite(values)]
        if len(values):
            samples[name] = rng.choice(values, (RESAMPLES, len(values))).mean(axis=1).tolist()
    if len(names) == 1:
        return dict.fromkeys(samples)
    ends = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    return {name: np.quantile(values, ends).tolist() if values else None for name, values in samples.items()}


def paired_interval(differences: Float[np.ndarray, "series"], seed: int = 0) -> tuple[float, float] | None:
    """Computes the percentile interval of a mean difference between two methods, by a bootstrap over series.

    Args:
      differences: the difference in each series; NaN where a method has no number.
      seed: seed of the resampling.

    Returns:
      The lower and upper end; None for fewer than two series, which say nothing about others.
    """
    differences = differences[np.isfinite(differences)]
    if len(differences) < 2:
        return None
    means = np.random.default_rng(seed).choice(differences, (RESAMPLES, len(differences))).mean(axis=1)
    low, high = np.quantile(means, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)
