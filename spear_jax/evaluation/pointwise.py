"""Computes point-wise metrics, pooled over the time steps or the windows of a split."""

import warnings
from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score, roc_auc_score


class Metrics(TypedDict):
    """The point-wise metrics of one split; None where a metric is undefined."""

    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    auroc: float | None
    aupr: float | None
    base_rate: float | None


def ranking_metrics(labels: Bool[np.ndarray, "n"], scores: Float[np.ndarray, "n"]) -> tuple[float | None, float | None]:
    """Returns AUROC and AUPR (average precision); None if `labels` has one class only."""
    if not len(labels) or labels.all() or not labels.any():
        return None, None
    return float(roc_auc_score(labels, scores)), float(average_precision_score(labels, scores))


def average_precision(labels: Bool[np.ndarray, "n"], scores: Float[np.ndarray, "n"]) -> float:
    """Returns what `average_precision_score` does, in a small part of its time for short series; needs a positive."""
    order = np.argsort(-scores)
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # equal scores are one threshold
    hits = np.cumsum(labels[order])[ends]
    return float(np.sum(np.diff(hits, prepend=0) * hits / (ends + 1)) / hits[-1])


def point_metrics(
    name: str,
    labels: Bool[np.ndarray, "n"],
    scores: Float[np.ndarray, "n"],
    predicted: Bool[np.ndarray, "n"],
) -> Metrics:
    """Computes the point-wise metrics of one split; its name appears in the warning about undefined ones.

    Returns:
      The metrics. Precision, recall and F1 are None if their denominator is 0: without any positive, a recall of 0 or
      1 would be made up.
    """
    auroc, aupr = ranking_metrics(labels, scores)
    if auroc is None:
        warnings.warn(f"{name}: one class only, AUROC and AUPR are undefined", stacklevel=2)
    hits = int((predicted & labels).sum())
    flagged, positives, total = int(predicted.sum()), int(labels.sum()), len(labels)
    return Metrics(
        accuracy=float((predicted == labels).mean()) if total else None,
        precision=hits / flagged if flagged else None,
        recall=hits / positives if positives else None,
        f1=2 * hits / (flagged + positives) if positives else None,
        auroc=auroc,
        aupr=aupr,
        base_rate=positives / total if total else None,
    )
