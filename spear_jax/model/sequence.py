"""Turns time steps and the prompt into one sequence of vectors, with its mask and its positions."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def average_patches(
    steps: Float[Array, "batch time hidden"], mask: Bool[Array, "batch time"], patch: int
) -> tuple[Float[Array, "batch patches hidden"], Bool[Array, "batch patches"]]:
    """Averages the vectors of every `patch` consecutive steps, masked ones left out.

    Returns:
      The averages, and True for each patch with a step that is not masked.
    """
    batch, time, hidden = steps.shape
    weight = mask.reshape(batch, time // patch, patch, 1).astype(steps.dtype)
    total = jnp.sum(steps.reshape(batch, time // patch, patch, hidden) * weight, axis=2)
    count = jnp.sum(weight, axis=2)
    return total / jnp.maximum(count, 1), count[..., 0] > 0


def combine(
    before: Float[Array, "before hidden"], steps: Float[Array, "batch time hidden"], after: Float[Array, "after hidden"]
) -> Float[Array, "batch sequence hidden"]:
    """Concatenates [before; steps; after] for every window."""
    batch = len(steps)
    return jnp.concatenate(
        [jnp.broadcast_to(before, (batch, *before.shape)), steps, jnp.broadcast_to(after, (batch, *after.shape))],
        axis=1,
    )


def extend_mask(mask: Bool[Array, "batch time"], before: int, after: int) -> Bool[Array, "batch sequence"]:
    """Extends a mask of time steps by the vectors before and after them, which are always attended to."""
    return jnp.pad(mask, ((0, 0), (before, after)), constant_values=True)


def suffix_positions(mask: Bool[Array, "batch time"], after: int) -> Int[Array, "batch sequence"]:
    """Returns the positions of [steps; after].

    The vectors after the steps continue from the last real step, so that padding in between changes nothing.
    """
    steps = jnp.broadcast_to(jnp.arange(mask.shape[1]), mask.shape)
    return jnp.concatenate([steps, last_step(mask)[:, None] + 1 + jnp.arange(after)], axis=1)


def last_step(mask: Bool[Array, "batch time"]) -> Int[Array, "batch"]:
    """Returns the index of the last real step of each window; 0 if there is none."""
    return jnp.max(jnp.where(mask, jnp.arange(mask.shape[1]), 0), axis=1)
