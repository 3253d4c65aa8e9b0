"""A backbone's parameters: out of a checkpoint in any of its family's spellings, or untrained."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Float, Int, Shaped

from spear_jax.backbones.attention import to_int8
from spear_jax.backbones.weights.naming import Naming, Source
from spear_jax.backbones.weights.weight_files import Checkpoint
from spear_jax.errors import InputError

Params = dict[str, Any]
"""A plain nested dict of arrays."""


Place = Callable[[np.ndarray], Any]
"""Takes an array that is done to where it stays: host memory, or devices."""


def param_shapes(module: nn.Module, hidden_size: int) -> Params:
    """A backbone's parameters as a tree of `jax.ShapeDtypeStruct`; nothing is computed."""
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
    place: Place,
) -> tuple[Params, Shaped[np.ndarray, "vocabulary hidden"]]:
    """A module's parameters and the word table, from a checkpoint.

    One parameter at a time is read, cast and placed, and its pages are given back, so that memory holds little more
    than what is kept.

    Args:
      checkpoint: the files.
      naming: how they spell the parameters.
      module: whose parameters are wanted; their dtypes are the targets.
      layers: how many it has.
      table: rows and columns of the word table.
      int8: see `Linear`.
      place: where parameters go.

    Returns:
      Parameters, and the word table as it lies in the files.

    Raises:
      InputError: tensors are missing, unexpected, of the wrong shape or dtype, or spelled twice.
    """
    tensors = _plain_names(checkpoint, naming)
    shapes = traverse_util.flatten_dict(param_shapes(module, table[1]), sep="/")
    wanted: dict[str, tuple[int, ...]] = {naming.word_table: table}
    sources = {path: naming.sources(path, layers) for path in shapes if not path.endswith("kernel_scale")}
    for path, found in sources.items():
        shape = _without_layers(path, shapes[path].shape)
        for source in found:
            if source.module:
                of_parts = (shape[-1] * source.parts, *shape[:-1]) if path.endswith("kernel") else None
                wanted[source.module] = of_parts or (shape[0] * source.parts, *shape[1:])
    _check_tensors(tensors, wanted, checkpoint)

    params = {}
    for path, found in sources.items():
        target = shapes[path]
        stacked = path.startswith("layers/")
        filled = np.empty(target.shape, target.dtype)
        scales = np.empty(shapes[f"{path}_scale"].shape, np.float32) if f"{path}_scale" in shapes else None
        for i, source in enumerate(found):
            where: Any = i if stacked else ...
            if not source.module:
                filled[where] = 1  # read by nobody
                continue
            part = _part(tensors[source.module], source)
            if path.endswith("kernel"):
                part = part.T  # a checkpoint holds (out, in)
            if scales is not None:
                filled[where], scales[where] = to_int8(part, int8)
            else:
                filled[where] = part
        params[path] = place(filled)
        if scales is not None:
            params[f"{path}_scale"] = place(scales)
        checkpoint.release()
    return traverse_util.unflatten_dict(params, sep="/"), tensors[naming.word_table]


def _without_layers(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if path.startswith("layers/") else shape


def _part(tensor: np.ndarray, source: Source) -> np.ndarray:
    rows = len(tensor) // source.parts
    return tensor[source.part * rows : (source.part + 1) * rows]


def _plain_names(checkpoint: Checkpoint, naming: Naming) -> dict[str, np.ndarray]:
    """Tensors under the names that `naming` uses; those that nobody needs are left out."""
    plain: dict[str, np.ndarray] = {}
    spelled: dict[str, str] = {}
    for name, tensor in checkpoint.tensors.items():
        new = naming.plain(name)
        if re.fullmatch(naming.unused, new):
            continue
        if new in plain:
            raise InputError(
                f"{checkpoint.folder}: the tensors {spelled[new]!r} and {name!r} are two spellings of one parameter"
            )
        plain[new], spelled[new] = tensor, name
    return plain


def _check_tensors(
    found: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], checkpoint: Checkpoint
) -> None:
    faults = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "of the wrong shape": [
            f"{name} {found[name].shape} instead of {shape}"
            for name, shape in wanted.items()
            if name in found and found[name].shape != shape
        ],
        "not float16, float32 or bfloat16": [
            f"{name} {found[name].dtype}"
            for name in wanted
            if name in found and found[name].dtype not in (np.float16, np.float32, ml_dtypes.bfloat16)
        ],
    }
    said = [f"{len(names)} {fault}: {_first(names)}" for fault, names in faults.items() if names]
    if said:
        raise InputError(f"{checkpoint.folder}: the tensors do not fit the model of config.json: {'; '.join(said)}")


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


class RandomTable:
    """A word table that nobody trained: normal rows with standard deviation 0.02, each made when it is asked for."""

    def __init__(self, rows: int, columns: int, seed: int) -> None:
        """A table.

        Args:
          rows: of the vocabulary.
          columns: hidden size.
          seed: equal seeds give equal rows.
        """
        self.shape = (rows, columns)
        self._seed = seed

    def __getitem__(self, ids: Int[np.ndarray, "*shape"] | slice) -> Float[np.ndarray, "*shape columns"]:
        """Rows by token id, float32."""
        numbers = np.arange(*ids.indices(self.shape[0])) if isinstance(ids, slice) else np.asarray(ids)
        used, places = np.unique(numbers.reshape(-1), return_inverse=True)
        rngs = (np.random.default_rng((self._seed, 1, int(number))) for number in used)
        made = [np.float32(0.02) * rng.standard_normal(self.shape[1], np.float32) for rng in rngs]
        rows = np.array(made, np.float32).reshape(len(used), self.shape[1])
        return rows[places].reshape(*numbers.shape, self.shape[1])


def random_params(
    module: nn.Module,
    hidden_size: int,
    *,
    seed: int,
    norm_start: float = 1.0,
    int8: str = "none",
    place: Place = lambda array: array,
) -> tuple[Params, str]:
    """Untrained parameters: normal with standard deviation 0.02, norms the identity, biases 0.

    Args:
      module: whose parameters are wanted.
      hidden_size: of its embeddings.
      norm_start: the weight of a norm that does nothing; 0 where it is added to 1.
      seed: equal seeds give equal parameters, in any dtype.
      int8: see `Linear`.
      place: where parameters go.

    Returns:
      Parameters, and the sha256 of what was drawn, before any cast.
    """
    digest = hashlib.sha256()
    rng = np.random.default_rng(seed)
    shapes = traverse_util.flatten_dict(param_shapes(module, hidden_size), sep="/")
    params = {}
    for path, leaf in sorted(shapes.items()):
        if path.endswith("kernel_scale"):
            continue
        filled = np.empty(leaf.shape, leaf.dtype)
        if path.endswith(("scale", "bias")):
            filled[...] = norm_start if path.endswith("scale") else 0
            params[path] = place(filled)
            continue
        layers = filled if path.startswith("layers/") else filled[None]
        scales = np.empty(shapes[f"{path}_scale"].shape, np.float32) if f"{path}_scale" in shapes else None
        for i, one in enumerate(layers):
            drawn = np.float32(0.02) * rng.standard_normal(one.shape, np.float32)
            digest.update(f"{path} {drawn.shape}".encode())
            digest.update(drawn.data)
            if scales is None:
                one[...] = drawn
            else:
                one[...], (scales if layers is filled else scales[None])[i] = to_int8(drawn, int8)
        params[path] = place(filled)
        if scales is not None:
            params[f"{path}_scale"] = place(scales)
    return traverse_util.unflatten_dict(params, sep="/"), digest.hexdigest()
