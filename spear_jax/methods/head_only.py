"""The control that shows what the prompt adds: the same head on the same frozen backbone, without a prompt (m = 0).

Its hidden states do not change while it trains, so they are computed once, and the head is fitted to its optimum: the
control is as strong as it can be.
"""

from collections.abc import Iterator

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float
from scipy.special import expit

from spear_jax.data import Examples
from spear_jax.model import MAX_BYTES, Params, Spear, features, fit_head


def head_only(
    spear: Spear,
    frozen: Params,
    train: Examples,
    splits: dict[str, Examples],
    *,
    positive_weight: float,
    batch_size: int,
    mesh: Mesh,
    seed: int,
) -> dict[str, Float[np.ndarray, "windows time"]]:
    """Fits the head alone and scores every split.

    Args:
      spear: the model; its prompt is left out.
      frozen: backbone and bin embeddings, on the devices.
      train: the training split.
      splits: the splits to score, by name.
      positive_weight: of anomalous steps, as in training.
      batch_size: windows at a time.
      mesh: the devices.
      seed: see `fit_head`.

    Returns:
      P(anomalous) per step by split; a window head's stands at each step.
    """
    bare = spear.clone(prompt_length=0)

    def read(name: str, examples: Examples) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        progress = f"head only, {name}"
        return features(bare, {}, frozen, examples, batch_size=batch_size, mesh=mesh, progress=progress)

    kept = list(read("train", train)) if 4 * train.bins.size * bare.hidden <= MAX_BYTES else None
    head = fit_head(kept or read("train", train), train, spear=bare, positive_weight=positive_weight, seed=seed)

    def score(name: str, examples: Examples) -> Float[np.ndarray, "windows time"]:
        batches = kept if kept and examples is train else read(name, examples)
        scores = np.zeros(examples.bins.shape, np.float32)
        for rows, states in batches:
            # A window head reads one state, whose score stands at every step.
            steps = slice(None) if spear.head_kind == "window" else slice(states.shape[1])
            scores[rows, steps] = expit((states @ head["kernel"])[..., 0] + head["bias"])
        return scores

    return {name: score(name, examples) for name, examples in splits.items()}
