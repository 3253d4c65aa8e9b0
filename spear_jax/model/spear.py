"""SPEAR: a soft prompt and a head around a frozen backbone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Bool, Float, Int

from spear_jax.backbones import Decoder, Params, Selection, take
from spear_jax.model.head_input import mean_over_steps, positions_to_read, shift_positions
from spear_jax.model.prompt import SoftPrompt
from spear_jax.model.sequence import average_patches, combine, extend_mask, suffix_positions


class Embedding(nn.Module):
    """A table with a vector per bin, instead of the backbone's whole word table.

    Attributes:
      rows: rows for each view.
      hidden: size of a row.
      views: numbers per step; their tables stand one below the other.
    """

    rows: int
    hidden: int
    views: int = 1

    @nn.compact
    def __call__(self, bins: Int[Array, "batch time *views"]) -> Float[Array, "batch time hidden"]:
        """Looks up the row of each bin, and adds up the rows of a step's views."""
        shape = (self.views * self.rows, self.hidden)
        table = self.param("table", nn.initializers.normal(0.02), shape, jnp.float32)
        if self.views == 1:
            return jnp.take(table, bins, axis=0)
        return jnp.sum(jnp.take(table, bins + self.rows * jnp.arange(self.views), axis=0), axis=-2)


class Spear(nn.Module):
    """scale -> bins -> [prompt ; E[bins]] -> frozen backbone -> one logit per time step or per window.

    The formula is h = backbone([p_1..p_m, E[q_1]..E[q_T]]), z_t = w . h_(m+t) + b (arXiv 2510.03962).

    Attributes:
      backbone: module from embeddings and mask to hidden states, a `Bert` or a `Decoder`.
      hidden: the backbone's hidden size H.
      rows: rows of the bin table, N + 1 (the last for missing values), of each view.
      views: numbers per step (`quantizer.views`).
      prompt_length: m; 0 means no prompt.
      prompt_position: 'prefix' [P; E], 'after_cls' [CLS; P; E] ([CLS] or its counterpart: a decoder's first token) or
        'suffix' [E; P].
      head_kind: 'step', a logit per time step, or 'window', a logit per window.
      pooling: how a window head pools: 'mean' over the real steps, 'last' real step, 'cls' (needs 'after_cls'); or,
        like PEFT, the 'peft_first' or 'peft_last' position of the sequence, padding included.
      patch: consecutive steps in a position of the backbone, whose vectors are averaged and whose logits are equal.
      plain: disables shortcuts. By default, a decoder computes the prefix once per batch instead of once per window,
        and the last layer computes only the hidden states that are read; neither changes results.
    """

    backbone: nn.Module
    hidden: int
    rows: int
    prompt_length: int
    views: int = 1
    prompt_position: str = "prefix"
    head_kind: str = "step"
    pooling: str = "mean"
    patch: int = 1
    plain: bool = False

    def setup(self) -> None:  # noqa: D102
        if self.prompt_length:
            self.prompt = SoftPrompt(self.prompt_length, self.hidden)
        self.embedding = Embedding(self.rows, self.hidden, self.views)
        if self.prompt_position == "after_cls":
            self.cls = Embedding(1, self.hidden)
        self.head = nn.Dense(1, kernel_init=nn.initializers.normal(0.02))

    def __call__(
        self, bins: Int[Array, "batch time *views"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time"]:
        """Computes the logits of 'anomalous'.

        Returns:
          A logit per time step; a window head repeats its logit at each of them.
        """
        logits = self.head(self.features(bins, mask))[..., 0]
        return jnp.broadcast_to(logits, mask.shape)

    def features(
        self, bins: Int[Array, "batch time *views"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch reads hidden"]:
        """Computes the head's inputs, in float32: the hidden state of each step, or one pooled vector per window."""
        steps = self.embedding(bins)
        if self.patch > 1:
            steps, mask = average_patches(steps, mask, self.patch)
        before, after = self._surroundings()
        head_input = self.pooling if self.head_kind == "window" else "step"
        positions = positions_to_read(mask, head_input, len(before), len(after))
        if self._shares_prefix(before, positions):
            states = self.backbone(steps, mask, None, positions, before)
        else:
            inputs = (
                combine(before, steps, after),
                extend_mask(mask, len(before), len(after)),
                suffix_positions(mask, len(after)) if len(after) else None,
            )
            positions = shift_positions(positions, len(before))
            states = take(self.backbone(*inputs), positions) if self.plain else self.backbone(*inputs, positions)
        states = states.astype(jnp.float32)
        if head_input == "mean":
            return mean_over_steps(states, mask)
        return jnp.repeat(states, self.patch, axis=1) if head_input == "step" else states

    def _surroundings(self) -> tuple[Float[Array, "before hidden"], Float[Array, "after hidden"]]:
        """Returns the vectors before and after the time steps."""
        nothing = jnp.zeros((0, self.hidden))
        prompt = self.prompt() if self.prompt_length else nothing
        if self.prompt_position == "suffix":
            return nothing, prompt
        if self.prompt_position == "after_cls":
            return jnp.concatenate([self.cls(jnp.zeros((1, 1), jnp.int32))[0], prompt]), nothing
        return prompt, nothing

    def _shares_prefix(self, before: Float[Array, "before hidden"], positions: Selection) -> bool:
        """Returns whether the backbone can compute the prefix once for all windows.

        This needs causal attention, so that the prefix does not depend on the window, and a head input outside the
        prefix.
        """
        reads_prefix = isinstance(positions, tuple) and positions[0] < 0
        return (
            bool(len(before))
            and isinstance(self.backbone, Decoder)
            and self.backbone.causal
            and not (reads_prefix or self.plain)
        )


def merge(trainable: Params, frozen: Params) -> Params:
    """Merges the two trees into the variables of a module; no gradient ever reaches the frozen one.

    If both contain a part of the same name (LoRA's matrices are inside the backbone), their leaves are combined.
    """
    parts = traverse_util.flatten_dict(jax.lax.stop_gradient(frozen)) | traverse_util.flatten_dict(trainable)
    return {"params": traverse_util.unflatten_dict(parts)}
