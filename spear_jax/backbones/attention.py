"""Implements attention, linear layers and the stack of layers, which all backbones share."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped

from spear_jax.errors import InputError
from spear_jax.parallel import gather

INT8_GROUPS = {"none": 0, "channel": 0, "grouped": 32}
"""`backbone.int8` -> number of rows of a kernel that share a scale; 0 means all."""

LORA_ON = ("query", "value")  # the layers that Hu et al. found sufficient


class Linear(nn.Module):
    """A linear layer y = x W + b, with weights in `dtype` or in int8.

    int8 weights are symmetric around 0: W is `kernel` times `kernel_scale`, with one scale per output channel, or one
    per output channel and group of 32 input rows, which follows outliers more closely.

    Attributes:
      features: size of the output.
      dtype: dtype of the product.
      use_bias: whether to add b.
      int8: 'none', 'channel' or 'grouped'.
      lora_rank: r of a low-rank update x A B of the product (Hu et al., 2021, arXiv:2106.09685); 0 means none. A is
        initialized with normal numbers and B with 0, so that nothing changes before training.
    """

    features: int
    dtype: DTypeLike = jnp.float32
    use_bias: bool = True
    int8: str = "none"
    lora_rank: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "*batch rows"]) -> Float[Array, "*batch features"]:
        """Applies the layer; the result is in `dtype`."""
        rows = x.shape[-1]
        x = x.astype(self.dtype)
        init = nn.initializers.normal(0.02)
        if self.int8 == "none":
            y = x @ gather(self.param("kernel", init, (rows, self.features), self.dtype).astype(self.dtype))
        else:
            kernel = gather(self.param("kernel", nn.initializers.zeros, (rows, self.features), jnp.int8))
            kernel = kernel.astype(self.dtype)
            groups = int8_groups(self.int8, rows)
            scale = self.param("kernel_scale", nn.initializers.ones, (groups, self.features)).astype(self.dtype)
            if groups == 1:  # a single scale per output channel can be applied after the product
                y = (x @ kernel) * scale[0]
            else:
                y = x @ (kernel.reshape(groups, -1, self.features) * scale[:, None]).reshape(rows, self.features)
        if self.lora_rank:
            a = self.param("lora_a", nn.initializers.normal(rows**-0.5), (rows, self.lora_rank)).astype(self.dtype)
            b = self.param("lora_b", nn.initializers.zeros, (self.lora_rank, self.features)).astype(self.dtype)
            y = y + (x @ a) @ b
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y


def int8_groups(int8: str, rows: int) -> int:
    """Returns the number of groups of a kernel's rows; 1 if the rows do not divide evenly."""
    size = INT8_GROUPS[int8]
    return rows // size if size and rows % size == 0 else 1


