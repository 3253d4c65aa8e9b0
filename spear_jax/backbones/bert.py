"""BERT's encoder (Devlin et al., 2019, arXiv:1810.04805), from word embeddings to hidden states."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from spear_jax.errors import InputError

Params = dict[str, Any]
"""A plain nested dict of arrays."""

# Field of BertConfig -> its name in a Hugging Face config.json.
_FIELD_NAMES = {
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "vocabulary_size": "vocab_size",
    "max_positions": "max_position_embeddings",
    "type_vocabulary_size": "type_vocab_size",
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
    """The shape of a BERT."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocabulary_size: int
    max_positions: int
    type_vocabulary_size: int
    layer_norm_eps: float

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], where: str) -> Self:
        """Reads the content of a Hugging Face config.json.

        Args:
          fields: the JSON object.
          where: the file it came from, for messages.

        Returns:
          The configuration.

        Raises:
          InputError: not a BERT, a field is missing or impossible, or a variant that is not built.
        """
        if fields.get("model_type") != "bert":
            raise InputError(f"{where}: model_type {fields.get('model_type')!r} is not supported (supported: 'bert')")
        for name in (*_FIELD_NAMES.values(), "layer_norm_eps"):
            if name not in fields:
                raise InputError(f"{where}: the field {name!r} is missing")
        for name in _FIELD_NAMES.values():
            value = fields[name]
            if type(value) is not int or value < 1:
                raise InputError(f"{where}: {name} = {value!r}, must be a whole number from 1 up")
        eps = fields["layer_norm_eps"]
        if type(eps) not in (int, float) or not 0 < eps < 1:
            raise InputError(f"{where}: layer_norm_eps = {eps!r}, must be between 0 and 1")
        for name, supported in _ONLY_SUPPORTED.items():
            if fields.get(name, supported) != supported:
                raise InputError(f"{where}: {name} = {fields[name]!r} is not supported (supported: {supported!r})")
        config = cls(
            **{field: fields[name] for field, name in _FIELD_NAMES.items()},
            layer_norm_eps=float(eps),
        )
        if config.hidden_size % config.heads:
            raise InputError(
                f"{where}: hidden_size = {config.hidden_size} is not divisible by num_attention_heads = {config.heads}"
            )
        return config


class SelfAttention(nn.Module):
    """Every position attends to every real position (Vaswani et al., 2017, equation 1)."""

    config: BertConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch sequence hidden"], mask: Bool[Array, "batch sequence"]
    ) -> Float[Array, "batch sequence hidden"]:
        """What each position gathers from the positions where `mask` is True."""
        B, S, H = x.shape
        heads = (B, S, self.config.heads, H // self.config.heads)
        query = nn.Dense(H, dtype=self.dtype, name="query")(x).reshape(heads)
        key = nn.Dense(H, dtype=self.dtype, name="key")(x).reshape(heads)
        value = nn.Dense(H, dtype=self.dtype, name="value")(x).reshape(heads)

        query = query * heads[-1] ** -0.5
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        # The lowest finite number, not -inf: a row with no real position must not become NaN.
        logits = jnp.where(mask[:, None, None, :], logits, jnp.finfo(jnp.float32).min)
        weights = nn.softmax(logits).astype(self.dtype)
        context = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(B, S, H)
        return nn.Dense(H, dtype=self.dtype, name="output")(context)


class BertLayer(nn.Module):
    """Attention and a two-layer network, each added to its input and normalised after (post-LN)."""

    config: BertConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch sequence hidden"], mask: Bool[Array, "batch sequence"]
    ) -> tuple[Float[Array, "batch sequence hidden"], None]:
        """The next layer's input, and nothing for the scan to collect."""

        def add_and_norm(branch: Array, residual: Array, name: str) -> Array:
            total = branch.astype(jnp.float32) + residual.astype(jnp.float32)
            return _layer_norm(self.config, name)(total).astype(self.dtype)

        attended = SelfAttention(self.config, self.dtype, name="attention")(x, mask)
        x = add_and_norm(attended, x, "attention_norm")
        inner = nn.Dense(self.config.intermediate_size, dtype=self.dtype, name="intermediate")(x)
        inner = nn.gelu(inner, approximate=False)
        outer = nn.Dense(self.config.hidden_size, dtype=self.dtype, name="output")(inner)
        return add_and_norm(outer, x, "output_norm"), None


