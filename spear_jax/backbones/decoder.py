"""One decoder for Gemma, Llama and Qwen, and for ModernBERT, which is made of the same parts."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from spear_jax.backbones.attention import LORA_ON, Linear, Read, attend, stacked, take
from spear_jax.backbones.weights.decoder_config import DecoderConfig
from spear_jax.errors import InputError

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": nn.silu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
}


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) times a weight (arXiv:1910.07467), in float32.

    Attributes:
      eps: added to the mean square.
      plus_one: the weight is stored as its difference from 1 (Gemma).
    """

    eps: float
    plus_one: bool

    @nn.compact
    def __call__(self, x: Float[Array, "*batch size"]) -> Float[Array, "*batch size"]:
        """The normalised vectors, float32."""
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
    """Turns coordinate i of each head against coordinate i + size/2 by the angle of its position."""
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    one, other = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([one * cos - other * sin, other * cos + one * sin], axis=-1).astype(x.dtype)


class Sight(NamedTuple):
    """What all layers need to know of a sequence: where its vectors stand, and what they see.

    Attributes:
      angles: of the rotary embedding, in full and (if there are any) in sliding layers.
      allowed: which keys each vector sees, in full and (if there are any) in sliding layers.
    """

    angles: Float[Array, "kinds #batch sequence pairs"]
    allowed: Bool[Array, "kinds batch sequence keys"]

    @classmethod
    def of(
        cls,
        config: DecoderConfig,
        causal: bool,
        positions: Int[Array, "#batch sequence"],
        keys: Int[Array, "#batch keys"],
        mask: Bool[Array, "batch keys"],
    ) -> "Sight":
        """Worked out once, for all layers.

        Args:
          config: the model's shape.
          causal: nothing is seen that stands behind.
          positions: of the vectors.
          keys: positions of what they may look at.
          mask: True where there is something to look at.
        """
        size, slides = config.head_size, any(config.sliding)
        kinds = (config.rotary, config.local_rotary) if slides else (config.rotary,)
        angles = [positions[..., None] * kind.frequencies(size) for kind in kinds]
        distance = positions[:, :, None] - keys[:, None, :]
        seen = mask[:, None, :] & ((distance >= 0) if causal else jnp.ones_like(distance, bool))
        allowed = [seen, seen & (jnp.abs(distance) < config.window)] if slides else [seen]
        return cls(jnp.stack(angles), jnp.stack(allowed))

    def layer(self, sliding: Int[Array, ""]) -> "Sight":
        """What a layer uses of it; `sliding` is 1 where its attention has a window."""
        if len(self.angles) == 1:
            return Sight(self.angles[0], self.allowed[0])
        return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, sliding, keepdims=False), self)


class Kind(NamedTuple):
    """In what a layer differs from the others.

    Attributes:
      sliding: 1 where its attention has a window, else 0.
      bare: True where its attention reads its input without a norm.
    """

    sliding: Int[Array, "*layers"]
    bare: Bool[Array, "*layers"]

    @classmethod
    def of(cls, config: DecoderConfig) -> "Kind":
        """Of all layers."""
        first = np.arange(config.layers) == 0
        return cls(jnp.asarray(config.sliding, jnp.int32), jnp.asarray(first & (not config.first_attention_norm)))


