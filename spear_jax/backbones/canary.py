"""Checks that this machine computes a small layer, and the gradient of its prompt, as another implementation does."""

import functools
import importlib.resources
import io

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from spear_jax.backbones.bert import BertConfig, BertLayer
from spear_jax.backbones.weights.checkpoint import Params
from spear_jax.errors import InputError, one_line
from spear_jax.parallel import divide, place, replicated

SHAPE = BertConfig(
    hidden_size=64,
    layers=1,
    heads=4,
    intermediate_size=128,
    vocabulary_size=1,
    positions=32,
    type_vocabulary_size=2,
    norm_eps=1e-12,
)
PROMPT, LENGTHS = 4, (24, 24, 17, 9)
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}
"""Relative error above which numbers are wrong; bfloat16 alone makes up to 0.007."""


def fixed_numbers(seed: int, *shape: int) -> Float[np.ndarray, "..."]:
    """Returns numbers between -1 and 1 that are the same everywhere."""
    return np.sin(seed + 0.7 * np.arange(np.prod(shape)) ** 2).reshape(shape).astype(np.float32)


def example() -> tuple[Params, dict[str, Float[np.ndarray, "..."]], Bool[np.ndarray, "batch sequence"]]:
    """Returns the layer's parameters, the inputs (prompt, steps and the weights of the result), and the mask."""
    hidden, inner, length = SHAPE.hidden_size, SHAPE.intermediate_size, max(LENGTHS)
    rows = {"query": hidden, "key": hidden, "value": hidden, "attention_output": hidden, "output": inner}
    sizes = {name: (size, hidden) for name, size in rows.items()} | {"intermediate": (hidden, inner)}
    params: Params = {
        name: {"kernel": 0.3 * fixed_numbers(seed, *size), "bias": fixed_numbers(20 + seed, size[1])}
        for seed, (name, size) in enumerate(sizes.items())
    }
    for seed, name in enumerate(("attention_norm", "output_norm")):
        params[name] = {"scale": 1 + 0.3 * fixed_numbers(40 + seed, hidden), "bias": fixed_numbers(50 + seed, hidden)}
    inputs = {
        "prompt": fixed_numbers(100, PROMPT, hidden),
        "steps": fixed_numbers(101, len(LENGTHS), length, hidden),
        "weights": fixed_numbers(102, hidden),
    }
    return params, inputs, np.arange(PROMPT + length) < PROMPT + np.array(LENGTHS)[:, None]


def expected() -> dict[str, Float[np.ndarray, "..."]]:
    """Reads the numbers that torch computes: 'scores', a weighted sum of each state, and their 'gradient'."""
    content = importlib.resources.files(__package__).joinpath("canary.npz").read_bytes()
    with np.load(io.BytesIO(content)) as file:
        return dict(file)


@functools.cache
def check_numbers(dtype: str) -> None:
    """Checks once that the devices of this process compute right numbers in a dtype, each on its own.

    Compilers have been wrong without a word on some machines: jax issues 39103 (CPU) and 40633 (GPU).

    Raises:
      InputError: one cannot compute in this dtype, or computes other numbers.
    """
    params, inputs, mask = example()
    devices = jax.local_devices()
    kind = devices[0].device_kind

    def total(prompt: Array, rest: dict[str, Array]) -> tuple[Array, Array]:
        before = jnp.broadcast_to(prompt, (len(mask), *prompt.shape))
        states = jnp.concatenate([before, rest["steps"]], axis=1).astype(dtype)
        states, _ = BertLayer(SHAPE, jnp.dtype(dtype), "none").apply(
            {"params": params}, states, jnp.asarray(mask)[:, None]
        )
        scores = jnp.where(mask, states.astype(jnp.float32) @ rest["weights"], 0)
        return jnp.sum(scores**2), scores

    try:
        placed = place(inputs, replicated(divide(np.array(devices), 1)))
        with jax.default_matmul_precision("highest"):
            (_, scores), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(placed["prompt"], placed)
        jax.block_until_ready((scores, gradient))
    except Exception as error:  # its kind depends on the device's compiler
        reason = f"{type(error).__name__}: {one_line(error)}"[:200]
        raise InputError(f"backbone.dtype = {dtype!r}: the device {kind} cannot compute in it ({reason})") from error
    for name, right in expected().items():
        for shard in {"scores": scores, "gradient": gradient}[name].addressable_shards:
            difference = float(np.linalg.norm(np.asarray(shard.data) - right) / np.linalg.norm(right))
            if not difference <= TOLERANCE[dtype]:  # nor NaN
                raise InputError(
                    f"this machine computes wrong numbers: the {name} of a small layer in {dtype} on {shard.device}"
                    f" ({kind}) differ by {difference:.2g} of their size from what they are (jax {jax.__version__});"
                    " another version of jax or XLA_FLAGS may help, see docs/troubleshooting.md"
                )
