"""Takes optimizer steps: the loss, the optimizer and the jitted training call."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from spear_jax.model import Params, merge, over_members

DECAY_TO = 0.1  # share of the learning rate that is left after the decay


class StepMetrics(NamedTuple):
    """Metrics of optimizer steps, a value per step.

    The three norms show whether the prompt learns; a prompt that does not move is the most common failure.

    Attributes:
      loss: mean loss over the real time steps of the batch, and over the members.
      time_steps: number of real time steps in the batch.
      gradient_norm: norm of the prompt's gradient; 0 if no prompt is trained.
      update_norm: norm of the prompt's update; likewise.
      prompt_norm: norm of the prompt before the update; likewise.
    """

    loss: Float[Any, "steps"]
    time_steps: Float[Any, "steps"]
    gradient_norm: Float[Any, "steps"]
    update_norm: Float[Any, "steps"]
    prompt_norm: Float[Any, "steps"]


def loss_sum(
    module: nn.Module, trainable: Params, frozen: Params, batch: dict[str, Array], positive_weight: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the binary cross-entropy summed over the real time steps of a batch, and the number of these."""
    logits = module.apply(merge(trainable, frozen), batch["inputs"], batch["mask"])
    loss = optax.sigmoid_binary_cross_entropy(logits, batch["targets"])
    weight = jnp.where(batch["targets"] > 0, positive_weight, 1.0) * batch["mask"]
    return jnp.sum(loss * weight), jnp.sum(batch["mask"], dtype=jnp.float32)


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Makes an AdamW optimizer with a separate learning rate for each trainable part, and a state for each member."""
    train = config.train

    def adamw(rate: float) -> optax.GradientTransformation:
        after: optax.Schedule = {
            "constant": optax.constant_schedule(rate),
            "linear": optax.linear_schedule(rate, DECAY_TO * rate, train.decay_steps),
            "cosine": optax.cosine_decay_schedule(rate, train.decay_steps, DECAY_TO),
        }[train.schedule]
        if train.warmup_steps:
            # Starts above 0, so that the first step already moves the prompt.
            ramp = optax.linear_schedule(rate / train.warmup_steps, rate, train.warmup_steps)
            after = optax.join_schedules([ramp, after], [train.warmup_steps])
        return optax.adamw(after, weight_decay=train.weight_decay)

    optimizer = optax.chain(
        optax.clip_by_global_norm(train.clip_norm),
        optax.partition(
            {
                "prompt": adamw(train.prompt_learning_rate),
                "head": adamw(train.head_learning_rate),
                "embedding": adamw(train.embedding_learning_rate),
                "network": adamw(train.network_learning_rate),
                "backbone": adamw(train.backbone_learning_rate),
            },
            lambda tree: dict(zip(tree, tree, strict=True)),  # all leaves of a part are labelled with its name
        ),
    )
    if config.prompt.members == 1:
        return optimizer
    return optax.GradientTransformation(jax.vmap(optimizer.init), jax.vmap(optimizer.update))


def make_train_call(
    module: nn.Module, optimizer: optax.GradientTransformation, positive_weight: float
) -> Callable[..., tuple[Params, Any, StepMetrics]]:
    """Makes the jitted call of several optimizer steps.

    Returns:
      call(trainable, optimizer_state, frozen, batches, steps): the leading axis of `batches` is one optimizer step, of
      which the first `steps` are taken; metrics of the others are 0. The trainable tree and the optimizer state are
      donated.
    """

    def take_step(
        trainable: Params, state: Any, frozen: Params, batch: dict[str, Array]
    ) -> tuple[Params, Any, StepMetrics]:
        def mean_loss(trainable: Params, frozen: Params) -> tuple[Array, Array]:
            total, time_steps = loss_sum(module, trainable, frozen, batch, positive_weight)
            return total / jnp.maximum(time_steps, 1), time_steps

        losses, gradient = over_members(jax.value_and_grad(mean_loss, has_aux=True), trainable, frozen)
        loss, time_steps = map(jnp.mean, losses)
        updates, state = optimizer.update(gradient, state, trainable)
        norms = [optax.tree.norm(tree.get("prompt", {})) + 0.0 for tree in (gradient, updates, trainable)]
        return optax.apply_updates(trainable, updates), state, StepMetrics(loss, time_steps, *norms)

    def call(
        trainable: Params, state: Any, frozen: Params, batches: dict[str, Array], steps: Array
    ) -> tuple[Params, Any, StepMetrics]:
        def body(i: Array, carry: Any) -> Any:
            trainable, state, metrics = carry
            batch = jax.tree.map(lambda array: jax.lax.dynamic_index_in_dim(array, i, keepdims=False), batches)
            trainable, state, step_metrics = take_step(trainable, state, frozen, batch)
            return trainable, state, jax.tree.map(lambda column, value: column.at[i].set(value), metrics, step_metrics)

        zeros = jnp.zeros(len(batches["inputs"]), jnp.float32)
        metrics = StepMetrics(*[zeros] * len(StepMetrics._fields))
        return jax.lax.fori_loop(0, steps, body, (trainable, state, metrics))

    return jax.jit(call, donate_argnums=(0, 1))
