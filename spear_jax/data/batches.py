"""What the model reads: windows of bins, dealt out in batches of one shape."""

import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class Examples:
    """Windows of one split as the model reads them.

    Attributes:
      bins: the bin of every step, in [0, N]; bin N stands for a missing value.
      mask: True where the model may look and is asked; False in padding and at masked missing values.
      targets: 1 where the step is anomalous (`head.kind='step'`), or per window, repeated over its steps.
    """

    bins: Int[np.ndarray, "windows time"]
    mask: Bool[np.ndarray, "windows time"]
    targets: Float[np.ndarray, "windows time"]

    def __len__(self) -> int:
        return len(self.bins)

    def take(self, rows: Int[np.ndarray, "*batch"]) -> dict[str, np.ndarray]:
        """The windows in `rows`; a row of -1 is a window that is masked throughout."""
        exists = (rows >= 0)[..., None]
        return {
            "bins": np.where(exists, self.bins[rows], 0),
            "mask": self.mask[rows] & exists,
            "targets": self.targets[rows] * exists,
        }


def training_order(windows: int, batch_size: int, seed: int, epoch: int) -> Int[np.ndarray, "steps batch"]:
    """The rows of every batch of an epoch: a function of seed and epoch alone, so a resumed run sees the same.

    The last batch is filled up with -1.
    """
    order = np.random.default_rng((seed, epoch)).permutation(windows)
    return fill(order, batch_size)


def fill(rows: Int[np.ndarray, "rows"], batch_size: int) -> Int[np.ndarray, "steps batch"]:
    """Rows in batches of one size, the last one filled up with -1."""
    steps = -(-len(rows) // batch_size)
    filled = np.full(steps * batch_size, -1)
    filled[: len(rows)] = rows
    return filled.reshape(steps, batch_size)


def digest(order: Int[np.ndarray, "steps batch"]) -> str:
    """A short fingerprint of an epoch's order, kept in checkpoints to prove that a resumed run follows it."""
    return hashlib.sha256(np.ascontiguousarray(order, np.int64).tobytes()).hexdigest()[:16]


def calls(steps: int, steps_per_call: int, begin: int = 0) -> Iterator[tuple[int, int]]:
    """[first, last) steps of each training call of an epoch, from step `begin` on."""
    for first in range(begin, steps, steps_per_call):
        yield first, min(first + steps_per_call, steps)
