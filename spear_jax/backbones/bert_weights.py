"""`Bert`'s parameters: out of a checkpoint in any of BERT's spellings, or untrained."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
from flax import traverse_util
from jax.typing import DTypeLike
from jaxtyping import Float, Shaped

from spear_jax.backbones.bert import BertConfig, Params, param_shapes, random_params
from spear_jax.errors import InputError

_WORD_TABLE = "embeddings.word_embeddings.weight"
_UNUSED = re.compile(r"(cls|pooler|classifier)\..*|embeddings\.position_ids")

# Path in the parameters of `Bert` -> name in a checkpoint, {} the layer.
_TABLES = {
    "position_embeddings": "embeddings.position_embeddings.weight",
    "type_embeddings": "embeddings.token_type_embeddings.weight",
}
_MODULES = {
    "embedding_norm": "embeddings.LayerNorm",
    "layers/attention/query": "encoder.layer.{}.attention.self.query",
    "layers/attention/key": "encoder.layer.{}.attention.self.key",
    "layers/attention/value": "encoder.layer.{}.attention.self.value",
    "layers/attention/output": "encoder.layer.{}.attention.output.dense",
    "layers/attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "layers/intermediate": "encoder.layer.{}.intermediate.dense",
    "layers/output": "encoder.layer.{}.output.dense",
    "layers/output_norm": "encoder.layer.{}.output.LayerNorm",
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def _checkpoint_names(path: str, layers: int) -> list[str]:
    if path in _TABLES:
        return [_TABLES[path]]
    module, _, leaf = path.rpartition("/")
    name = f"{_MODULES[module]}.{_LEAVES[leaf]}"
    return [name.format(i) for i in range(layers)] if path.startswith("layers/") else [name]


def _plain_names(tensors: Mapping[str, np.ndarray], where: Path) -> dict[str, np.ndarray]:
    """Tensors under today's names: no 'bert.' in front, gamma and beta called weight and bias."""
    plain: dict[str, np.ndarray] = {}
    spelled: dict[str, str] = {}
    for name, tensor in tensors.items():
        new = name.removeprefix("bert.")
        new = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", new)
        new = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", new)
        if _UNUSED.fullmatch(new):
            continue
        if new in plain:
            raise InputError(f"{where}: the tensors {spelled[new]!r} and {name!r} are two spellings of one parameter")
        plain[new], spelled[new] = tensor, name
    return plain


def map_checkpoint(
    tensors: Mapping[str, np.ndarray], config: BertConfig, where: Path, dtype: DTypeLike
) -> tuple[Params, Shaped[np.ndarray, "vocabulary hidden"]]:
    """`Bert`'s parameters and the word table, from a checkpoint in any of BERT's spellings.

    Args:
      tensors: the checkpoint's, by name.
      config: the shape that they must have.
      where: the checkpoint's folder, for messages.
      dtype: of the kernels of linear layers; the rest is float32.

    Returns:
      Parameters in host memory, and the word table as it lies in `tensors`.

    Raises:
      InputError: tensors are missing, unexpected, of the wrong shape or dtype, or spelled twice.
    """
    plain = _plain_names(tensors, where)
    shapes = traverse_util.flatten_dict(param_shapes(config), sep="/")
    names = {path: _checkpoint_names(path, config.layers) for path in shapes}

    wanted = {_WORD_TABLE: (config.vocabulary_size, config.hidden_size)}
    for path, leaf in shapes.items():
        shape = leaf.shape[1:] if path.startswith("layers/") else leaf.shape
        wanted |= dict.fromkeys(names[path], shape[::-1] if path.endswith("kernel") else shape)
    _check_tensors(plain, wanted, where)

    params = {}
    for path, leaf in shapes.items():
        parts = [plain[name] for name in names[path]]
        if path.endswith("kernel"):
            parts = [part.T for part in parts]  # a checkpoint holds (out, in)
        filled = np.empty(leaf.shape, dtype if path.endswith("kernel") else np.float32)
        filled[...] = np.stack(parts) if path.startswith("layers/") else parts[0]
        params[path] = filled
    return traverse_util.unflatten_dict(params, sep="/"), plain[_WORD_TABLE]


def _check_tensors(found: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], where: Path) -> None:
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
        raise InputError(f"{where}: the tensors do not fit the BERT of config.json: {'; '.join(said)}")


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def random_weights(
    config: BertConfig, dtype: DTypeLike, seed: int
) -> tuple[Params, Float[np.ndarray, "vocabulary hidden"]]:
    """Untrained parameters and word table, drawn as BERT's are before training."""
    flat = traverse_util.flatten_dict(random_params(config, seed))
    cast = {path: array.astype(dtype) if path[-1] == "kernel" else array for path, array in flat.items()}
    rng = np.random.default_rng([seed, 1])  # a stream of its own
    shape = (config.vocabulary_size, config.hidden_size)
    word_table = np.float32(0.02) * rng.standard_normal(shape, np.float32)
    return traverse_util.unflatten_dict(cast), word_table
