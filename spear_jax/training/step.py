"""Takes optimizer steps: loss, optimizer and the jitted training call."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from spear_jax.model import Params, merge

# What a step reports, in the order of the columns of `Stats`.
LOSS, STEPS, GRADIENT, UPDATE, NORM = range(5)


Stats = Float[Array, "steps 5"]


def loss_sum(
    spear: nn.Module, trainable: Params, frozen: Params, batch: dict[str, Array], positive_weight: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Binary cross-entropy summed over the real steps of a batch, and the number of these steps."""
    logits = spear.apply(merge(trainable, frozen), batch["bins"], batch["mask"])
    loss = optax.sigmoid_binary_cross_entropy(logits, batch["targets"])
    weight = jnp.where(batch["targets"] > 0, positive_weight, 1.0) * batch["mask"]
    return jnp.sum(loss * weight), jnp.sum(batch["mask"], dtype=jnp.float32)


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW with a learning rate of its own for each trainable part."""
    train = config.train

    def adamw(rate: float) -> optax.GradientTransformation:
        after: optax.Schedule = {
            "constant": optax.constant_schedule(rate),
            "linear": optax.linear_schedule(rate, rate * train.decay_to, train.decay_steps),
            "cosine": optax.cosine_decay_schedule(rate, train.decay_steps, train.decay_to),
        }[train.schedule]
        if train.warmup_steps:
            # Starts above 0, so that the first step already moves the prompt.
            ramp = optax.linear_schedule(rate / train.warmup_steps, rate, train.warmup_steps)
            after = optax.join_schedules([ramp, after], [train.warmup_steps])
        return optax.adamw(after, weight_decay=train.weight_decay)

    return optax.chain(
        optax.clip_by_global_norm(train.clip_norm),
        optax.partition(
            {
                "prompt": adamw(train.prompt_learning_rate),
                "head": adamw(train.head_learning_rate),
                "embedding": adamw(train.embedding_learning_rate),
                "network": adamw(train.network_learning_rate),
                "backbone": adamw(train.backbone_learning_rate),
            },
            lambda tree: dict(zip(tree, tree, strict=True)),  # a whole part has one label: its name
        ),
    )


def make_train_call(
    spear: nn.Module, optimizer: optax.GradientTransformation, positive_weight: float
) -> Callable[..., tuple[Params, Any, Stats]]:
    """One jitted call of several optimizer steps.

    Returns:
      call(trainable, optimizer_state, frozen, batches, steps): `batches` hold steps on the leading axis, of which
      the first `steps` are done; the trainable state is donated.
    """

    def one_step(i: Array, carry: Any, frozen: Params, batches: dict[str, Array]) -> Any:
        trainable, state, stats = carry
        batch = jax.tree.map(lambda steps: jax.lax.dynamic_index_in_dim(steps, i, keepdims=False), batches)

        def mean_loss(trainable: Params) -> tuple[Array, Array]:
            total, steps = loss_sum(spear, trainable, frozen, batch, positive_weight)
            return total / jnp.maximum(steps, 1), steps

        (loss, steps), gradient = jax.value_and_grad(mean_loss, has_aux=True)(trainable)
        updates, state = optimizer.update(gradient, state, trainable)
        # Diagnostics of the prompt: a prompt that stands still is the commonest way to fail.
        row = jnp.stack(
            [
                loss,
                steps,
                optax.tree.norm(gradient.get("prompt", {})) + 0.0,
                optax.tree.norm(updates.get("prompt", {})) + 0.0,
                optax.tree.norm(trainable.get("prompt", {})) + 0.0,
            ]
        )
        return optax.apply_updates(trainable, updates), state, stats.at[i].set(row)

    def call(
        trainable: Params, state: Any, frozen: Params, batches: dict[str, Array], steps: Array
    ) -> tuple[Params, Any, Stats]:
        stats = jnp.zeros((batches["bins"].shape[0], 5), jnp.float32)
        return jax.lax.fori_loop(
            0,
            steps,
            lambda i, carry: one_step(i, carry, frozen, batches),
            (trainable, state, stats),
        )

    return jax.jit(call, donate_argnums=(0, 1))
