"""Scores a series with SPEAR and evaluates it with TSB-AD, which needs numpy < 2 and so an environment of its own.

python examples/with_tsb_ad.py fit FOLDER        # with spear_jax: data.npy [time, columns] -> scores.npy [time]
python examples/with_tsb_ad.py evaluate FOLDER   # with TSB-AD: its metrics of scores.npy and labels.npy

FOLDER holds data.npy and, if its first rows are labelled, train_labels.npy (0 and 1). As many rows as there are labels
are learned from, the stretch that TSB-AD's file names call training. Without labels, anomalies are injected.
"""

import sys
from pathlib import Path

import numpy as np


def fit(folder: Path, **arguments: object) -> np.ndarray:
    """Fits on the training stretch and scores all rows, as TSB-AD's models do."""
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
