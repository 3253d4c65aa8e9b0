"""The score from which on a step is called anomalous, chosen on validation data."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import precision_recall_curve


class Threshold(NamedTuple):
    """A step is predicted anomalous if its score is at least `value`."""

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
      rule: 'best_f1', the threshold with the highest F1; 'false_positive_rate', the one that finds most while no more
        than this share of the normal steps is called anomalous; 'precision', the one that finds most while at least
        this share of what is called anomalous is so.
      labels: of the validation part; never of the test part.
      scores: of the same steps.
      false_positive_rate: of the rule of this name.
      precision: of the rule of this name.

    Returns:
      The threshold. Where both classes are needed and one is missing, the 99th percentile of the scores; where no
      threshold is that precise, the most precise one; and a rule that says so.
    """
    if rule == "false_positive_rate" and not labels.all():
        normal, values = np.sort(scores[~labels]), np.unique(scores)
        rates = 1 - np.searchsorted(normal, values) / len(normal)
        few = values[rates <= false_positive_rate]
        # Where the highest score alone is too many, nothing is called anomalous.
        value = few[0] if len(few) else np.nextafter(values[-1], np.inf)
        return Threshold(float(value), f"{rule} {false_positive_rate:g}")
    if labels.all() or not labels.any():
        return Threshold(float(np.quantile(scores, 0.99)), "quantile_0.99 (validation has one class only)")
    precisions, recalls, values = precision_recall_curve(labels, scores)
    precisions, recalls = precisions[:-1], recalls[:-1]  # the last point stands for no prediction at all
    if rule == "precision":
        if (enough := np.flatnonzero(precisions >= precision)).size:
            return Threshold(float(values[enough[0]]), f"{rule} {precision:g}")
        best = int(np.argmax(precisions))
        return Threshold(float(values[best]), f"{rule} {precision:g} (not reached: {precisions[best]:.3f})")
    total = precisions + recalls
    f1 = np.divide(2 * precisions * recalls, total, out=np.zeros_like(total), where=total > 0)
    return Threshold(float(values[np.argmax(f1)]), rule)
