"""Chooses thresholds on scores, using validation data."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import precision_recall_curve


class Threshold(NamedTuple):
    """The score at or above which a time step is predicted anomalous, and the rule that chose it."""

    value: float
    rule: str


def choose_threshold(
    rule: str,
    labels: Bool[np.ndarray, "n"],
    scores: Float[np.ndarray, "n"],
    *,
    false_positive_rate: float = 0.01,
    precision: float = 0.9,
) -> Threshold:
    """Chooses a threshold.

    Args:
      rule: 'best_f1' maximizes F1; 'false_positive_rate' and 'precision' maximize recall subject to the limit of the
        same name.
      labels: labels of the validation split, never of the test split.
      scores: scores of the same time steps.
      false_positive_rate: largest share of normal steps that may be predicted anomalous.
      precision: smallest share of predicted steps that must be anomalous.

    Returns:
      The threshold. Falls back to the 99th percentile of the scores if the rule needs both classes and one is missing,
      and to the most precise threshold if none reaches `precision`; the returned rule says so.
    """
    if rule == "false_positive_rate" and not labels.all():
        normal, values = np.sort(scores[~labels]), np.unique(scores)
        rates = 1 - np.searchsorted(normal, values) / len(normal)
        allowed = values[rates <= false_positive_rate]
        # Predict nothing if even the highest score alone exceeds the limit.
        value = allowed[0] if len(allowed) else np.nextafter(values[-1], np.inf)
        return Threshold(float(value), f"{rule} {false_positive_rate:g}")
    if labels.all() or not labels.any():
        return Threshold(float(np.quantile(scores, 0.99)), "quantile_0.99 (validation has one class only)")
    precisions, recalls, values = precision_recall_curve(labels, scores)
    precisions, recalls = precisions[:-1], recalls[:-1]  # the last point predicts nothing and has no threshold
    if rule == "precision":
        if (precise := np.flatnonzero(precisions >= precision)).size:
            return Threshold(float(values[precise[0]]), f"{rule} {precision:g}")
        best = int(np.argmax(precisions))
        return Threshold(float(values[best]), f"{rule} {precision:g} (not reached: {precisions[best]:.3f})")
    total = precisions + recalls
    f1 = np.divide(2 * precisions * recalls, total, out=np.zeros_like(total), where=total > 0)
    return Threshold(float(values[np.argmax(f1)]), rule)
