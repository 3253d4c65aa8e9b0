"""A trained model and windows in, a score per step out."""

import functools
from collections.abc import Iterator
from typing import Any, cast

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

from spear_jax import parallel
from spear_jax.data import Examples, scoring_batches
from spear_jax.model.spear import Params, Spear, merge


@functools.partial(jax.jit, static_argnames=("spear", "gathered"))
def _probabilities(
    spear: nn.Module, trainable: Any, frozen: Any, batch: dict[str, Array], gathered: NamedSharding
) -> Float[Array, "batch time"]:
    logits = cast(Array, spear.apply(merge(trainable, frozen), batch["bins"], batch["mask"]))
    return jax.lax.with_sharding_constraint(jax.nn.sigmoid(logits), gathered)


def score_windows(
    spear: nn.Module,
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

    Returns:
      A score per step; 0 behind a window's length.
    """
    scores = np.zeros(examples.mask.shape, np.float32)

    def fetch(rows: np.ndarray, length: int, found: Array) -> None:
        real = rows >= 0
        scores[rows[real], :length] = np.asarray(found)[: len(rows)][real]

    pending: list[Any] = []
    batches = scoring_batches(examples.lengths, batch_size)
    hidden = parallel.no_bar() if progress else True
    for rows, length in tqdm(batches, desc=progress, unit="batch", disable=hidden, leave=False):
        batch = parallel.shard_batch(examples.take(rows, length), mesh, axis=0)
        found = _probabilities(spear, trainable, frozen, batch, parallel.replicated(mesh))
        pending.append((rows, length, found))
        if len(pending) > 1:  # fetched one batch late, so that the device never waits for the host
            fetch(*pending.pop(0))
    for last in pending:
        fetch(*last)
    return scores


class Probe(nn.Module):
    """The head of a model, on hidden states that were computed before.

    Attributes:
      hidden: size of a hidden state.
      head_kind: as `Spear.head_kind`.
    """

    hidden: int
    head_kind: str = "step"

    def setup(self) -> None:  # noqa: D102
        self.head = nn.Dense(1)

    def __call__(
        self, states: Float[Array, "batch time hidden"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time"]:
        """A logit per step."""
        return self.head(self.features(states, mask))[..., 0]

    def features(
        self, states: Float[Array, "batch time hidden"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time hidden"]:
        """The states themselves."""
        return states


@functools.partial(jax.jit, static_argnames=("spear", "gathered"))
def _features(
    spear: Spear | Probe, trainable: Any, frozen: Any, batch: dict[str, Array], gathered: NamedSharding
) -> Float[Array, "batch asked hidden"]:
    """What the head reads: a vector per step, or one per window."""
    read = cast(Array, spear.apply(merge(trainable, frozen), batch["bins"], batch["mask"], method="features"))
    return jax.lax.with_sharding_constraint(read, gathered)


def features(
    spear: Spear | Probe,
    trainable: Params,
    frozen: Params,
    examples: Examples,
    *,
    batch_size: int,
    mesh: Mesh,
    progress: str,
) -> Iterator[tuple[Int[np.ndarray, "batch"], Float[np.ndarray, "batch asked hidden"]]]:
    """Rows of `examples`, batch by batch, longest first, and what the head reads for them."""
    batches = scoring_batches(examples.lengths, batch_size)
    for rows, length in tqdm(batches, desc=progress, unit="batch", leave=False, disable=parallel.no_bar()):
        batch = parallel.shard_batch(examples.take(rows, length), mesh, axis=0)
        read = np.asarray(_features(spear, trainable, frozen, batch, parallel.replicated(mesh)))
        real = rows[rows >= 0]
        yield real, read[: len(real)]
