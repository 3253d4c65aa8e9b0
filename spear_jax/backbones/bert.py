"""BERT's encoder (Devlin et al., 2019, arXiv:1810.04805), from word embeddings to hidden states.

RoBERTa (arXiv:1907.11692) counts positions from another row, DistilBERT (arXiv:1910.01108) has no token types.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from spear_jax.backbones.attention import LORA_ON, Linear, Read, attend, stacked, take
from spear_jax.backbones.weights.config_json import Fields
from spear_jax.errors import InputError

# Field of BertConfig -> its name in a Hugging Face config.json.
_BERT_NAMES = {
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "vocabulary_size": "vocab_size",
    "positions": "max_position_embeddings",
}


_DISTILBERT_NAMES = _BERT_NAMES | {
    "hidden_size": "dim",
    "layers": "n_layers",
    "heads": "n_heads",
    "intermediate_size": "hidden_dim",
}


# Other values need code that is not built; a missing field means this one, as in transformers.
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
      layers: how many.
      heads: of attention; divides H.
      intermediate_size: between the two linear layers of a block.
      vocabulary_size: rows of the word table.
      positions: rows of the table of position embeddings.
      type_vocabulary_size: rows of the table of token types, of which the first is added everywhere; 0 means none.
      layer_norm_eps: of every LayerNorm.
      first_position: row of the first position; 2 in RoBERTa, whose rows 0 and 1 are taken.
      tied: the vocabulary's logits are read with the word table.
    """

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocabulary_size: int
    positions: int
    type_vocabulary_size: int
    layer_norm_eps: float
    first_position: int = 0
    tied: bool = True

    # See DecoderConfig.
    embedding_scale = 1.0
    final_soft_cap = 0.0
    causal = False
    masked = True

    @property
    def norm_eps(self) -> float:
        """As `layer_norm_eps`."""
        return self.layer_norm_eps

    @property
    def max_positions(self) -> int:
        """The longest sequence."""
        return self.positions - self.first_position

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> Self:
        """Reads the content of a Hugging Face config.json of model_type bert, roberta, xlm-roberta or distilbert.

        Args:
          content: the JSON object.
          where: the file it came from, for messages.

        Returns:
          The configuration.

        Raises:
          InputError: a field is missing or impossible, or a variant that is not built.
        """
        fields = Fields(content, where)
        distil = fields.get("model_type") == "distilbert"
        names = _DISTILBERT_NAMES if distil else _BERT_NAMES
        numbers = {field: fields.whole(name) for field, name in names.items()}
        for name, supported in ({"activation": "gelu"} if distil else _ONLY_SUPPORTED).items():
            fields.only(name, supported)
        config = cls(
            **numbers,
            type_vocabulary_size=0 if distil else fields.whole("type_vocab_size"),
            layer_norm_eps=1e-12 if distil else fields.small("layer_norm_eps"),
            first_position=fields.whole("pad_token_id", default=1, least=0) + 1
            if fields.get("model_type") in ("roberta", "xlm-roberta")
            else 0,
            tied=fields.flag("tie_word_embeddings", True),
        )
        if config.hidden_size % config.heads:
            raise InputError(
                f"{where}: {names['hidden_size']} = {config.hidden_size} is not divisible by {names['heads']} ="
                f" {config.heads}"
            )
        return config


class BertLayer(nn.Module):
    """Attention and a two-layer network, each added to its input and normalised after (post-LN).

    Attributes:
      config: the shape.
      dtype: of the products.
      int8: see `Linear`.
      lora_rank: of queries and values, see `Linear`.
      span: which positions' result is wanted, where they are the same ones in all windows; None means all.
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
        rows: Int[Array, "batch reads"] | None = None,
    ) -> tuple[Float[Array, "batch reads hidden"], None]:
        """The next layer's input, at the positions of `span` or `rows`, and nothing for the scan to collect."""
        config, read = self.config, self.span if rows is None else rows
        H = config.hidden_size

        def linear(features: int, name: str) -> Linear:
            rank = self.lora_rank if name in LORA_ON else 0
            return Linear(features, self.dtype, int8=self.int8, lora_rank=rank, name=name)

        def add_and_norm(branch: Array, residual: Array, name: str) -> Array:
            total = branch.astype(jnp.float32) + residual.astype(jnp.float32)
            return _layer_norm(config, name)(total).astype(self.dtype)

        def split(states: Array) -> Array:
            return states.reshape(*states.shape[:2], config.heads, H // config.heads)

        asking = take(x, read)
        attended, weights = attend(
            split(linear(H, "query")(asking)),
            split(linear(H, "key")(x)),
            split(linear(H, "value")(x)),
            allowed if allowed.shape[1] == 1 else take(allowed, read),
            scale=(H // config.heads) ** -0.5,
        )
        self.sow("intermediates", "attention", weights)
        x = add_and_norm(linear(H, "attention_output")(attended), asking, "attention_norm")
        inner = nn.gelu(linear(config.intermediate_size, "intermediate")(x), approximate=False)
        return add_and_norm(linear(H, "output")(inner), x, "output_norm"), None


class Bert(nn.Module):
    """The encoder, fed with word embeddings so that a soft prompt can stand in front of them.

    Attributes:
      config: the shape.
      dtype: of the matrix products and the result, float32 or bfloat16; LayerNorm and softmax are
        always float32.
      int8: of the kernels of linear layers, see `Linear`.
      causal: each position sees only itself and what stands before it; no BERT was trained so.
      remat: recompute each layer in the backward pass instead of keeping its activations.
      unroll: layers per step of the scan, True for all of them (XLA counts the FLOPs of a loop's
        body only once).
      lora_rank: of queries and values, see `Linear`.
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
        positions: Int[Array, "batch sequence"] | None = None,
        read: Read = None,
    ) -> Float[Array, "batch reads hidden"]:
        """Hidden states after the last layer.

        Args:
          embeddings: word-level vectors: nothing added to them, not normalised.
          mask: True at the positions that are attended to. The result at any other position is
            finite but means nothing.
          positions: of each vector, from 0; one from `max_positions` up makes its result NaN. None counts from 0.
          read: whose hidden states are wanted, as a stretch or as indices for each window; the last layer computes
            no others. None wants all.

        Returns:
          The last hidden states, in `dtype`.

        Raises:
          InputError: the sequence is longer than the position embeddings.
        """
        config = self.config
        length = embeddings.shape[1]
        if length > config.max_positions:
            raise InputError(
                f"a sequence of {length} positions (prompt and window together) does not fit: "
                f"the backbone has {config.max_positions}"
            )
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
        span, asked = (read, None) if read is None or isinstance(read, tuple) else (None, read)
        x, _ = layer(config, self.dtype, self.int8, self.lora_rank, span, name="last_layer")(x, allowed, asked)
        return x


def _layer_norm(config: BertConfig, name: str) -> nn.LayerNorm:
    # The fast variance E[x^2] - E[x]^2 cancels: BERT's hidden states have a few very large entries.
    return nn.LayerNorm(epsilon=config.layer_norm_eps, dtype=jnp.float32, use_fast_variance=False, name=name)
