"""SPEAR: a soft prompt and a head around a frozen backbone."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from spear_jax.backbones.embedding import bin_table, initial_prompt
from spear_jax.backbones.pretrained import Backbone

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
      backbone: module from embeddings and mask to hidden states, e.g. `backbones.bert.Bert`.
      hidden: the backbone's hidden size H.
      rows: rows of the bin table, N + 1 (the last for missing values).
      prompt_length: m; 0 means no prompt.
      prompt_position: 'prefix' [P; E], 'after_cls' [CLS; P; E] or 'suffix' [E; P].
      head_kind: 'step', a logit per time step, or 'window', a logit per window.
      pooling: of a window head: 'mean' over the real steps, 'last' real step, or 'cls' (needs 'after_cls').
    """

    backbone: nn.Module
    hidden: int
    rows: int
    prompt_length: int
    prompt_position: str = "prefix"
    head_kind: str = "step"
    pooling: str = "mean"

    def setup(self) -> None:  # noqa: D102
        if self.prompt_length:
            self.prompt = SoftPrompt(self.prompt_length, self.hidden)
        self.embedding = Embedding(self.rows, self.hidden)
        if self.prompt_position == "after_cls":
            self.cls = Embedding(1, self.hidden)
        self.head = nn.Dense(1, kernel_init=nn.initializers.normal(0.02))

    def hidden_states(
        self, bins: Int[Array, "batch time"], mask: Bool[Array, "batch time"]
    ) -> tuple[Float[Array, "batch sequence hidden"], int]:
        """The backbone's hidden states, and the position of the first time step among them.

        Args:
          bins: the bin of every step.
          mask: True where the model may look.

        Returns:
          hidden: states of the whole sequence, prompt included.
          first: time step t stands at position first + t.
        """
        batch, time = bins.shape
        m = self.prompt_length
        parts = [self.embedding(bins)]
        masks = [mask]
        if m:
            prompt = jnp.broadcast_to(self.prompt(), (batch, m, self.hidden))
            where = len(parts) if self.prompt_position == "suffix" else 0
            parts.insert(where, prompt)
            masks.insert(where, jnp.ones((batch, m), bool))
        first = m if self.prompt_position != "suffix" else 0
        if self.prompt_position == "after_cls":
            parts.insert(0, self.cls(jnp.zeros((batch, 1), jnp.int32)))
            masks.insert(0, jnp.ones((batch, 1), bool))
            first += 1
        positions = None
        if self.prompt_position == "suffix":
            # The prompt follows the last real step, so that padding between them changes nothing.
            steps = jnp.arange(time)
            length = jnp.max(jnp.where(mask, steps + 1, 0), axis=1, keepdims=True)
            positions = jnp.concatenate([jnp.broadcast_to(steps, (batch, time)), length + jnp.arange(m)], axis=1)
        hidden = self.backbone(jnp.concatenate(parts, axis=1), jnp.concatenate(masks, axis=1), positions)
        return hidden, first

    def __call__(self, bins: Int[Array, "batch time"], mask: Bool[Array, "batch time"]) -> Float[Array, "batch time"]:
        """Logits of 'anomalous'.

        Args:
          bins: the bin of every step.
          mask: True where the model may look.

        Returns:
          A logit per step; a window head's logit stands at each of its steps.
        """
        states, first = self.hidden_states(bins, mask)
        return self.logits(states, first, mask)

    def logits(
        self,
        states: Float[Array, "batch sequence hidden"],
        first: int,
        mask: Bool[Array, "batch time"],
    ) -> Float[Array, "batch time"]:
        """Logits from the backbone's hidden states; the part that a head alone computes."""
        steps = states[:, first : first + mask.shape[1]].astype(jnp.float32)
        if self.head_kind == "step":
            return self.head(steps)[..., 0]
        pooled = pool(self.pooling, states[:, 0].astype(jnp.float32), steps, mask)
        return jnp.broadcast_to(self.head(pooled), mask.shape)


def pool(
    pooling: str,
    start: Float[Array, "batch hidden"],
    steps: Float[Array, "batch time hidden"],
    mask: Bool[Array, "batch time"],
) -> Float[Array, "batch hidden"]:
    """One vector per window, from a position that is named: never 'the first one, whatever it is'."""
    if pooling == "cls":
        return start
    if pooling == "last":
        last = jnp.max(jnp.where(mask, jnp.arange(mask.shape[1]), 0), axis=1)
        return jnp.take_along_axis(steps, last[:, None, None], axis=1)[:, 0]
    weight = mask[..., None].astype(jnp.float32)
    return jnp.sum(steps * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), 1)


def merge(trainable: Params, frozen: Params) -> Params:
    """The variables of `Spear.apply` from the two trees; no gradient ever reaches the frozen one."""
    return {"params": {**trainable, **jax.lax.stop_gradient(frozen)}}


@dataclasses.dataclass(frozen=True)
class Assembled:
    """A model and its parameters, as NumPy arrays in two trees.

    Attributes:
      spear: the module.
      trainable: {'prompt', 'head'}, and 'embedding' where `embedding.kind='trained'`.
      frozen: {'backbone', 'embedding'}, and 'cls' where the prompt follows it; never differentiated, never optimized.
      embedding: what is to be said about the bins' vectors.
    """

    spear: Spear
    trainable: Params
    frozen: Params
    embedding: dict[str, object]


def assemble(config: ConfigDict, backbone: Backbone) -> Assembled:
    """Builds the model that a config describes around a backbone.

    Raises:
      InputError: the vocabulary has too few rows.
    """
    bins, hidden = config.quantizer.bins, backbone.hidden_size
    spear = Spear(
        backbone=backbone.module,
        hidden=hidden,
        rows=bins + 1,
        prompt_length=config.prompt.length,
        prompt_position=config.prompt.position,
        head_kind=config.head.kind,
        pooling=config.head.pooling,
    )
    table, notes = bin_table(
        config.embedding.kind,
        bins,
        backbone,
        length_scale=config.embedding.length_scale,
        first_row=config.embedding.first_row,
        seed=config.seed,
    )
    rng = np.random.default_rng((config.seed, 1))
    trainable: Params = {
        "head": {
            "kernel": rng.normal(0, 0.02, (hidden, 1)).astype(np.float32),
            "bias": np.zeros(1, np.float32),
        }
    }
    frozen: Params = {"backbone": backbone.params}
    if config.prompt.length:
        trainable["prompt"] = {
            "vectors": initial_prompt(
                config.prompt.init,
                config.prompt.length,
                backbone,
                words=config.prompt.words,
                seed=config.seed,
            )
        }
    (trainable if config.embedding.kind == "trained" else frozen)["embedding"] = {"table": table}
    if config.prompt.position == "after_cls":
        frozen["cls"] = {"table": backbone.word_rows(np.array([backbone.special_ids["cls"]]))}
    return Assembled(spear, trainable, frozen, notes)


def count(tree: Params) -> int:
    """Numbers in a tree of parameters."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(tree))
