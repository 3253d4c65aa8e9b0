"""The score from which on a step is called anomalous, chosen on validation data."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import precision_recall_curve


class Threshold(NamedTuple):
    """A step is predicted anomalous if its score is at least `value`."""

    value: float
    rule: str


def choose(rule: str, labels: Bool[np.ndarray, "n"], scores: Float[np.ndarray, "n"]) -> Threshold:
    """Chooses a threshold.

    Args:
      rule: 'best_f1', the threshold with the highest F1.
      labels: of the validation part; never of the test part.
      scores: of the same steps.

    Returns:
      The threshold; with one class only, the 99th percentile of the scores, and a rule that says so.
    """
    if labels.all() or not labels.any():
        return Threshold(float(np.quantile(scores, 0.99)), "quantile_0.99 (validation has one class only)")
    precision, recall, values = precision_recall_curve(labels, scores)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return Threshold(float(values[np.argmax(f1[:-1])]), rule)
