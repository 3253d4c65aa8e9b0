"""Defines a checkpoint: named tensors that stay in their files until they are used."""

import dataclasses
import mmap
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

_BLOCK = 2**22  # numbers dequantized at a time


class GgufTensor:
    """A matrix of a GGUF file. Rows are dequantized when they are read.

    Attributes:
      shape: rows and columns.
      dtype: dtype of what is read: float32.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self,
        rows: UInt8[np.ndarray, "rows bytes"],
        kind: gguf.GGMLQuantizationType,
        order: Int[np.ndarray, "rows"] | None = None,
    ) -> None:
        """Wraps the rows as stored; row i is `rows[order[i]]` if there is an order."""
        self._rows, self._kind, self._order = rows, kind, order
        block, size = gguf.GGML_QUANT_SIZES[kind]
        self.shape = (len(rows), rows.shape[1] // size * block)

    def reordered(self, order: Int[np.ndarray, "rows"]) -> "GgufTensor":
        """Returns the tensor with its rows in another order."""
        return GgufTensor(self._rows, self._kind, order)

    def __getitem__(self, ids: Int[np.ndarray, "*shape"] | slice) -> Float[np.ndarray, "*shape columns"]:
        """Returns rows."""
        return dequantize(self._rows[ids if self._order is None else self._order[ids]], self._kind)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Shaped[np.ndarray, "rows columns"]:
        """Returns the whole matrix; memory holds little more than that."""
        whole = np.empty(self.shape, self.dtype if dtype is None else dtype)
        step = max(1, _BLOCK // self.shape[1])
        for start in range(0, len(whole), step):
            whole[start : start + step] = self[start : start + step]
        return whole


def dequantize(
    stored: UInt8[np.ndarray, "*shape bytes"], kind: gguf.GGMLQuantizationType
) -> Float[np.ndarray, "*shape columns"]:
    """Returns numbers stored in one of the types of GGUF, in float32.

    Raises:
      NotImplementedError: the gguf package cannot read the type.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # the numbers are checked where they are used
        return gguf.dequantize(np.asarray(stored), kind)


Tensor = Shaped[np.ndarray, "..."] | GgufTensor
"""An array, which may be memory-mapped, or what reads as one."""


@dataclasses.dataclass
class Checkpoint:
    """The tensors of a model, memory-mapped: nothing is read before it is used.

    Attributes:
      source: the file, or the folder of the files, for messages.
      tensors: the tensors by name, read-only.
      mappings: the mapped files.
    """

    source: Path
    tensors: dict[str, Tensor]
    mappings: list[mmap.mmap]

    def release(self) -> None:
        """Releases the pages read so far to the system; they are read again when used."""
        if hasattr(mmap, "MADV_DONTNEED"):  # not on every system
            for mapping in self.mappings:
                mapping.madvise(mmap.MADV_DONTNEED)
