"""What the model reads: windows of bins, dealt out in batches of a few shapes."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int

MAX_SHAPES = 6  # each costs a compilation


MAX_PADDING = 0.05  # share of padding that is not worth another shape


LENGTH_MULTIPLE = 8  # lengths are multiples of it, as accelerators like them


@dataclasses.dataclass(frozen=True)
class Examples:
    """Windows of one split as the model reads them.

    Attributes:
      bins: the bin of every step, in [0, N]; bin N stands for a missing value.
      mask: True where the model may look and is asked; False in padding and at masked missing values.
      targets: 1 where the step is anomalous (`head.kind='step'`), or per window, repeated over its steps.
      lengths: steps of each window that the model reads, of a few different lengths (see `padded_lengths`).
    """

    bins: Int[np.ndarray, "windows time"]
    mask: Bool[np.ndarray, "windows time"]
    targets: Float[np.ndarray, "windows time"]
    lengths: Int[np.ndarray, "windows"]

    def __len__(self) -> int:
        return len(self.bins)

    def select(self, rows: Int[np.ndarray, "selected"]) -> Self:
        """Returns the windows in `rows`."""
        arrays = {field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **arrays)

    def take(self, rows: Int[np.ndarray, "*batch"], length: int) -> dict[str, np.ndarray]:
        """Returns the first `length` steps of some windows, as the model's inputs, mask and targets.

        A row of -1 is a window that is masked throughout.
        """
        exists = (rows >= 0)[..., None]
        return {
            "inputs": self.bins[rows, :length],
            "mask": self.mask[rows, :length] & exists,
            "targets": self.targets[rows, :length] * exists,
        }


class Batch(NamedTuple):
    """Windows that are read together: their rows, -1 where there is none, and the steps that are read of each."""

    rows: Int[np.ndarray, "batch"]
    length: int


class TrainingCall(NamedTuple):
    """Consecutive batches of one length, done in one jitted call.

    Attributes:
      first: number of the first batch in its epoch.
      rows: of each batch, -1 where there is none.
      length: steps that are read of each window.
    """

    first: int
    rows: Int[np.ndarray, "steps batch"]
    length: int

    @property
    def end(self) -> int:
        """Number of the batch that comes after the call."""
        return self.first + len(self.rows)


def padded_lengths(lengths: Int[np.ndarray, "windows"]) -> Int[np.ndarray, "windows"]:
    """The length that each window is padded to, so that little is padded with few shapes.

    Of all ways to pad to k different lengths the one with the least padding; k is the smallest that leaves less than
    `ENOUGH` of all steps as padding, or `MOST_SHAPES`.

    Args:
      lengths: steps of each window.
    """
    longest = int(lengths.max(initial=1))
    rounded = np.minimum(-(-lengths // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, longest)
    sizes, counts = np.unique(rounded, return_counts=True)
    # least[i]: the fewest steps, padding included, of the windows up to sizes[i] in k buckets, the last of size i.
    before = np.concatenate([[0], np.cumsum(counts)])
    least = sizes * before[1:]
    cuts = [np.full(len(sizes), -1)]
    for _ in range(1, min(MAX_SHAPES, len(sizes))):
        if 1 - lengths.sum() / least[-1] < MAX_PADDING:
            break
        # A further bucket of size i begins after the bucket of size j.
        total = least[:, None] + sizes[None, :] * (before[1:][None, :] - before[1:][:, None])
        total = np.where(np.tri(len(sizes), k=-1, dtype=bool).T, total, np.iinfo(np.int64).max)
        better = np.minimum(total.min(axis=0), least)
        cuts.append(np.where(better < least, total.argmin(axis=0), -2))
        least = better
    chosen, i = [len(sizes) - 1], len(sizes) - 1
    for cut in reversed(cuts[1:]):
        if cut[i] >= 0:
            i = int(cut[i])
            chosen.append(i)
    ends = sizes[sorted(chosen)]
    return ends[np.searchsorted(ends, lengths)]


def training_calls(
    lengths: Int[np.ndarray, "windows"], batch_size: int, steps_per_call: int, seed: int, epoch: int
) -> list[TrainingCall]:
    """The batches of an epoch: a function of seed and epoch alone, so a resumed run sees the same.

    Windows are shuffled and then dealt out longest first; calls are shuffled again where they differ in length. Only
    the last batch dealt out is filled up with -1.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    batches = _deal(order[np.argsort(-lengths[order], kind="stable")], lengths, batch_size)
    chunks: list[list[Batch]] = []
    for batch in batches:
        if not chunks or len(chunks[-1]) == steps_per_call or chunks[-1][-1].length != batch.length:
            chunks.append([])
        chunks[-1].append(batch)
    if len({batch.length for batch in batches}) > 1:
        chunks = [chunks[i] for i in rng.permutation(len(chunks))]
    firsts = np.cumsum([0, *map(len, chunks)])
    return [
        TrainingCall(int(first), np.stack([batch.rows for batch in chunk]), chunk[0].length)
        for first, chunk in zip(firsts, chunks, strict=False)
    ]


def scoring_batches(lengths: Int[np.ndarray, "windows"], batch_size: int) -> list[Batch]:
    """Every window once, longest first; the last batch is filled up with -1."""
    return _deal(np.argsort(-lengths, kind="stable"), lengths, batch_size)


def _deal(rows: Int[np.ndarray, "windows"], lengths: Int[np.ndarray, "windows"], batch_size: int) -> list[Batch]:
    filled = np.full(-(-len(rows) // batch_size) * batch_size, -1)
    filled[: len(rows)] = rows
    return [Batch(batch, int(lengths[batch[0]])) for batch in filled.reshape(-1, batch_size)]


def order_digest(calls: Sequence[TrainingCall]) -> str:
    """A short fingerprint of an epoch's order, kept in checkpoints to prove that a resumed run follows it."""
    order = np.concatenate([call.rows for call in calls])
    return hashlib.sha256(np.ascontiguousarray(order, np.int64).tobytes()).hexdigest()[:16]
