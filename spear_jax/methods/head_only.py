"""Scores the control without a prompt (m = 0): the same head on the same frozen backbone shows what the prompt adds.

The hidden states do not change while the head is trained, so they are computed once and the head is fitted to its
optimum, which makes the control as strong as possible.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from spear_jax import parallel
from spear_jax.data import Examples
from spear_jax.model import MAX_STATE_BYTES, PlacedModel, fit_head


def score_head_only(
    model: PlacedModel, training: Examples, splits: Mapping[str, Examples], *, positive_weight: float, seed: int
) -> dict[str, Float[np.ndarray, "_windows _time"]]:
    """Fits a head without a prompt and scores splits.

    Returns:
      P(anomalous) per step by split; all steps of a window get the score of a window head.
    """
    bare = model.without_prompt()
    fits_in_memory = 4 * training.bins.size * bare.module.hidden <= MAX_STATE_BYTES
    with parallel.announced("control head only: fitted"):
        features = list(bare.features(training, "head only, train")) if fits_in_memory else None
        head = fit_head(bare, training, positive_weight=positive_weight, seed=seed, features=features)

    def score(split: str, examples: Examples) -> Float[np.ndarray, "windows time"]:
        batches = features if features and examples is training else bare.features(examples, f"head only, {split}")
        scores = np.zeros(examples.bins.shape, np.float32)
        for rows, states in batches:
            # A window head reads a single state.
            steps = slice(None) if bare.module.head_kind == "window" else slice(states.shape[1])
            scores[rows, steps] = expit((states @ head["kernel"])[..., 0] + head["bias"])
        return scores

    scores = {}
    for split, examples in splits.items():
        with parallel.announced(f"control head only: scored {split}"):
            scores[split] = score(split, examples)
    return scores
