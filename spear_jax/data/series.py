"""A recorded series: what every data source yields and everything downstream reads."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from spear_jax.errors import InputError

LARGEST = 1e100  # beyond it squares overflow; nobody measures such values, but some write them for none


@dataclasses.dataclass(frozen=True)
class Series:
    """A series, or a stretch of one.

    Attributes:
      name: unique within a data set, e.g. 'P-1'.
      values: one number per time step, in the source's own unit; NaN where nothing was recorded.
      labels: True where the step is anomalous.
      reference: values that scaling may look at and that are never scored, e.g. a channel's anomaly-free past;
        empty where the source has none.
      start: index of `values[0]` in the recorded series that this is a stretch of.
      timestamps: time of each step, or empty.
      group: what must not be divided between splits, e.g. a patient; '' where the series stands alone.
      column: of the table that it comes from, where it comes from one; what a sensor is called in other files too.
      labelled: False where nobody recorded labels; `labels` say nothing then.
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

    def stretch(self, begin: int, end: int) -> "Series":
        """Steps [begin, end) of this series, still knowing where they came from."""
        return dataclasses.replace(
            self,
            values=self.values[begin:end],
            labels=self.labels[begin:end],
            start=self.start + begin,
            timestamps=self.timestamps[begin:end],
        )


def series_offsets(series: Sequence[Series]) -> Int[np.ndarray, "bounds"]:
    """Returns where each series begins when all are laid end to end, and where the last one ends."""
    return np.concatenate([[0], np.cumsum([len(item) for item in series], dtype=int)])


class LoadedSeries(NamedTuple):
    """What a data source gives.

    Attributes:
      name: of the data set, wherever its numbers are.
      series: of unique names.
      warnings: what every output has to say about them.
    """

    name: str
    series: list[Series]
    warnings: tuple[str, ...] = ()


class ScaleRange(NamedTuple):
    """Where 0 and 1 lie for a series.

    Attributes:
      column: of the table that it comes from.
      low: what is scaled to 0.
      high: what is scaled to 1.
    """

    column: str
    low: float
    high: float
