"""Selects what the head reads: the hidden state of every time step, or one pooled vector per window."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from spear_jax.backbones import Selection
from spear_jax.model.sequence import last_step


def positions_to_read(mask: Bool[Array, "batch time"], head_input: str, before: int, after: int) -> Selection:
    """Returns the positions whose hidden states the head needs, counted from the first time step.

    Args:
      mask: True at real time steps.
      head_input: 'step' and 'mean' need every time step, 'last' the last real one of each window, 'cls' and
        'peft_first' the first position of the sequence, 'peft_last' the last one, padding included.
      before: positions before the time steps; the first one is at -before.
      after: positions after them.
    """
    time = mask.shape[1]
    if head_input == "last":
        return last_step(mask)[:, None]
    if head_input in ("cls", "peft_first"):
        return -before, 1 - before
    if head_input == "peft_last":
        return time + after - 1, time + after
    return 0, time


def shift_positions(positions: Selection, by: int) -> Selection:
    """Adds `by` to positions, to count them from an origin `by` positions earlier."""
    if isinstance(positions, tuple):
        return positions[0] + by, positions[1] + by
    return None if positions is None else positions + by


def mean_over_steps(
    states: Float[Array, "batch time hidden"], mask: Bool[Array, "batch time"]
) -> Float[Array, "batch 1 hidden"]:
    """Averages hidden states over the real time steps of each window; 0 if there are none."""
    weight = mask[..., None].astype(jnp.float32)
    total = jnp.sum(states * weight, axis=1, keepdims=True)
    return total / jnp.maximum(jnp.sum(weight, axis=1, keepdims=True), 1)
