"""Reads the files of a checkpoint: JSON, safetensors in one file or in shards."""

import dataclasses
import hashlib
import json
import math
import mmap
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from spear_jax.errors import InputError
from spear_jax.storage import read_json


def weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the shards that the index names, in name order.

    Raises:
      InputError: there is neither, or a shard is missing.
    """
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise InputError(
            f"{folder}: no model.safetensors and no {index.name}; weights in another format can be "
            "converted with transformers' save_pretrained"
        )
    files = [folder / shard for shard in sorted(set(_weight_map(index).values()))]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: the shard is missing ({index.name} names it)")
    return files


def _weight_map(index: Path) -> dict[str, str]:
    names = read_json(index).get("weight_map")
    # A shard lies beside its index; a path would let a downloaded file point anywhere.
    if not isinstance(names, dict) or not all(
        isinstance(shard, str) and shard == Path(shard).name for shard in names.values()
    ):
        raise InputError(f"{index}: its 'weight_map' must give a file name for each tensor")
    return names


_SAFETENSORS_DTYPES: dict[str, Any] = {
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


@dataclasses.dataclass
class Checkpoint:
    """The tensors of a folder's weight files, memory-mapped: nothing is read before it is used.

    Attributes:
      folder: where they lie.
      tensors: by name, read-only, in the files' dtypes.
      mappings: of the files.
    """

    folder: Path
    tensors: dict[str, Shaped[np.ndarray, "..."]]
    mappings: list[mmap.mmap]

    @classmethod
    def open(cls, folder: Path, files: list[Path]) -> "Checkpoint":
        """Maps `weight_files(folder)`.

        Raises:
          InputError: a file is damaged, or lacks a tensor that the index places in it.
        """
        found = {file.name: read_safetensors(file) for file in files}
        mappings = [mapping for _, mapping in found.values()]
        if len(files) == 1 and files[0].name == "model.safetensors":
            return cls(folder, found[files[0].name][0], mappings)
        index = folder / "model.safetensors.index.json"
        tensors = {}
        for name, shard in _weight_map(index).items():
            if name not in found[shard][0]:
                raise InputError(f"{folder / shard}: tensor {name!r} is missing ({index.name} names it)")
            tensors[name] = found[shard][0][name]
        return cls(folder, tensors, mappings)

    def release(self) -> None:
        """Gives back the pages that were read; they are read again when they are used again."""
        if hasattr(mmap, "MADV_DONTNEED"):  # not on every system
            for mapping in self.mappings:
                mapping.madvise(mmap.MADV_DONTNEED)


def read_safetensors(file: Path) -> tuple[dict[str, Shaped[np.ndarray, "..."]], mmap.mmap]:
    """The tensors of a safetensors file, and the mapping that they lie in.

    Format: https://huggingface.co/docs/safetensors (length of the header, header as JSON, data).

    Args:
      file: the file.

    Returns:
      Tensor by name, read-only, in the file's dtype.

    Raises:
      InputError: the file is cut short, or is not a safetensors file.
    """
    size = file.stat().st_size
    if size < 8:
        raise InputError(f"{file} is truncated: {size} bytes, at least 8 expected")
    with file.open("rb") as stream:
        mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    content = np.frombuffer(mapping, np.uint8)
    data_start = 8 + int.from_bytes(mapping[:8], "little")
    try:
        if data_start > size:
            raise ValueError(f"its header ends at byte {data_start}, the file has {size} bytes")
        header = json.loads(mapping[8:data_start])
        header.pop("__metadata__", None)
        data_end = data_start + max((t["data_offsets"][1] for t in header.values()), default=0)
        layout = {}
        for name, tensor in header.items():
            if tensor["dtype"] not in _SAFETENSORS_DTYPES:
                raise ValueError(f"tensor {name!r} has the unknown dtype {tensor['dtype']!r}")
            dtype = np.dtype(_SAFETENSORS_DTYPES[tensor["dtype"]])
            start, end = tensor["data_offsets"]
            if start < 0 or end - start != math.prod(tensor["shape"]) * dtype.itemsize:
                raise ValueError(f"offsets and shape of tensor {name!r} contradict each other")
            layout[name] = (dtype, tensor["shape"], data_start + start, data_start + end)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{file} is truncated or not a safetensors file: {error}") from error
    if data_end != size:
        fault = "truncated" if size < data_end else "damaged"
        raise InputError(f"{file} is {fault}: {data_end} bytes expected, {size} found")
    return {
        name: content[start:end].view(dtype).reshape(shape) for name, (dtype, shape, start, end) in layout.items()
    }, mapping


def sha256_of_files(files: list[Path]) -> str:
    """Of one file its own; of several that of their hex digests, written one after the other."""
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