def to_int8(
    kernel: Float[np.ndarray, "rows features"], int8: str
) -> tuple[Int[np.ndarray, "rows features"], Float[np.ndarray, "groups features"]]:
    """Quantizes weights to the kernel and scales of `Linear`: the largest weight of a group becomes 127."""
    rows, features = kernel.shape
    groups = int8_groups(int8, rows)
    quantized = np.empty((rows, features), np.int8)
    scales = np.empty((groups, features), np.float32)
    for start in range(0, features, 1024):  # a block at a time: a large kernel in float32 is hundreds of megabytes
        block = np.asarray(kernel[:, start : start + 1024], np.float32).reshape(groups, rows // groups, -1)
        scale = np.abs(block).max(axis=1) / 127
        scales[:, start : start + 1024] = scale
        steps = np.rint(block / np.where(scale > 0, scale, 1)[:, None])
        quantized[:, start : start + 1024] = steps.reshape(rows, -1)
    return quantized, scales


def attend(
    query: Float[Array, "batch queries heads size"],
    key: Float[Array, "batch keys kv_heads size"],
    value: Float[Array, "batch keys kv_heads size"],
    allowed: Bool[Array, "#batch #queries keys"],
    *,
    scale: float,
    soft_cap: float = 0.0,
    weights: bool = False,
) -> tuple[Float[Array, "batch queries heads*size"], Float[Array, "batch queries keys"] | None]:
    """Computes scaled dot-product attention (Vaswani et al., 2017, equation 1).

    On a GPU, cuDNN's kernel is used where it can be; everywhere else, XLA compiles the formula.

    Args:
      query: the queries; heads that share a key/value head are adjacent (grouped queries, arXiv:2305.13245).
      key: the keys.
      value: the values.
      allowed: the keys that each query attends to; the result of a query with none is meaningless (the mean value).
      scale: factor of the inner products.
      soft_cap: c bounds the scaled products by c tanh(x / c) (Gemma 2); 0 means no bound.
      weights: whether to return the weights too, which cuDNN cannot.

    Returns:
      The weighted values, heads concatenated, in the dtype of `value`; and the weights, in float32, averaged over the
      heads, or None.
    """
    if not weights and not soft_cap and cudnn_can(query):
        return attend_fused(query, key, value, allowed, scale=scale, implementation="cudnn"), None
    batch, queries, heads, size = query.shape
    shared = key.shape[2]
    # Heads stand before positions, and the sum of the softmax divides the attended values instead of the weights: on a
    # CPU, forward and gradient take .82 times as long as in the textbook order (MiniLM's layer, float32).
    query = jnp.moveaxis((query * scale).reshape(batch, queries, shared, heads // shared, size), 1, 3)
    key, value = jnp.moveaxis(key, 1, 2), jnp.moveaxis(value, 1, 2)
    logits = jnp.einsum("bngqd,bnkd->bngqk", query, key, preferred_element_type=jnp.float32)
    if soft_cap:
        logits = soft_cap * jnp.tanh(logits / soft_cap)
    # The lowest finite number, not -inf: a fully masked row must not become NaN.
    logits = jnp.where(allowed[:, None, None], logits, jnp.finfo(jnp.float32).min)
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))  # the quotient does not depend on it
    shares = jnp.exp(logits - largest)
    total = jnp.sum(shares, axis=-1, keepdims=True)
    attended = jnp.einsum("bngqk,bnkd->bngqd", shares.astype(value.dtype), value, preferred_element_type=jnp.float32)
    attended = jnp.moveaxis((attended / total).astype(value.dtype), 3, 1)
    attended = attended.reshape(batch, queries, heads * size)
    return attended, jnp.mean(shares / total, axis=(1, 2)) if weights else None


def on_gpu() -> bool:
    """Returns whether programs are compiled for a GPU."""
    return jax.default_backend() == "gpu"


def on_recent_gpu() -> bool:
    """Returns whether programs are compiled for a GPU of NVIDIA's, from Ampere on, which multiplies in bfloat16."""
    # NVIDIA's GPUs have a number, '7.5' for a T4, AMD's a name.
    capability = str(getattr(jax.local_devices()[0], "compute_capability", "")).split(".")[0] if on_gpu() else ""
    return capability.isdigit() and int(capability) >= 8


def cudnn_can(query: Float[Array, "batch queries heads size"]) -> bool:
    """Returns whether the GPU, if there is one, has cuDNN's kernel for such queries.

    Heads of more than 128 were not measured.
    """
    return (
        on_recent_gpu()
        and query.dtype in (jnp.bfloat16, jnp.float16)
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 128
    )


def attend_fused(
    query: Float[Array, "batch queries heads size"],
    key: Float[Array, "batch keys kv_heads size"],
    value: Float[Array, "batch keys kv_heads size"],
    allowed: Bool[Array, "#batch #queries keys"],
    *,
    scale: float,
    implementation: Literal["cudnn", "xla"],
) -> Float[Array, "batch queries heads*size"]:
    """Computes the same as `attend` through jax.nn; with its gradient cuDNN takes .54 times as long (MiniLM, H200).

    cuDNN takes a mask for every pair of positions and, with a gradient, only even numbers of them.
    """
    batch, queries, heads, size = query.shape
    keys = key.shape[1]
    allowed = jnp.broadcast_to(allowed, (batch, queries, keys))
    query, key, value = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (query, key, value))
    allowed = jnp.pad(allowed, ((0, 0), (0, queries % 2), (0, keys % 2)))
    attended = jax.nn.dot_product_attention(
        query, key, value, mask=allowed[:, None], scale=scale, implementation=implementation
    )
    return attended[:, :queries].reshape(batch, queries, heads * size)


Selection = tuple[int, int] | Int[Array, "batch selected"] | None
"""Positions of each window: a span (first, one past the last), indices for each window, or all (None)."""


def take(x: Shaped[Array, "#batch sequence *rest"], selection: Selection) -> Shaped[Array, "batch selected *rest"]:
    """Takes the selected positions."""
    if selection is None:
        return x
    if isinstance(selection, tuple):
        return x[:, selection[0] : selection[1]]
    x = jnp.broadcast_to(x, (len(selection), *x.shape[1:]))
    return jnp.take_along_axis(x, selection.reshape(*selection.shape, *[1] * (x.ndim - 2)), axis=1)


def split_selection(selection: Selection) -> tuple[tuple[int, int] | None, Int[Array, "batch selected"] | None]:
    """Splits a selection into a span, a static attribute of a layer, and indices, an input of the layer."""
    return (selection, None) if selection is None or isinstance(selection, tuple) else (None, selection)


def check_sequence(length: int, max_positions: int) -> None:
    """Checks that a sequence is not too long."""
    if length > max_positions:
        raise InputError(
            f"a sequence of {length} positions (prompt and window together) does not fit: the backbone has"
            f" {max_positions}"
        )


def stacked(layer: type[nn.Module], *, scanned: int, in_axes: Any, remat: bool, unroll: int | bool) -> tuple[Any, Any]:
    """Builds the class of all layers but the last, and the class of the last.

    On a CPU or TPU the backward pass keeps the results of the linear layers and recomputes attention weights,
    activations and norms: less than half the memory for 2 % more time (MiniLM, 2 CPU cores). On a GPU it keeps
    everything and the layers are written out one after the other, since a loop copies what it keeps.

    Args:
      layer: called with the hidden states first; returns the next ones and None.
      scanned: number of layers in the first class: one compiled body, with stacked parameters.
      in_axes: axes of the other arguments, see `nn.scan`.
      remat: whether to keep only a layer's input and recompute the rest.
      unroll: layers per step of the scan; True unrolls all.

    Returns:
      A class that runs the first `scanned` layers, and a class that runs one.
    """
    keep_all = on_gpu() and not remat
    policy = None if remat else jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    # Inside a scan XLA cannot merge a recomputed value with the first one, so no barrier (CSE) is needed.
    single = layer if keep_all else nn.remat(layer, prevent_cse=False, policy=policy)
    many = nn.scan(
        single,
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True},
        in_axes=in_axes,
        length=scanned,
        unroll=keep_all or unroll,
    )
    return many, single
