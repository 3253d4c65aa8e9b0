"""Computes with several prompts at once: members of an ensemble, each with a head, whose logits are averaged.

The trainable parts of an ensemble have a leading axis of its members, and so has a prompt that is frozen. The backbone
is shared, and members take turns, so that memory does not grow with their number.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spear_jax.backbones import Params
from spear_jax.model.spear import merge

Computed = TypeVar("Computed")


def count_members(trainable: Params) -> int:
    """Returns the number of members that trainable parts belong to."""
    return 1 if np.ndim(trainable.get("head", {}).get("bias", 0)) < 2 else len(trainable["head"]["bias"])


def over_members(compute: Callable[[Params, Params], Computed], trainable: Params, frozen: Params) -> Computed:
    """Calls `compute(trainable, frozen)` with the parts of each member; results of several have a leading axis."""
    if count_members(trainable) == 1:
        return compute(trainable, frozen)
    prompt = {name: part for name, part in frozen.items() if name == "prompt"}
    return jax.lax.map(lambda parts: compute(parts[0], {**frozen, **parts[1]}), (trainable, prompt))


def member_of(number: int, trainable: Params, frozen: Params) -> tuple[Params, Params]:
    """Returns the parts of one member."""
    if count_members(trainable) == 1:
        return trainable, frozen
    own, prompt = jax.tree.map(lambda array: array[number], (trainable, frozen.get("prompt")))
    return own, {**frozen, "prompt": prompt} if prompt else frozen


def average_logits(
    module: nn.Module, trainable: Params, frozen: Params, batch: dict[str, Array]
) -> Float[Array, "batch time"]:
    """Computes the logits of a batch, averaged over the members."""

    def compute(trainable: Params, frozen: Params) -> Any:
        return module.apply(merge(trainable, frozen), batch["inputs"], batch["mask"])

    logits = over_members(compute, trainable, frozen)
    return logits if count_members(trainable) == 1 else jnp.mean(logits, axis=0)
