"""Implements BERT's encoder (Devlin et al., 2019, arXiv:1810.04805), from word embeddings to hidden states.

RoBERTa (arXiv:1907.11692) counts positions from another row, DistilBERT (arXiv:1910.01108) has no token types.
"""

import dataclasses
from typing import Self

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from spear_jax.backbones.attention import (
    LORA_ON,
    Linear,
    Selection,
    attend,
    check_sequence,
    split_selection,
    stacked,
    take,
)
from spear_jax.backbones.weights.config_json import Fields
from spear_jax.errors import InputError

# Other values are not implemented.
_ONLY_SUPPORTED = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The shape of a BERT, RoBERTa or DistilBERT.

    Attributes:
      hidden_size: H.
      layers: number of layers.
      heads: number of attention heads; divides H.
      intermediate_size: width between the two linear layers of a block.
      vocabulary_size: rows of the word table.
      positions: rows of the table of position embeddings.
      type_vocabulary_size: rows of the table of token types, of which the first is added everywhere; 0 means no table.
      norm_eps: epsilon of every LayerNorm.
      first_position: row of the first position; 2 in RoBERTa, which reserves rows 0 and 1.
      tied: whether the output layer shares the word table.
    """

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocabulary_size: int
    positions: int
    type_vocabulary_size: int
    norm_eps: float
    first_position: int = 0
    tied: bool = True

    # As in DecoderConfig.
    embedding_scale = 1.0
    final_soft_cap = 0.0
    causal = False
    masked = True

    @property
    def max_positions(self) -> int:
        """Returns the length of the longest sequence."""
        return self.positions - self.first_position

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Reads the fields of a config.json of model_type bert, roberta, xlm-roberta or distilbert.

        Raises:
          InputError: a field is impossible, or asks for a variant that is not built.
        """
        family = fields.get("model_type")
        distilled = family == "distilbert"
        for name, supported in ({"activation": "gelu"} if distilled else _ONLY_SUPPORTED).items():
            fields.choice(name, (supported,), default=supported)
        config = cls(
            hidden_size=fields.integer("hidden_size"),
            layers=fields.integer("num_hidden_layers"),
            heads=fields.integer("num_attention_heads"),
            intermediate_size=fields.integer("hidden_dim" if distilled else "intermediate_size"),
            vocabulary_size=fields.integer("vocab_size"),
            positions=fields.integer("max_position_embeddings"),
            type_vocabulary_size=0 if distilled else fields.integer("type_vocab_size"),
            norm_eps=1e-12 if distilled else fields.number("layer_norm_eps", below=1),
            first_position=fields.integer("pad_token_id", least=0) + 1 if family in ("roberta", "xlm-roberta") else 0,
            tied=fields.get("tie_word_embeddings", True),
        )
        if config.hidden_size % config.heads:
            raise InputError(
                f"{fields.source}: hidden_size = {config.hidden_size} is not divisible by num_attention_heads ="
                f" {config.heads}"
            )
        return config


