"""Compares a SPEAR detector with a PyOD model, and combines them.

python examples/with_pyod.py [BACKBONE]

Requires pyod. BACKBONE defaults to all-MiniLM-L6-v2; random:tiny takes seconds and learns little.
"""

import sys

import numpy as np
from pyod.models.iforest import IForest
from pyod.utils.data import evaluate_print
from pyod.utils.utility import standardizer

from spear_jax import SpearDetector
from spear_jax.data import generate_series


def main(backbone: str = "sentence-transformers/all-MiniLM-L6-v2") -> dict[str, np.ndarray]:
    """Prints ROC and precision at n of each model and of their mean.

    Returns:
      Scores of the test series, by model.
    """
    train, test = (generate_series(series=8, length=1024, past=0, rate=0.1, seed=seed) for seed in (0, 1))
    labels = np.concatenate([series.labels for series in test]).astype(int)

    spear = SpearDetector(backbone, window=64, epochs=5, prompt_length=10)
    spear.fit([series.values for series in train], [series.labels for series in train])
    scores = {"SPEAR": np.concatenate(spear.decision_function([series.values for series in test]))}

    forest = IForest(random_state=0).fit(np.concatenate([series.values for series in train])[:, None])
    scores["IForest"] = forest.decision_function(np.concatenate([series.values for series in test])[:, None])

    both = standardizer(np.stack(list(scores.values()), axis=1))
    scores["mean of both"] = both.mean(axis=1)
    for name, model_scores in scores.items():
        evaluate_print(name, labels, model_scores)
    return scores


if __name__ == "__main__":
    main(*sys.argv[1:])
