"""TSB-AD's harness and SPEAR. TSB-AD needs numpy < 2, so each runs in an environment of its own; .npy files go between.

python examples/with_tsb_ad.py fit FOLDER        # where spear_jax is: data.npy [time, columns] -> scores.npy [time]
python examples/with_tsb_ad.py evaluate FOLDER   # where TSB-AD is: its metrics of scores.npy against labels.npy

FOLDER holds data.npy and, if there are labels of its first rows, train_labels.npy (0 and 1): as many as there are, are
learned from, as TSB-AD's file names tell it. Without them anomalies are put in to learn from.
"""

import sys
from pathlib import Path

import numpy as np


def fit(folder: Path, **arguments: object) -> np.ndarray:
    """Does what TSB-AD asks of a model: fit on the stretch for training, `decision_scores_` for all rows."""
    from spear_jax import SpearDetector

    data = np.load(folder / "data.npy")
    labels = np.load(folder / "train_labels.npy") if (folder / "train_labels.npy").exists() else None
    detector = SpearDetector(**arguments)  # type: ignore[arg-type]
    detector.fit(data if labels is None else data[: len(labels)], labels)
    scores = detector.decision_scores_ if labels is None else detector.decision_function(data)
    np.save(folder / "scores.npy", scores)
    return scores


def evaluate(folder: Path) -> None:
    """Prints TSB-AD's metrics."""
    from TSB_AD.evaluation.metrics import get_metrics
    from TSB_AD.utils.slidingWindows import find_length_rank

    data = np.load(folder / "data.npy")
    window = find_length_rank(data[:, :1], rank=1)
    for name, value in get_metrics(np.load(folder / "scores.npy"), np.load(folder / "labels.npy"), window).items():
        print(f"{name:25} {value:.4f}")


if __name__ == "__main__":
    {"fit": fit, "evaluate": evaluate}[sys.argv[1]](Path(sys.argv[2]))
