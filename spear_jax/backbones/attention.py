"""Attention, linear layers and the stack of layers, the same for every backbone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped

INT8_GROUPS = {"none": 0, "channel": 0, "grouped": 32}
"""`backbone.int8` -> rows of a kernel that share a scale; 0 means all of them."""


LORA_ON = ("query", "value")  # the layers that Hu et al. found to be enough


class Linear(nn.Module):
    """y = x W + b, the weights in `dtype` or in int8.

    int8 weights are symmetric around 0: W is `kernel` times `kernel_scale`, one scale per output channel, or per
    output channel and group of 32 input rows, which follows outliers closer.

    Attributes:
      features: of the output.
      dtype: of the product.
      use_bias: whether there is b.
      int8: 'none', 'channel' or 'grouped'.
      lora_rank: r of a low-rank addition x A B to the product (Hu et al., 2021, arXiv:2106.09685); 0 means none. A is
        normal and B is 0 to begin with, so that nothing changes before training.
    """

    features: int
    dtype: DTypeLike = jnp.float32
    use_bias: bool = True
    int8: str = "none"
    lora_rank: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "*batch rows"]) -> Float[Array, "*batch features"]:
        """The product, in `dtype`."""
        rows = x.shape[-1]
        x = x.astype(self.dtype)
        init = nn.initializers.normal(0.02)
        if self.int8 == "none":
            y = x @ self.param("kernel", init, (rows, self.features), self.dtype).astype(self.dtype)
        else:
            kernel = self.param("kernel", nn.initializers.zeros, (rows, self.features), jnp.int8).astype(self.dtype)
            groups = int8_groups(self.int8, rows)
            scale = self.param("kernel_scale", nn.initializers.ones, (groups, self.features)).astype(self.dtype)
            if groups == 1:  # one scale per output channel can wait until after the product
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
    """How many groups of a kernel's rows have scales of their own: 1 where they do not divide evenly."""
    size = INT8_GROUPS[int8]
    return rows // size if size and rows % size == 0 else 1


def to_int8(
    kernel: Float[np.ndarray, "rows features"], int8: str
) -> tuple[Int[np.ndarray, "rows features"], Float[np.ndarray, "groups features"]]:
    """`Linear`'s kernel and scales: the largest weight of a group becomes 127.

    Args:
      kernel: the weights.
      int8: 'channel' or 'grouped'.
    """
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
) -> tuple[Float[Array, "batch queries heads*size"], Float[Array, "batch queries keys"]]:
    """What each query gathers from the keys that it may see (Vaswani et al., 2017, equation 1).

    Args:
      query: heads in order of the key/value heads that they share (grouped queries, arXiv:2305.13245).
      key: as many heads as `value`.
      value: what is gathered.
      allowed: which keys a query sees; one that sees none gets the mean of all values, and means nothing.
      scale: of the inner products.
      soft_cap: c tanh(x / c) bounds the scaled products (Gemma 2); 0 means no bound.

    Returns:
      The gathered values, heads side by side, in the dtype of `value`; and the softmax, in float32, averaged over the
      heads, which is not computed where nobody uses it.
    """
    batch, queries, heads, size = query.shape
    shared = key.shape[2]
    query = (query * scale).reshape(batch, queries, shared, heads // shared, size)
    logits = jnp.einsum("bqngd,bknd->bngqk", query, key, preferred_element_type=jnp.float32)
    if soft_cap:
        logits = soft_cap * jnp.tanh(logits / soft_cap)
    # The lowest finite number, not -inf: a row with no real position must not become NaN.
    logits = jnp.where(allowed[:, None, None], logits, jnp.finfo(jnp.float32).min)
    weights = nn.softmax(logits)
    gathered = jnp.einsum("bngqk,bknd->bqngd", weights.astype(value.dtype), value)
    return gathered.reshape(batch, queries, heads * size), jnp.mean(weights, axis=(1, 2))


Read = tuple[int, int] | Int[Array, "batch reads"] | None
"""Which positions somebody reads: all (None), a stretch (first, behind the last), or some of each window by index."""


def take(x: Shaped[Array, "batch sequence *rest"], read: Read) -> Shaped[Array, "batch reads *rest"]:
    """The positions that somebody reads."""
    if read is None:
        return x
    if isinstance(read, tuple):
        return x[:, read[0] : read[1]]
    x = jnp.broadcast_to(x, (len(read), *x.shape[1:]))
    return jnp.take_along_axis(x, read.reshape(*read.shape, *[1] * (x.ndim - 2)), axis=1)


def stacked(layer: type[nn.Module], *, scanned: int, in_axes: Any, remat: bool, unroll: int | bool) -> tuple[Any, Any]:
    """A layer's class, as all but the last use it and as the last does.

    The backward pass keeps the results of the linear layers and recomputes attention weights, activations and norms:
    less than half the memory for 2 % more time (MiniLM, 2 CPU cores).

    Args:
      layer: called with the states first; returns the next ones and None.
      scanned: layers in the first class, run one after the other by one compiled body, their parameters stacked.
      in_axes: of the arguments behind the states, see `nn.scan`.
      remat: keep a layer's input only, and recompute all of it.
      unroll: layers per step of the scan, True for all of them.

    Returns:
      The first `scanned` layers as one class, and the class of a single one.
    """
    kept = None if remat else jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    # Inside a scan XLA cannot merge a recomputed value with the first one, so no barrier (CSE) is needed.
    single = nn.remat(layer, prevent_cse=False, policy=kept)
    many = nn.scan(
        single,
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True},
        in_axes=in_axes,
        length=scanned,
        unroll=unroll,
    )
    return many, single
