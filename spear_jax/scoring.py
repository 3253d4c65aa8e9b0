"""A trained model and windows in, a score per step out."""

import functools
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float
from tqdm import tqdm

from spear_jax import parallel
from spear_jax.data.batches import Examples, fill
from spear_jax.model import Spear, merge


@functools.partial(jax.jit, static_argnames=("spear", "gathered"))
def _probabilities(
    spear: Spear, trainable: Any, frozen: Any, batch: dict[str, Array], gathered: NamedSharding
) -> Float[Array, "batch time"]:
    logits = cast(Array, spear.apply(merge(trainable, frozen), batch["bins"], batch["mask"]))
    return jax.lax.with_sharding_constraint(jax.nn.sigmoid(logits), gathered)


def score_windows(
    spear: Spear,
    trainable: Any,
    frozen: Any,
    examples: Examples,
    *,
    batch_size: int,
    mesh: Mesh,
    progress: str = "",
) -> Float[np.ndarray, "windows time"]:
    """P(anomalous) for every step of every window.

    Args:
      spear: the model.
      trainable: its trained parameters, on the devices.
      frozen: its frozen ones, on the devices.
      examples: the windows.
      batch_size: windows scored at a time, over all devices.
      mesh: the devices.
      progress: what a progress bar is called; '' shows none.
    """
    batches = fill(np.arange(len(examples)), batch_size)
    scores = []
    for rows in tqdm(batches, desc=progress, unit="batch", disable=None if progress else True, leave=False):
        batch = parallel.shard_batch(examples.take(rows), mesh, axis=0)
        scores.append(_probabilities(spear, trainable, frozen, batch, parallel.replicated(mesh)))
        if len(scores) > 1:  # fetched one batch late, so that the device never waits for the host
            scores[-2] = np.asarray(scores[-2])[:batch_size]
    scores[-1] = np.asarray(scores[-1])[:batch_size]
    return np.concatenate(scores)[: len(examples)]
