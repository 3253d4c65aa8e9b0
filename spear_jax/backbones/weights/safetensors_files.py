"""Reads the safetensors of a checkpoint, in one file or in shards."""

import hashlib
import json
import math
import mmap
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from jaxtyping import Shaped

from spear_jax.backbones.weights.tensors import Checkpoint, Tensor
from spear_jax.errors import InputError
from spear_jax.storage import check_ordinary, read_json

_SINGLE_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """Returns model.safetensors, or the shards that the index names, in name order.

    Raises:
      InputError: there is neither, or a shard is missing.
    """
    if (folder / _SINGLE_FILE).is_file():
        return [folder / _SINGLE_FILE]
    if not (folder / _INDEX).is_file():
        raise InputError(
            f"{folder}: no {_SINGLE_FILE} and no {_INDEX}; transformers' save_pretrained converts other formats"
        )
    files = [folder / shard for shard in sorted(set(_shards_by_tensor(folder).values()))]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: the shard is missing ({_INDEX} names it)")
    return files


def _shards_by_tensor(folder: Path) -> dict[str, str]:
    index = folder / _INDEX
    shards = read_json(index).get("weight_map")
    # Shards are in the folder of their index; a path would let a downloaded file point anywhere.
    if not isinstance(shards, dict) or not all(
        isinstance(shard, str) and shard == Path(shard).name for shard in shards.values()
    ):
        raise InputError(f"{index}: its 'weight_map' must give a file name for each tensor")
    return shards


def open_safetensors(folder: Path) -> Checkpoint:
    """Maps the weight files of a folder.

    Raises:
      InputError: a file is damaged, or lacks a tensor that the index places in it.
    """
    contents = {file.name: read_safetensors(file) for file in weight_files(folder)}
    mappings = [mapping for _, mapping in contents.values()]
    if _SINGLE_FILE in contents:
        return Checkpoint(folder, dict(contents[_SINGLE_FILE][0]), mappings)
    tensors: dict[str, Tensor] = {}
    for name, shard in _shards_by_tensor(folder).items():
        if name not in contents[shard][0]:
            raise InputError(f"{folder / shard}: tensor {name!r} is missing ({_INDEX} names it)")
        tensors[name] = contents[shard][0][name]
    return Checkpoint(folder, tensors, mappings)


_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_safetensors(file: Path) -> tuple[dict[str, Shaped[np.ndarray, "..."]], mmap.mmap]:
    """Maps the tensors of a safetensors file.

    The library checks the file, but would copy what it reads; of a word table of gigabytes only a few rows are needed.
    Format: https://huggingface.co/docs/safetensors (length of the header, header as JSON, data).

    Returns:
      The tensors by name, read-only, in the file's dtype; and the mapping that backs them.

    Raises:
      InputError: the file is truncated, is not a safetensors file, or has a tensor of an unknown dtype.
    """
    check_ordinary(file)
    try:
        with safetensors.safe_open(file, framework="numpy"):
            pass  # opening checks the header, and that the tensors fill the file
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{file}: truncated or not a safetensors file ({error})") from error
    with file.open("rb") as stream:
        mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    data_start = 8 + int.from_bytes(mapping[:8], "little")
    header = json.loads(mapping[8:data_start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise InputError(f"{file}: tensor {name!r} is {entry['dtype']}, supported are {', '.join(_DTYPES)}")
        shape, start = entry["shape"], data_start + entry["data_offsets"][0]
        flat = np.frombuffer(mapping, _DTYPES[entry["dtype"]], count=math.prod(shape), offset=start)
        tensors[name] = flat.reshape(shape)
    return tensors, mapping


def sha256_of_files(files: list[Path]) -> str:
    """Returns the hex digest of one file, or the digest of the concatenated hex digests of several."""
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
