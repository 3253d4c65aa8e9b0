"""Makes a backbone's parameters, from a checkpoint in any of its family's spellings or at random."""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Float, Int

from spear_jax.backbones.attention import to_int8
from spear_jax.backbones.weights.naming import Naming
from spear_jax.backbones.weights.tensors import Checkpoint, Tensor
from spear_jax.errors import InputError

Params = dict[str, Any]
"""A nested dict of arrays."""

Put = Callable[[np.ndarray], Any]
"""Moves a finished array to its destination: host memory or devices."""


def param_shapes(module: nn.Module, hidden_size: int) -> Params:
    """Returns a backbone's parameters as a tree of `jax.ShapeDtypeStruct`, without computing anything."""
    embeddings = jax.ShapeDtypeStruct((1, 1, hidden_size), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, 1), jnp.bool_)
    return jax.eval_shape(module.init, jax.random.key(0), embeddings, mask)["params"]


def map_checkpoint(
    checkpoint: Checkpoint,
    naming: Naming,
    module: nn.Module,
    *,
    layers: int,
    table: tuple[int, int],
    int8: str,
    put: Put,
) -> tuple[Params, Tensor]:
    """Maps a checkpoint to a module's parameters and the word table.

    Parameters are read, cast and put one at a time, and their pages are released, so that memory holds little more than
    the result.

    Args:
      checkpoint: the files.
      naming: names of the parameters in the files.
      module: the module; its dtypes are the targets.
      layers: number of layers.
      table: rows and columns of the word table.
      int8: see `Linear`.
      put: moves each parameter to its destination.

    Returns:
      The parameters, and the word table as stored in the files.

    Raises:
      InputError: tensors are missing, unexpected, of the wrong shape or dtype, or spelled twice.
    """
    tensors = _plain_names(checkpoint, naming)
    shapes = traverse_util.flatten_dict(param_shapes(module, table[1]), sep="/")
    wanted: dict[str, tuple[int, ...]] = {naming.word_table: table}
    sources = {path: naming.sources(path, layers) for path in shapes if not path.endswith("kernel_scale")}
    for path, layer_sources in sources.items():
        shape = shapes[path].shape[1:] if path.startswith("layers/") else shapes[path].shape
        if path.endswith("kernel"):
            shape = (shape[-1], *shape[:-1])  # a checkpoint holds (out, in)
        for source in layer_sources:
            if source.module:
                wanted[source.module] = (shape[0] * source.parts, *shape[1:])
    _check_tensors(tensors, wanted, checkpoint)

    params = {}
    for path, layer_sources in sources.items():
        values = np.empty(shapes[path].shape, shapes[path].dtype)
        scales = np.empty(shapes[f"{path}_scale"].shape, np.float32) if f"{path}_scale" in shapes else None
        for i, source in enumerate(layer_sources):
            where: Any = i if path.startswith("layers/") else ...
            if not source.module:
                values[where] = 1  # a norm that the first layer lacks; it is never used
                continue
            part = np.split(np.asarray(tensors[source.module]), source.parts)[source.part]
            if path.endswith("kernel"):
                part = part.T
            if scales is not None:
                values[where], scales[where] = to_int8(part, int8)
            else:
                values[where] = part
        check_finite(f"backbone.{path}", values if scales is None else scales)
        params[path] = put(values)
        if scales is not None:
            params[f"{path}_scale"] = put(scales)
        checkpoint.release()
    return traverse_util.unflatten_dict(params, sep="/"), tensors[naming.word_table]


def _plain_names(checkpoint: Checkpoint, naming: Naming) -> dict[str, Tensor]:
    """Returns the tensors by the names that `naming` uses, without unused ones."""
    tensors: dict[str, Tensor] = {}
    spellings: dict[str, str] = {}
    for spelling, tensor in checkpoint.tensors.items():
        name = naming.plain(spelling)
        if re.fullmatch(naming.unused, name):
            continue
        if name in tensors:
            raise InputError(
                f"{checkpoint.source}: the tensors {spellings[name]!r} and {spelling!r} are two spellings of one"
                " parameter"
            )
        tensors[name], spellings[name] = tensor, spelling
    return tensors