class DecoderLayer(nn.Module):
    """Attention and a gated MLP, each reading a normalised input (pre-LN) and added to it.

    Attributes:
      config: the shape.
      dtype: of the products.
      int8: see `Linear`.
      lora_rank: of queries and values, see `Linear`.
      last: of a prefix only keys and values are wanted.
      span: which positions' result is wanted, where they are the same ones in all windows; None means all.
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
        kind: Kind,
        sight: Sight,
        prefix_sight: Sight | None,
        rows: Int[Array, "batch reads"] | None = None,
    ) -> tuple[tuple[Float[Array, "batch reads hidden"], Float[Array, "1 prefix hidden"] | None], None]:
        """One layer.

        Args:
          states: of each window, and of the prefix that all windows share.
          kind: in what this layer differs.
          sight: of the windows' vectors; its keys are the prefix' and their own.
          prefix_sight: of the prefix' vectors, which see only themselves.
          rows: which positions' result is wanted, where they differ between windows.

        Returns:
          The next layer's input, and nothing for the scan to collect.
        """
        config, size = self.config, self.config.head_size
        wanted = self.span if rows is None else rows
        x, prefix = states

        def linear(features: int, bias: bool, name: str) -> Linear:
            rank = self.lora_rank if name in LORA_ON else 0
            return Linear(features, self.dtype, use_bias=bias, int8=self.int8, lora_rank=rank, name=name)

        query = linear(config.heads * size, config.attention_bias, "query")
        key = linear(config.key_value_heads * size, config.attention_bias, "key")
        value = linear(config.key_value_heads * size, config.attention_bias, "value")
        output = linear(config.hidden_size, config.output_bias, "attention_output")
        gate = linear(config.intermediate_size, config.mlp_bias, "gate")
        up = linear(config.intermediate_size, config.mlp_bias, "up")
        down = linear(config.hidden_size, config.mlp_bias, "down")
        norms = {name: _norm(config, name) for name in ("attention_norm", "mlp_norm")}
        if config.post_norms:
            norms |= {name: _norm(config, name) for name in ("attention_post_norm", "mlp_post_norm")}
        if config.query_key_norm:
            norms |= {name: _norm(config, name) for name in ("query_norm", "key_norm")}

        def normalised(name: str, x: Array) -> Array:
            return norms[name](x).astype(self.dtype) if name in norms else x

        def attention_input(x: Array) -> Array:
            read = normalised("attention_norm", x)
            return read if config.first_attention_norm else jnp.where(kind.bare, x, read)

        def heads(x: Array, angles: Array, norm: str) -> Array:
            return rotate(normalised(norm, x.reshape(*x.shape[:2], -1, size)), angles)

        def keys_and_values(x: Array, angles: Array) -> tuple[Array, Array]:
            return heads(key(x), angles, "key_norm"), value(x).reshape(*x.shape[:2], -1, size)

        def block(
            x: Array, asking: Array, angles: Array, keys: Array, values: Array, allowed: Array
        ) -> tuple[Array, Array]:
            asked = heads(query(asking), angles, "query_norm")
            attended, weights = attend(
                asked, keys, values, allowed, scale=config.query_scale, soft_cap=config.attention_soft_cap
            )
            x = x + normalised("attention_post_norm", output(attended))
            inner = normalised("mlp_norm", x)
            inner = down(_ACTIVATIONS[config.activation](gate(inner)) * up(inner))
            return x + normalised("mlp_post_norm", inner), weights

        sight = sight.layer(kind.sliding)
        asking = attention_input(x)
        keys, values = keys_and_values(asking, sight.angles)
        if prefix is not None:
            assert prefix_sight is not None
            prefix_sight = prefix_sight.layer(kind.sliding)
            prefix_asking = attention_input(prefix)
            first = keys_and_values(prefix_asking, prefix_sight.angles)
            if not self.last:
                prefix, _ = block(prefix, prefix_asking, prefix_sight.angles, *first, prefix_sight.allowed)
            keys, values = (
                jnp.concatenate([jnp.broadcast_to(one, (len(x), *one.shape[1:])), other], axis=1)
                for one, other in zip(first, (keys, values), strict=True)
            )
        x, weights = block(
            take(x, wanted), take(asking, wanted), take(sight.angles, wanted), keys, values, take(sight.allowed, wanted)
        )
        self.sow("intermediates", "attention", weights)
        return (x, prefix), None


class Decoder(nn.Module):
    """The layers, fed with word embeddings so that a soft prompt can stand in front of them or behind.

    Attributes:
      config: the shape.
      dtype: of the matrix products and the result, float32 or bfloat16; norms, rotations and softmax are always
        float32.
      int8: of the kernels of linear layers, see `Linear`.
      causal: each position sees only itself and what stands before it.
      remat: recompute each layer in the backward pass instead of keeping its activations.
      unroll: layers per step of the scan, True for all of them.
      lora_rank: of queries and values, see `Linear`.
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
        positions: Int[Array, "batch sequence"] | None = None,
        read: Read = None,
        prefix: Float[Array, "prefix hidden"] | None = None,
    ) -> Float[Array, "batch reads hidden"]:
        """Hidden states after the last norm.

        Args:
          embeddings: word-level vectors, `embedding_scale` included.
          mask: True at the positions that are attended to. The result at any other position is finite but means
            nothing.
          positions: of each vector; None counts on from the prefix' last.
          read: whose hidden states are wanted, as a stretch or as indices for each window; the last layer computes
            no others. None wants all.
          prefix: vectors that stand in front of every window. In a causal model their keys and values do not depend
            on the window: they are computed once, not once per window.

        Returns:
          The last hidden states of `embeddings`, not of the prefix, in `dtype`.

        Raises:
          InputError: the sequence is longer than the model's positions.
        """
        config = self.config
        in_front = 0 if prefix is None else len(prefix)
        length = in_front + embeddings.shape[1]
        if length > config.max_positions:
            raise InputError(
                f"a sequence of {length} positions (prompt and window together) does not fit: "
                f"the backbone has {config.max_positions}"
            )
        assert prefix is None or self.causal, "a prefix that sees the window is another one for each window"
        if positions is None:
            positions = in_front + jnp.arange(embeddings.shape[1])[None]
        embedding_norm = _norm(config, "embedding_norm") if config.embedding_norm else None

        def start(x: Array) -> Array:
            return (x if embedding_norm is None else embedding_norm(x)).astype(self.dtype)

        x, shared, prefix_sight = start(embeddings), None, None
        keys = positions
        if prefix is not None:
            shared = start(prefix[None])
            counted = jnp.arange(in_front)[None]
            prefix_sight = Sight.of(config, self.causal, counted, counted, jnp.ones((1, in_front), bool))
            keys = jnp.concatenate([jnp.broadcast_to(counted, (len(positions), in_front)), positions], axis=1)
            mask = jnp.concatenate([jnp.ones((len(mask), in_front), bool), mask], axis=1)
        sight = Sight.of(config, self.causal, positions, keys, mask)

        layers, layer = stacked(
            DecoderLayer,
            scanned=config.layers - 1,
            in_axes=(0, nn.broadcast, nn.broadcast),
            remat=self.remat,
            unroll=self.unroll,
        )
        kinds = Kind.of(config)
        states = (x, shared)
        if config.layers > 1:
            but_last = jax.tree.map(lambda leaf: leaf[:-1], kinds)
            states, _ = layers(config, self.dtype, self.int8, self.lora_rank, name="layers")(
                states, but_last, sight, prefix_sight
            )
        kind = jax.tree.map(lambda leaf: leaf[-1], kinds)
        span, asked = (read, None) if read is None or isinstance(read, tuple) else (None, read)
        last = layer(config, self.dtype, self.int8, self.lora_rank, True, span, name="last_layer")
        (x, _), _ = last(states, kind, sight, prefix_sight, asked)
        return _norm(config, "final_norm")(x).astype(self.dtype)
