"""Implements one decoder for Gemma, Llama and Qwen, and for ModernBERT, which has the same parts."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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
from spear_jax.backbones.weights.decoder_config import DecoderConfig

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": nn.silu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
}


class RMSNorm(nn.Module):
    """Root mean square normalization x / sqrt(mean(x^2) + eps) times a weight (arXiv:1910.07467), in float32.

    Attributes:
      eps: added to the mean square.
      plus_one: whether the weight is stored as its difference from 1 (Gemma).
    """

    eps: float
    plus_one: bool

    @nn.compact
    def __call__(self, x: Float[Array, "*batch size"]) -> Float[Array, "*batch size"]:
        """Normalizes vectors; the result is float32."""
        x = x.astype(jnp.float32)
        init = nn.initializers.zeros if self.plus_one else nn.initializers.ones
        scale = self.param("scale", init, (x.shape[-1],)) + float(self.plus_one)
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps) * scale


def _norm(config: DecoderConfig, name: str) -> nn.LayerNorm | RMSNorm:
    if config.norm == "layer":
        return nn.LayerNorm(
            epsilon=config.norm_eps, use_bias=config.norm_bias, dtype=jnp.float32, use_fast_variance=False, name=name
        )
    return RMSNorm(config.norm_eps, config.norm == "rms_plus_one", name=name)


def rotate(
    x: Float[Array, "batch sequence heads size"], angles: Float[Array, "#batch sequence pairs"]
) -> Float[Array, "batch sequence heads size"]:
    """Rotates coordinates i and i + size/2 of each head by the angle of its position."""
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


class SequenceContext(NamedTuple):
    """Rotary angles and attention masks, shared by all layers, for full and for sliding attention."""

    angles: Float[Array, "kinds #batch sequence pairs"]
    allowed: Bool[Array, "kinds batch sequence keys"]

    @classmethod
    def compute(
        cls,
        config: DecoderConfig,
        causal: bool,
        positions: Int[Array, "#batch sequence"],
        key_positions: Int[Array, "#batch keys"],
        key_mask: Bool[Array, "batch keys"],
    ) -> "SequenceContext":
        """Computes angles and masks, once for all layers."""
        size, slides = config.head_size, any(config.sliding)
        rotaries = (config.rotary, config.local_rotary) if slides else (config.rotary,)
        angles = [positions[..., None] * rotary.frequencies(size) for rotary in rotaries]
        distance = positions[:, :, None] - key_positions[:, None, :]
        allowed = key_mask[:, None, :] & ((distance >= 0) if causal else jnp.ones_like(distance, bool))
        by_kind = [allowed, allowed & (jnp.abs(distance) < config.window)] if slides else [allowed]
        return cls(jnp.stack(angles), jnp.stack(by_kind))

    def select(self, sliding: Int[Array, ""]) -> tuple[Array, Array]:
        """Selects angles and mask of a layer; `sliding` is 1 if its attention has a window, else 0."""
        if len(self.angles) == 1:
            return self.angles[0], self.allowed[0]
        angles, allowed = (jax.lax.dynamic_index_in_dim(leaf, sliding, keepdims=False) for leaf in self)
        return angles, allowed


def _contexts(
    config: DecoderConfig,
    causal: bool,
    positions: Int[Array, "#batch sequence"],
    mask: Bool[Array, "batch sequence"],
    prefix_length: int,
) -> tuple[SequenceContext, SequenceContext | None]:
    """Computes the context of the windows, which attend to the prefix and to themselves, and that of the prefix."""
    if not prefix_length:
        return SequenceContext.compute(config, causal, positions, positions, mask), None
    prefix_positions = jnp.arange(prefix_length)[None]
    prefix_mask = jnp.ones((1, prefix_length), bool)
    prefix = SequenceContext.compute(config, causal, prefix_positions, prefix_positions, prefix_mask)
    before = jnp.broadcast_to(prefix_positions, (len(positions), prefix_length))
    key_positions = jnp.concatenate([before, positions], axis=1)
    key_mask = jnp.concatenate([jnp.ones((len(mask), prefix_length), bool), mask], axis=1)
    return SequenceContext.compute(config, causal, positions, key_positions, key_mask), prefix


class LayerKind(NamedTuple):
    """The differences between layers.

    Attributes:
      sliding: 1 if the attention has a window, else 0.
      bare: True if the attention reads its input without a norm.
    """

    sliding: Int[Array, "*layers"]
    bare: Bool[Array, "*layers"]

    @classmethod
    def of_layers(cls, config: DecoderConfig) -> "LayerKind":
        """Returns the kinds of all layers."""
        first = np.arange(config.layers) == 0
        return cls(jnp.asarray(config.sliding, jnp.int32), jnp.asarray(first & (not config.first_attention_norm)))


def _linear_layers(config: DecoderConfig, dtype: DTypeLike, int8: str, lora_rank: int) -> dict[str, Linear]:
    shapes = {
        "query": (config.heads * config.head_size, config.attention_bias),
        "key": (config.key_value_heads * config.head_size, config.attention_bias),
        "value": (config.key_value_heads * config.head_size, config.attention_bias),
        "attention_output": (config.hidden_size, config.output_bias),
        "gate": (config.intermediate_size, config.mlp_bias),
        "up": (config.intermediate_size, config.mlp_bias),
        "down": (config.hidden_size, config.mlp_bias),
    }
    ranks = dict.fromkeys(LORA_ON, lora_rank)
    return {
        name: Linear(features, dtype, use_bias=bias, int8=int8, lora_rank=ranks.get(name, 0), name=name)
        for name, (features, bias) in shapes.items()
    }


def _norms(config: DecoderConfig) -> dict[str, nn.LayerNorm | RMSNorm]:
    names = ["attention_norm", "mlp_norm"]
    if config.post_norms:
        names += ["attention_post_norm", "mlp_post_norm"]
    if config.query_key_norm:
        names += ["query_norm", "key_norm"]
    return {name: _norm(config, name) for name in names}


class DecoderLayer(nn.Module):
    """Attention and a gated MLP, each applied to a normalized input (pre-LN) and added to the input.

    `span` is the positions to compute, if they are the same in all windows, else None; the `last` layer computes only
    keys and values of a prefix; for the rest see `Bert`.
    """

    config: DecoderConfig
    dtype: DTypeLike
    int8: str
    lora_rank: int = 0
    last: bool = False
    span: tuple[int, int] | None = None

    @nn.compact
    def __call__(
        self,
        states: tuple[Float[Array, "batch sequence hidden"], Float[Array, "1 prefix hidden"] | None],
        kind: LayerKind,
        context: SequenceContext,
        prefix_context: SequenceContext | None,
        indices: Int[Array, "batch selected"] | None = None,
    ) -> tuple[tuple[Float[Array, "batch selected hidden"], Float[Array, "1 prefix hidden"] | None], None]:
        """Applies the layer.

        Args:
          states: hidden states of each window, and of the prefix that all windows share.
          kind: the kind of this layer.
          context: context of the windows, which attend to the prefix and to themselves.
          prefix_context: context of the prefix, which attends only to itself.
          indices: positions to compute, if they differ between windows.

        Returns:
          The next hidden states; the scan collects nothing (None).
        """
        config, size = self.config, self.config.head_size
        selection = self.span if indices is None else indices
        x, prefix = states

        linear = _linear_layers(config, self.dtype, self.int8, self.lora_rank)
        norms = _norms(config)

        def normalized(name: str, x: Array) -> Array:
            return norms[name](x).astype(self.dtype) if name in norms else x

        def attention_input(x: Array) -> Array:
            normed = normalized("attention_norm", x)
            return normed if config.first_attention_norm else jnp.where(kind.bare, x, normed)

        def heads(x: Array, angles: Array, norm: str) -> Array:
            return rotate(normalized(norm, x.reshape(*x.shape[:2], -1, size)), angles)

        def keys_and_values(x: Array, angles: Array) -> tuple[Array, Array]:
            return heads(linear["key"](x), angles, "key_norm"), linear["value"](x).reshape(*x.shape[:2], -1, size)

        def block(
            x: Array, inputs: Array, angles: Array, keys: Array, values: Array, allowed: Array
        ) -> tuple[Array, Array | None]:
            queries = heads(linear["query"](inputs), angles, "query_norm")
            attended, weights = attend(
                queries,
                keys,
                values,
                allowed,
                scale=config.query_scale,
                soft_cap=config.attention_soft_cap,
                weights=self.is_mutable_collection("intermediates"),
            )
            x = x + normalized("attention_post_norm", linear["attention_output"](attended))
            inner = normalized("mlp_norm", x)
            gate = _ACTIVATIONS[config.activation](linear["gate"](inner))
            inner = linear["down"](gate * linear["up"](inner))
            return x + normalized("mlp_post_norm", inner), weights

        angles, allowed = context.select(kind.sliding)
        inputs = attention_input(x)
        keys, values = keys_and_values(inputs, angles)
        if prefix is not None:
            assert prefix_context is not None
            prefix_angles, prefix_allowed = prefix_context.select(kind.sliding)
            prefix_inputs = attention_input(prefix)
            shared = keys_and_values(prefix_inputs, prefix_angles)
            if not self.last:
                prefix, _ = block(prefix, prefix_inputs, prefix_angles, *shared, prefix_allowed)
            keys, values = (
                jnp.concatenate([jnp.broadcast_to(before, (len(x), *before.shape[1:])), own], axis=1)
                for before, own in zip(shared, (keys, values), strict=True)
            )
        x, weights = block(
            take(x, selection),
            take(inputs, selection),
            take(angles, selection),
            keys,
            values,
            take(allowed, selection),
        )
        self.sow("intermediates", "attention", weights)
        return (x, prefix), None


class Decoder(nn.Module):
    """The decoder. It takes word embeddings, so that a soft prompt can precede or follow them.

    The attributes are those of `Bert`. Norms, rotations and softmax are always float32.
    """

    config: DecoderConfig
    dtype: DTypeLike = jnp.float32
    int8: str = "none"
    causal: bool = True
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
        prefix: Float[Array, "prefix hidden"] | None = None,
    ) -> Float[Array, "batch selected hidden"]:
        """Computes the hidden states after the last norm.

        Args:
          embeddings: word embeddings, `embedding_scale` included.
          mask: True at the positions attended to. Hidden states elsewhere are finite but meaningless.
          positions: position of each embedding; None continues from the prefix.
          selection: positions whose hidden states are returned; the last layer computes no others.
          prefix: vectors that precede every window. In a causal model their keys and values do not depend on the
            window, so they are computed once per batch.

        Returns:
          The selected hidden states of `embeddings`, in `dtype`.

        Raises:
          InputError: the sequence is longer than the model's positions.
        """
        config = self.config
        prefix_length = 0 if prefix is None else len(prefix)
        check_sequence(prefix_length + embeddings.shape[1], config.max_positions)
        assert prefix is None or self.causal, "a prefix that attends to the window differs between windows"
        if positions is None:
            positions = prefix_length + jnp.arange(embeddings.shape[1])[None]
        embedding_norm = _norm(config, "embedding_norm") if config.embedding_norm else None

        def normalized(x: Array) -> Array:
            return (x if embedding_norm is None else embedding_norm(x)).astype(self.dtype)

        states = (normalized(embeddings), None if prefix is None else normalized(prefix[None]))
        context, prefix_context = _contexts(config, self.causal, positions, mask, prefix_length)

        layers, layer = stacked(
            DecoderLayer,
            scanned=config.layers - 1,
            in_axes=(0, nn.broadcast, nn.broadcast),
            remat=self.remat,
            unroll=self.unroll,
        )
        kinds = LayerKind.of_layers(config)
        if config.layers > 1:
            but_last = jax.tree.map(lambda leaf: leaf[:-1], kinds)
            stack = layers(config, self.dtype, self.int8, self.lora_rank, name="layers")
            states, _ = stack(states, but_last, context, prefix_context)
        kind = jax.tree.map(lambda leaf: leaf[-1], kinds)
        span, indices = split_selection(selection)
        last = layer(config, self.dtype, self.int8, self.lora_rank, True, span, name="last_layer")
        (x, _), _ = last(states, kind, context, prefix_context, indices)
        return _norm(config, "final_norm")(x).astype(self.dtype)