def _check_tensors(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], checkpoint: Checkpoint
) -> None:
    problems = {
        "missing": [name for name in shapes if name not in tensors],
        "unexpected": [name for name in tensors if name not in shapes],
        "of the wrong shape": [
            f"{name} {tensors[name].shape} instead of {shape}"
            for name, shape in shapes.items()
            if name in tensors and tensors[name].shape != shape
        ],
        "not float16, float32 or bfloat16": [
            f"{name} {tensors[name].dtype}"
            for name in shapes
            if name in tensors and tensors[name].dtype not in (np.float16, np.float32, ml_dtypes.bfloat16)
        ],
    }
    lines = [f"{len(names)} {problem}: {_first(names)}" for problem, names in problems.items() if names]
    if lines:
        raise InputError(f"{checkpoint.source}: the tensors do not fit the model that is described: {'; '.join(lines)}")


def _first(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


class RandomTable:
    """An untrained word table: normal rows with standard deviation 0.02, drawn on use; equal seeds give equal rows."""

    def __init__(self, rows: int, columns: int, seed: int) -> None:
        self.shape = (rows, columns)
        self._seed = seed

    def __getitem__(self, ids: Int[np.ndarray, "*shape"] | slice) -> Float[np.ndarray, "*shape columns"]:
        """Returns rows by token id, in float32."""
        tokens = np.arange(*ids.indices(self.shape[0])) if isinstance(ids, slice) else np.asarray(ids)
        distinct, inverse = np.unique(tokens.reshape(-1), return_inverse=True)
        rows = np.empty((len(distinct), self.shape[1]), np.float32)
        for row, token in zip(rows, distinct, strict=True):
            rng = np.random.default_rng((self._seed, 1, int(token)))
            row[:] = np.float32(0.02) * rng.standard_normal(self.shape[1], np.float32)
        return rows[inverse].reshape(*tokens.shape, self.shape[1])


def random_params(
    module: nn.Module,
    hidden_size: int,
    *,
    seed: int,
    norm_start: float = 1.0,
    int8: str = "none",
    put: Put = lambda array: array,
) -> tuple[Params, str]:
    """Draws untrained parameters: normal with standard deviation 0.02; norms are the identity and biases 0.

    Args:
      module: the module.
      hidden_size: size of its embeddings.
      seed: equal seeds give equal parameters, in any dtype.
      norm_start: the weight of a norm that is the identity; 0 if it is added to 1.
      int8: see `Linear`.
      put: moves each parameter to its destination.

    Returns:
      The parameters, and the sha256 of the numbers drawn, before any cast.
    """
    digest = hashlib.sha256()
    rng = np.random.default_rng(seed)
    shapes = traverse_util.flatten_dict(param_shapes(module, hidden_size), sep="/")
    params = {}
    for path, leaf in sorted(shapes.items()):
        if path.endswith("kernel_scale"):
            continue
        values = np.empty(leaf.shape, leaf.dtype)
        if path.endswith(("scale", "bias")):
            values[...] = norm_start if path.endswith("scale") else 0
            params[path] = put(values)
            continue
        scales = np.empty(shapes[f"{path}_scale"].shape, np.float32) if f"{path}_scale" in shapes else None
        # One layer at a time, so that memory holds little more than the result.
        for i in range(len(values)) if path.startswith("layers/") else [...]:
            drawn = np.float32(0.02) * rng.standard_normal(values[i].shape, np.float32)
            digest.update(f"{path} {drawn.shape}".encode())
            digest.update(drawn.data)
            if scales is None:
                values[i] = drawn
            else:
                values[i], scales[i] = to_int8(drawn, int8)
        params[path] = put(values)
        if scales is not None:
            params[f"{path}_scale"] = put(scales)
    return traverse_util.unflatten_dict(params, sep="/"), digest.hexdigest()


def check_finite(name: str, array: np.ndarray) -> None:
    """Checks that parameters are finite numbers, part by part, since a stack of layers may take gigabytes."""
    flat, part = array.reshape(-1), 2**22
    if not all(np.isfinite(flat[first : first + part]).all() for first in range(0, len(flat), part)):
        raise InputError(f"the parameters {name} of the model are not all finite; a file of weights is damaged")