class BertLayer(nn.Module):
    """Attention and a two-layer network, each added to its input and then normalized (post-LN).

    `span` is the positions to compute, if they are the same in all windows, else None; for the rest see `Bert`.
    """

    config: BertConfig
    dtype: DTypeLike
    int8: str
    lora_rank: int = 0
    span: tuple[int, int] | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch sequence hidden"],
        allowed: Bool[Array, "batch #sequence sequence"],
        indices: Int[Array, "batch selected"] | None = None,
    ) -> tuple[Float[Array, "batch selected hidden"], None]:
        """Computes the layer's output at the positions of `span` or `indices`; the scan collects nothing (None)."""
        config, selection = self.config, self.span if indices is None else indices
        H = config.hidden_size

        def linear(features: int, name: str) -> Linear:
            rank = self.lora_rank if name in LORA_ON else 0
            return Linear(features, self.dtype, int8=self.int8, lora_rank=rank, name=name)

        def add_and_norm(branch: Array, residual: Array, name: str) -> Array:
            total = branch.astype(jnp.float32) + residual.astype(jnp.float32)
            return _layer_norm(config, name)(total).astype(self.dtype)

        def split(states: Array) -> Array:
            return states.reshape(*states.shape[:2], config.heads, H // config.heads)

        residual = take(x, selection)
        attended, weights = attend(
            split(linear(H, "query")(residual)),
            split(linear(H, "key")(x)),
            split(linear(H, "value")(x)),
            allowed if allowed.shape[1] == 1 else take(allowed, selection),
            scale=(H // config.heads) ** -0.5,
            weights=self.is_mutable_collection("intermediates"),
        )
        self.sow("intermediates", "attention", weights)
        x = add_and_norm(linear(H, "attention_output")(attended), residual, "attention_norm")
        inner = nn.gelu(linear(config.intermediate_size, "intermediate")(x), approximate=False)
        return add_and_norm(linear(H, "output")(inner), x, "output_norm"), None


class Bert(nn.Module):
    """The encoder. It takes word embeddings, so that a soft prompt can precede them.

    Attributes:
      config: the model's shape.
      dtype: dtype of the matrix products and hidden states, float32 or bfloat16; LayerNorm and softmax are always
        float32.
      int8: how int8 kernels are scaled, see `Linear`.
      causal: whether each position attends only to itself and to earlier ones; no BERT was trained this way.
      remat: whether the backward pass recomputes each layer instead of keeping its activations.
      unroll: layers per step of the scan; True unrolls all (XLA counts the FLOPs of a loop's body only once).
      lora_rank: rank of the update of queries and values, see `Linear`.
    """

    config: BertConfig
    dtype: DTypeLike = jnp.float32
    int8: str = "none"
    causal: bool = False
    remat: bool = False
    unroll: int | bool = 1
    lora_rank: int = 0

    @nn.compact
    def __call__(
        self,
        embeddings: Float[Array, "batch sequence hidden"],
        mask: Bool[Array, "batch sequence"],
        positions: Int[Array, "#batch sequence"] | None = None,
        selection: Selection = None,
    ) -> Float[Array, "batch selected hidden"]:
        """Computes the hidden states after the last layer.

        Args:
          embeddings: word embeddings, without positions and not normalized.
          mask: True at the positions attended to. Hidden states elsewhere are finite but meaningless.
          positions: position of each embedding, from 0; hidden states at `max_positions` and beyond are NaN. None
            counts from 0.
          selection: positions whose hidden states are returned; the last layer computes no others.

        Returns:
          The selected hidden states, in `dtype`.

        Raises:
          InputError: the sequence is longer than the position embeddings.
        """
        config = self.config
        length = embeddings.shape[1]
        check_sequence(length, config.max_positions)
        init = nn.initializers.normal(0.02)
        by_position = self.param("position_embeddings", init, (config.positions, config.hidden_size))
        rows = (jnp.arange(length) if positions is None else positions) + config.first_position
        x = embeddings.astype(jnp.float32) + jnp.take(by_position, rows, axis=0)
        if config.type_vocabulary_size:
            x = x + self.param("type_embeddings", init, (config.type_vocabulary_size, config.hidden_size))[0]
        x = _layer_norm(config, "embedding_norm")(x).astype(self.dtype)
        allowed = mask[:, None, :]
        if self.causal:
            rows = jnp.broadcast_to(rows, mask.shape)
            allowed = allowed & (rows[:, None, :] <= rows[:, :, None])

        layers, layer = stacked(
            BertLayer, scanned=config.layers - 1, in_axes=nn.broadcast, remat=self.remat, unroll=self.unroll
        )
        if config.layers > 1:
            x, _ = layers(config, self.dtype, self.int8, self.lora_rank, name="layers")(x, allowed)
        span, indices = split_selection(selection)
        x, _ = layer(config, self.dtype, self.int8, self.lora_rank, span, name="last_layer")(x, allowed, indices)
        return x


def _layer_norm(config: BertConfig, name: str) -> nn.LayerNorm:
    # The fast variance E[x^2] - E[x]^2 loses precision, since BERT's hidden states have a few very large entries.
    return nn.LayerNorm(epsilon=config.norm_eps, dtype=jnp.float32, use_fast_variance=False, name=name)
