"""Groups windows of bins into batches of few different shapes, since each shape is compiled."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int

MAX_SHAPES = 6  # each costs a compilation
MAX_PADDING = 0.05  # share of padding below which another shape is not worth it
LENGTH_MULTIPLE = 8  # accelerators are faster at multiples of this length


@dataclasses.dataclass(frozen=True)
class Examples:
    """Windows of one split as the model reads them.

    Attributes:
      bins: the bin of every step's value, in [0, N]; bin N stands for a missing value.
      views: the bins of every step in further views (`quantizer.views`), likewise; the paper has none.
      mask: True where the model attends and predicts; False in padding and at masked missing values.
      targets: 1 where the step is anomalous (`head.kind='step'`), or the window, repeated over its steps.
      lengths: steps of each window that the model reads, of a few different lengths (see `padded_lengths`).
    """

    bins: Int[np.ndarray, "windows time"]
    views: Int[np.ndarray, "windows time views"]
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

        A row of -1 becomes a fully masked window.
        """
        exists = (rows >= 0)[..., None]
        inputs = self.bins[rows, :length]
        if self.views.shape[2]:
            inputs = np.concatenate([inputs[..., None], self.views[rows, :length]], axis=-1)
        return {
            "inputs": inputs,
            "mask": self.mask[rows, :length] & exists,
            "targets": self.targets[rows, :length] * exists,
        }


class Batch(NamedTuple):
    """Windows that are scored together: their rows, -1 for none, and the steps to read of each."""

    rows: Int[np.ndarray, "batch"]
    length: int


class TrainingCall(NamedTuple):
    """Consecutive batches of one length, trained on in one jitted call.

    Attributes:
      first: number of the first batch in its epoch.
      rows: rows of the windows in each batch, -1 for none.
      length: steps to read of each window.
    """

    first: int
    rows: Int[np.ndarray, "steps batch"]
    length: int

    @property
    def end(self) -> int:
        """Returns the number of the batch after the call."""
        return self.first + len(self.rows)


def padded_lengths(lengths: Int[np.ndarray, "windows"], patch: int = 1) -> Int[np.ndarray, "windows"]:
    """Returns the length that each window is padded to, so that few different lengths need little padding.

    Finds the k lengths with the least padding, for the smallest k that keeps padding below `MAX_PADDING` of all steps,
    but at most `MAX_SHAPES` of them.

    Args:
      lengths: steps of each window.
      patch: steps in a position of the backbone, a divisor of `LENGTH_MULTIPLE`; padded lengths are multiples of it.
    """
    longest = -(-int(lengths.max(initial=1)) // patch) * patch
    rounded = np.minimum(-(-lengths // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, longest)
    sizes, counts = np.unique(rounded, return_counts=True)
    # least[i]: fewest steps, padding included, if windows up to sizes[i] fill k buckets, the last of length sizes[i].
    before = np.concatenate([[0], np.cumsum(counts)])
    least = sizes * before[1:]
    cuts = [np.full(len(sizes), -1)]
    for _ in range(1, min(MAX_SHAPES, len(sizes))):
        if 1 - lengths.sum() / least[-1] < MAX_PADDING:
            break
        # total[j, i]: the same with one more bucket of length sizes[i] after a last one of length sizes[j].
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
    """Returns the batches of an epoch, in calls; they depend on seed and epoch only, so a resumed run sees the same.

    Windows are shuffled and then sorted by length, longest first; calls of different lengths are shuffled again. Only
    the last batch of the shortest windows is filled up with -1.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    batches = _fill_batches(order[np.argsort(-lengths[order], kind="stable")], lengths, batch_size)
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
    """Returns batches with every window once, longest first; the last batch is filled up with -1.

    Few windows make a smaller batch, whose size is a power of two, since each size is compiled.
    """
    size = min(batch_size, 1 << (len(lengths) - 1).bit_length())
    return _fill_batches(np.argsort(-lengths, kind="stable"), lengths, size)


def _fill_batches(
    rows: Int[np.ndarray, "windows"], lengths: Int[np.ndarray, "windows"], batch_size: int
) -> list[Batch]:
    filled = np.full(-(-len(rows) // batch_size) * batch_size, -1)
    filled[: len(rows)] = rows
    return [Batch(batch, int(lengths[batch[0]])) for batch in filled.reshape(-1, batch_size)]


def order_digest(calls: Sequence[TrainingCall]) -> str:
    """Returns a digest of an epoch's order, stored in checkpoints to check that a resumed run follows it."""
    order = np.concatenate([call.rows for call in calls])
    return hashlib.sha256(np.ascontiguousarray(order, np.int64).tobytes()).hexdigest()[:16]
