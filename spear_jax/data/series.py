"""Recorded series, as every data source provides them."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from spear_jax.errors import InputError

LARGEST = 1e100  # squares of larger values overflow; some files contain them in place of missing values

_JUDGED_STEPS = 20  # fewer say little about the order of rows
_LATE_SHARE = 0.1  # of rows that may come late


@dataclasses.dataclass(frozen=True)
class Series:
    """A series, or a stretch of one.

    Attributes:
      name: unique within a data set, e.g. 'P-1'.
      values: one number per time step, in the source's own unit; NaN where nothing was recorded.
      labels: True where the step is anomalous.
      reference: values that are used for scaling and never scored, e.g. a channel's anomaly-free past; empty if the
        source has none.
      start: index of `values[0]` in the recorded series.
      timestamps: time of each step, or empty.
      group: series of one group, e.g. of a patient, are never divided between splits; '' for a group of its own.
      column: name of the table column that it comes from, or ''; the same sensor has the same column in other files.
      labelled: False if no labels were recorded; `labels` is meaningless then.
    """

    name: str
    values: Float[np.ndarray, "time"]
    labels: Bool[np.ndarray, "time"]
    reference: Float[np.ndarray, "past"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    start: int = 0
    timestamps: Shaped[np.ndarray, "stamps"] = dataclasses.field(default_factory=lambda: np.zeros(0, "datetime64[ns]"))
    group: str = ""
    column: str = ""
    labelled: bool = True

    def __post_init__(self) -> None:
        if self.values.ndim != 1 or self.values.shape != self.labels.shape:
            raise InputError(
                f"series {self.name!r}: values {self.values.shape} and labels {self.labels.shape}"
                " must be one-dimensional and equally long"
            )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def indivisible(self) -> str:
        """Returns the name of the group that no split may divide: that of the series' group, or its own."""
        return self.group or f"series {self.name}"

    def stretch(self, begin: int, end: int) -> "Series":
        """Returns steps [begin, end) of this series, with their place in the recorded one."""
        return dataclasses.replace(
            self,
            values=self.values[begin:end],
            labels=self.labels[begin:end],
            start=self.start + begin,
            timestamps=self.timestamps[begin:end],
        )


def check_order(name: str, timestamps: Shaped[np.ndarray, "stamps"]) -> None:
    """Checks that rows stand in an order of time, forward or backward, but for a few late ones."""
    steps = np.diff(timestamps.astype("datetime64[ns]").astype(np.int64))
    backward = int((steps < 0).sum())
    if len(steps) >= _JUDGED_STEPS and _LATE_SHARE < backward / len(steps) < 1 - _LATE_SHARE:
        raise InputError(
            f"{name}: rows stand in no order of time ({backward} of {len(steps)} steps go back); sort them by time"
        )


def series_offsets(series: Sequence[Series]) -> Int[np.ndarray, "bounds"]:
    """Returns the offset of each series in the concatenation of all, and the total length."""
    return np.concatenate([[0], np.cumsum([len(item) for item in series], dtype=int)])


class ColumnRole(NamedTuple):
    """The role of a table's column, and why it has it."""

    table: str
    column: str
    role: str
    reason: str


class LoadedSeries(NamedTuple):
    """The series of a data set.

    Attributes:
      name: name of the data set in results.
      series: series with unique names.
      warnings: warnings that every output repeats.
      groups: groups of all series of the data set, including those that `data.limit_series` left out, which decide the
        folds; () means those of `series`.
      roles: the roles of all columns of own files.
    """

    name: str
    series: list[Series]
    warnings: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    roles: tuple[ColumnRole, ...] = ()

    def digest(self) -> str:
        """Returns the sha256 of all values, labels and times, in order; names do not count, so files may be moved."""
        sha256 = hashlib.sha256()
        for item in self.series:
            for array in (item.values, item.labels, item.timestamps):
                sha256.update(f"{array.dtype} {len(array)} ".encode() + array.tobytes())
        return sha256.hexdigest()

    def fingerprint(self) -> dict[str, str]:
        """Returns the digest of everything, and one each of values, labels and times, which tell what has changed."""
        digests = {name: hashlib.sha256() for name in ("values", "labels", "times")}
        for item in self.series:
            for digest, array in zip(digests.values(), (item.values, item.labels, item.timestamps), strict=True):
                digest.update(array.tobytes())
        return {"sha256": self.digest(), **{name: digest.hexdigest() for name, digest in digests.items()}}


class ScaleRange(NamedTuple):
    """The values that are scaled to 0 and to 1 in a series of the training split.

    Attributes:
      column: the table column that it comes from.
      low: the value that is scaled to 0.
      high: the value that is scaled to 1.
      alone: no other series of the data set, in whatever split, comes from a column of this name.
    """

    column: str
    low: float
    high: float
    alone: bool = True