class Bert(nn.Module):
    """The encoder, fed with word embeddings so that a soft prompt can stand in front of them.

    Position and type embeddings and the embedding LayerNorm are applied here, once, to every
    vector, prompt or not. There is no dropout, no pooler and no word table (only a few of its rows
    are ever needed: `pretrained.py`).

    Attributes:
      config: the shape.
      dtype: of the matrix products and the result, float32 or bfloat16; LayerNorm and softmax are
        always float32.
      remat: recompute each layer in the backward pass instead of keeping its activations.
      unroll: layers per step of the scan, True for all of them (XLA counts the FLOPs of a loop's
        body only once).
    """

    config: BertConfig
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    unroll: int | bool = 1

    @nn.compact
    def __call__(
        self,
        embeddings: Float[Array, "batch sequence hidden"],
        mask: Bool[Array, "batch sequence"],
        positions: Int[Array, "batch sequence"] | None = None,
    ) -> Float[Array, "batch sequence hidden"]:
        """Hidden states after the last layer.

        Args:
          embeddings: word-level vectors: nothing added to them, not normalised.
          mask: True at the positions that are attended to. The result at any other position is
            finite but means nothing.
          positions: index into the position embeddings; one beyond `max_positions` makes its result
            NaN. None counts from 0.

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
        by_position = self.param("position_embeddings", init, (config.max_positions, config.hidden_size))
        by_type = self.param("type_embeddings", init, (config.type_vocabulary_size, config.hidden_size))
        added = by_position[:length] if positions is None else jnp.take(by_position, positions, axis=0)
        x = embeddings.astype(jnp.float32) + added + by_type[0]
        x = _layer_norm(config, "embedding_norm")(x).astype(self.dtype)

        # The backward pass keeps the results of the linear layers and recomputes attention weights,
        # GELU and LayerNorm: less than half the memory for 2 % more time (MiniLM, 2 CPU cores).
        # With `remat` it keeps a layer's input only. Inside a scan XLA cannot merge a recomputed
        # value with the first one, so no barrier (CSE) is needed.
        kept = None if self.remat else jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        layer = nn.remat(BertLayer, prevent_cse=False, policy=kept)
        layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=config.layers,
            unroll=self.unroll,
        )
        x, _ = layers(config, self.dtype, name="layers")(x, mask)
        return x


def _layer_norm(config: BertConfig, name: str) -> nn.LayerNorm:
    # The fast variance E[x^2] - E[x]^2 cancels: BERT's hidden states have a few very large entries.
    return nn.LayerNorm(epsilon=config.layer_norm_eps, dtype=jnp.float32, use_fast_variance=False, name=name)


def param_shapes(config: BertConfig) -> Params:
    """`Bert`'s parameters as a tree of `jax.ShapeDtypeStruct`, float32; nothing is computed."""
    embeddings = jax.ShapeDtypeStruct((1, 1, config.hidden_size), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, 1), jnp.bool_)
    return jax.eval_shape(Bert(config).init, jax.random.key(0), embeddings, mask)["params"]


def random_params(config: BertConfig, seed: int) -> Params:
    """Untrained parameters, as BERT starts: normal with standard deviation 0.02, norms 1, biases 0.

    Args:
      config: the shape.
      seed: equal seeds give equal parameters.

    Returns:
      Parameters of `Bert`, NumPy float32.
    """
    rng = np.random.default_rng(seed)
    drawn = {}
    for path, leaf in sorted(traverse_util.flatten_dict(param_shapes(config)).items()):
        if path[-1] == "scale":
            drawn[path] = np.ones(leaf.shape, np.float32)
        elif path[-1] == "bias":
            drawn[path] = np.zeros(leaf.shape, np.float32)
        else:
            drawn[path] = np.float32(0.02) * rng.standard_normal(leaf.shape, np.float32)
    return traverse_util.unflatten_dict(drawn)
