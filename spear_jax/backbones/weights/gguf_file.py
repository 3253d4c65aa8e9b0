"""Reads GGUF files, the format of llama.cpp: metadata and quantized tensors in one file, or in several.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The types of numbers and what they mean come from the
package gguf. Its reader is not used: it makes arrays for every token of a vocabulary, and takes 11 s and 680 MiB for
the 262,144 of Gemma 3, where this module takes 0.3 s and 26 MiB.
"""

import dataclasses
import math
import mmap
import re
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from spear_jax.backbones.weights.tensors import GgufTensor, Tensor, dequantize
from spear_jax.errors import InputError
from spear_jax.storage import check_ordinary

_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.gguf")


@dataclasses.dataclass(frozen=True, eq=False)
class GgufFile:
    """A model in GGUF.

    Attributes:
      files: the file, or all parts of a split one.
      metadata: the metadata of the first, by key; arrays as lists or arrays.
      tensors: the tensors by name, with the names and in the layout of llama.cpp.
      mappings: the mapped files.
    """

    files: list[Path]
    metadata: dict[str, Any] = dataclasses.field(repr=False)
    tensors: dict[str, Tensor] = dataclasses.field(repr=False)
    mappings: list[mmap.mmap] = dataclasses.field(repr=False)

    @property
    def architecture(self) -> Any:
        """Returns llama.cpp's name of the model's family."""
        return self.metadata.get("general.architecture")

    @classmethod
    def open(cls, file: Path) -> "GgufFile":
        """Maps a file, or all parts of a model that is split into files, given one of them.

        Raises:
          InputError: a file is missing, damaged, or of another version or byte order.
        """
        files = split_files(file)
        parts = [_read(part) for part in files]
        tensors: dict[str, Tensor] = {}
        for part, (_, own, _) in zip(files, parts, strict=True):
            for name in own.keys() & tensors.keys():
                raise InputError(f"{part}: the tensor {name!r} is in another part, too")
            tensors |= own
        return cls(files, parts[0][0], tensors, [mapping for _, _, mapping in parts])


def split_files(file: Path) -> list[Path]:
    """Returns all parts of a split model, such as model-00001-of-00003.gguf, in order; of any other, the file itself.

    Raises:
      InputError: a part is missing.
    """
    match = _SPLIT.fullmatch(file.name)
    files = [file]
    if match:
        total = int(match["total"])
        files = [file.with_name(f"{match['stem']}-{i:05}-of-{total:05}.gguf") for i in range(1, total + 1)]
    for part in files:
        if not part.is_file():
            raise InputError(f"{part}: the file does not exist")
    return files


def first_parts(files: list[Path]) -> list[Path]:
    """Returns files without the second and later parts of split models."""
    matches = [_SPLIT.fullmatch(file.name) for file in files]
    return [file for file, match in zip(files, matches, strict=True) if not match or int(match["number"]) == 1]


class _Reader:
    """Reads numbers and strings one after the other, and never beyond the end."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content, self.position = content, 0

    def take(self, size: int) -> int:
        """Returns the position of the next bytes, and steps over them."""
        start = self.position
        if size > len(self._content) - start:
            raise _DamagedError("truncated")
        self.position += size
        return start

    def numbers(self, kinds: str) -> tuple[Any, ...]:
        layout = f"<{kinds}"
        return struct.unpack_from(layout, self._content, self.take(struct.calcsize(layout)))

    def string(self) -> str:
        (size,) = self.numbers("Q")
        start = self.take(size)
        return self._content[start : start + size].decode("utf-8", errors="backslashreplace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array()
        return self.numbers(_scalar(kind))[0]

    def _array(self) -> Any:
        kind, count = self.numbers("IQ")
        if kind == _STRING:
            return [self.string() for _ in range(count)]
        layout = _scalar(kind)
        start = self.take(count * struct.calcsize(f"<{layout}"))
        return np.frombuffer(self._content, np.dtype(f"<{layout}"), count, start)


class _DamagedError(Exception):
    """What is wrong with a file."""


def _scalar(kind: int) -> str:
    if kind not in _SCALARS:
        raise _DamagedError(f"its metadata has a value of the unknown type {kind}")
    return _SCALARS[kind]


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor], mmap.mmap]:
    check_ordinary(file)
    with file.open("rb") as stream:
        if not stream.read(1):
            raise InputError(f"{file}: the file is empty")
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return *_parse(content), content
    except _DamagedError as error:
        raise InputError(f"{file}: {error}") from error


def _parse(content: mmap.mmap) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if content[:4] != b"GGUF":
        raise _DamagedError("not a GGUF file")
    reader = _Reader(content)
    _, version = reader.numbers("II")
    if not version & 0xFFFF:
        raise _DamagedError("big-endian; only little-endian GGUF is read (gguf-convert-endian converts)")
    if version not in _VERSIONS:
        raise _DamagedError(f"version {version} of GGUF; supported are {' and '.join(map(str, _VERSIONS))}")
    tensor_count, field_count = reader.numbers("QQ")
    metadata: dict[str, Any] = {}
    for _ in range(field_count):
        key = reader.string()
        metadata[key] = reader.value(*reader.numbers("I"))
    infos = []
    for _ in range(tensor_count):
        name = reader.string()
        (dimensions,) = reader.numbers("I")
        if not 1 <= dimensions <= 4:
            raise _DamagedError(f"the tensor {name!r} has {dimensions} dimensions")
        shape = reader.numbers(f"{dimensions}Q")[::-1]  # stored with the fastest dimension first
        infos.append((name, shape, *reader.numbers("IQ")))
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1:
        raise _DamagedError(f"general.alignment = {alignment!r}, must be a whole number of at least 1")
    reader.take(-reader.position % alignment)
    tensors: dict[str, Tensor] = {}
    for name, shape, kind, offset in infos:
        if name in tensors:
            raise _DamagedError(f"two tensors are called {name!r}")
        tensors[name] = _tensor(content, name, shape, kind, reader.position + offset)
    return metadata, tensors


def _tensor(content: mmap.mmap, name: str, shape: tuple[int, ...], number: int, start: int) -> Tensor:
    try:
        kind = gguf.GGMLQuantizationType(number)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        dequantize(np.zeros(size, np.uint8), kind)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise _DamagedError(f"the tensor {name!r} has the type {number}, which the package gguf cannot read") from error
    columns, rows = shape[-1], math.prod(shape[:-1])
    if not columns or not rows or columns % block:
        raise _DamagedError(f"the tensor {name!r} of shape {shape} cannot have the type {kind.name}")
    row_size = columns // block * size
    if start + rows * row_size > len(content):
        raise _DamagedError(f"truncated: the tensor {name!r} ends behind the end of the file")
    stored = np.frombuffer(content, np.uint8, rows * row_size, start).reshape(rows, row_size)
    tensor = GgufTensor(stored, kind)
    return np.asarray(tensor)[0] if len(shape) == 1 else tensor  # norms and biases are small
