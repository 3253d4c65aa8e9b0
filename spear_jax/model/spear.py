"""SPEAR: a soft prompt and a head around a frozen backbone."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Bool, Float, Int

from spear_jax.backbones import Decoder, take

Params = dict[str, Any]


class SoftPrompt(nn.Module):
    """m trainable vectors in the space of the backbone's word embeddings."""

    length: int
    hidden: int

    @nn.compact
    def __call__(self) -> Float[Array, "prompt hidden"]:
        """The prompt's vectors, in float32 whatever the backbone computes in."""
        return self.param("vectors", nn.initializers.normal(0.02), (self.length, self.hidden), jnp.float32)


class Embedding(nn.Module):
    """One vector per bin: the rows that were chosen for the bins, not the backbone's whole word table."""

    rows: int
    hidden: int

    @nn.compact
    def __call__(self, bins: Int[Array, "batch time"]) -> Float[Array, "batch time hidden"]:
        """Rows of the table by bin."""
        table = self.param("table", nn.initializers.normal(0.02), (self.rows, self.hidden), jnp.float32)
        return jnp.take(table, bins, axis=0)


class Spear(nn.Module):
    """scale -> bins -> [prompt ; E[bins]] -> frozen backbone -> one logit per time step or per window.

    The formula is h = backbone([p_1..p_m, E[q_1]..E[q_T]]), z_t = w . h_(m+t) + b (arXiv 2510.03962).

    Attributes:
      backbone: module from embeddings and mask to hidden states: `backbones.bert.Bert` or `backbones.decoder.Decoder`.
      hidden: the backbone's hidden size H.
      rows: rows of the bin table, N + 1 (the last for missing values).
      prompt_length: m; 0 means no prompt.
      prompt_position: 'prefix' [P; E], 'after_cls' [CLS; P; E] ([CLS] or what stands for it: a decoder's first token)
        or 'suffix' [E; P].
      head_kind: 'step', a logit per time step, or 'window', a logit per window.
      pooling: of a window head: 'mean' over the real steps, 'last' real step, 'cls' (needs 'after_cls'); or as PEFT
        does it, whatever stands there: 'peft_first' position of the sequence, 'peft_last' one, padding included.
      plain: leave out the savings, which change no result: a decoder's prefix once per step and not once per window,
        and no hidden states of the last layer that nobody reads.
    """

    backbone: nn.Module
    hidden: int
    rows: int
    prompt_length: int
    prompt_position: str = "prefix"
    head_kind: str = "step"
    pooling: str = "mean"
    plain: bool = False

    def setup(self) -> None:  # noqa: D102
        if self.prompt_length:
            self.prompt = SoftPrompt(self.prompt_length, self.hidden)
        self.embedding = Embedding(self.rows, self.hidden)
        if self.prompt_position == "after_cls":
            self.cls = Embedding(1, self.hidden)
        self.head = nn.Dense(1, kernel_init=nn.initializers.normal(0.02))

    def __call__(self, bins: Int[Array, "batch time"], mask: Bool[Array, "batch time"]) -> Float[Array, "batch time"]:
        """Logits of 'anomalous'.

        Args:
          bins: the bin of every step.
          mask: True where the model may look.

        Returns:
          A logit per step; a window head's logit stands at each of its steps.
        """
        logits = self.head(self.features(bins, mask))[..., 0]
        return jnp.broadcast_to(logits, mask.shape)

    def features(
        self, bins: Int[Array, "batch time"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch asked hidden"]:
        """What the head reads: the hidden state of each step, or one pooled vector per window, float32.

        Args:
          bins: the bin of every step.
          mask: True where the model may look.
        """
        (batch, time), m = bins.shape, self.prompt_length
        steps = self.embedding(bins)
        front: list[Array] = []  # vectors before the steps
        if self.prompt_position == "after_cls":
            front.append(self.cls(jnp.zeros((1, 1), jnp.int32))[0])
        if m and self.prompt_position != "suffix":
            front.append(self.prompt())
        prefix = jnp.concatenate(front) if front else jnp.zeros((0, self.hidden))
        first = len(prefix)
        behind = m if self.prompt_position == "suffix" else 0

        read: tuple[int, int] | Array = (first, first + time)
        if self.head_kind == "window" and self.pooling == "last":
            read = first + _last(mask)[:, None]
        elif self.head_kind == "window" and self.pooling in ("cls", "peft_first"):
            read = (0, 1)
        elif self.head_kind == "window" and self.pooling == "peft_last":
            read = (first + time + behind - 1, first + time + behind)

        in_front = isinstance(read, tuple) and read[0] < first  # a state of the prefix itself is wanted
        if first and self.backbone.causal and isinstance(self.backbone, Decoder) and not in_front and not self.plain:
            behind_it = (read[0] - first, read[1] - first) if isinstance(read, tuple) else read - first
            states = self.backbone(steps, mask, None, behind_it, prefix)
        else:
            parts, masks, positions = [steps], [mask], None
            if first:
                parts.insert(0, jnp.broadcast_to(prefix, (batch, *prefix.shape)))
                masks.insert(0, jnp.ones((batch, first), bool))
            if behind:
                parts.append(jnp.broadcast_to(self.prompt(), (batch, m, self.hidden)))
                masks.append(jnp.ones((batch, m), bool))
                # The prompt follows the last real step, so that padding between them changes nothing.
                counted = jnp.broadcast_to(jnp.arange(time), (batch, time))
                positions = jnp.concatenate([counted, _last(mask)[:, None] + 1 + jnp.arange(m)], axis=1)
            together = jnp.concatenate(parts, axis=1), jnp.concatenate(masks, axis=1)
            if self.plain:
                states = take(self.backbone(*together, positions), read)
            else:
                states = self.backbone(*together, positions, read)
        states = states.astype(jnp.float32)
        if self.head_kind == "window" and self.pooling == "mean":
            weight = mask[..., None].astype(jnp.float32)
            total = jnp.sum(states * weight, axis=1, keepdims=True)
            return total / jnp.maximum(jnp.sum(weight, axis=1, keepdims=True), 1)
        return states


def _last(mask: Bool[Array, "batch time"]) -> Int[Array, "batch"]:
    """The last real step of each window; 0 where there is none."""
    return jnp.max(jnp.where(mask, jnp.arange(mask.shape[1]), 0), axis=1)


def merge(trainable: Params, frozen: Params) -> Params:
    """The variables of a module from the two trees; no gradient ever reaches the frozen one.

    Where both hold a part of the same name (LoRA's matrices lie inside the backbone), their leaves are put together.
    """
    parts = traverse_util.flatten_dict(jax.lax.stop_gradient(frozen)) | traverse_util.flatten_dict(trainable)
    return {"params": traverse_util.unflatten_dict(parts)}
