"""Chooses the reference stretch of each series and maps its range to [0, 1]."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from spear_jax.data.series import Series
from spear_jax.data.windows import Windows

LOOKS_AHEAD = (
    "quantizer.scale='series' takes minimum and maximum over the whole series, future included: offline use only"
)

_FARTHEST = 1e30  # scaled values are clipped to it, since float32 would overflow
_NO_CHANGE = 1e-13  # a smaller range, relative to its values, is rounding error


@dataclasses.dataclass(frozen=True)
class Scaler:
    """The range of each series that is mapped to [0, 1].

    Attributes:
      scale: 'train' (the range of a reference stretch), 'series' (of the whole series) or 'window' (of each window;
        then the ranges of series, which are those of 'train', scale nothing).
      margin: the share of the range that is added below and above it.
      low: the value mapped to 0, before the margin is added.
      width: the width of the range, before the margin is added.
      typical_width: the median width over the training series.
    """

    scale: str
    margin: float
    low: Float[np.ndarray, "series"]
    width: Float[np.ndarray, "series"]
    typical_width: float

    @classmethod
    def fit(
        cls,
        scale: str,
        recorded: Sequence[Series],
        train: Sequence[Series],
        *,
        reference_steps: int,
        margin: float,
        typical_width: float = 0.0,
    ) -> "Scaler":
        """Fits the ranges.

        The reference stretch of scale='train' is chosen in the same way for training series and new ones, so that
        scaling does not differ between training and use: `Series.reference` if the source has an anomaly-free past;
        else the stretches in the training split if series are cut in time; else the first steps.

        A constant reference says nothing about the scale of changes: its value becomes the middle of a range of the
        typical width.

        Args:
          scale: see the attribute.
          recorded: every series that will be scaled.
          train: the stretches of the training split.
          reference_steps: see `first_steps`.
          margin: see the attribute.
          typical_width: that of a trained detector; 0 fits it on `train`.
        """
        if scale == "series":
            limits = [_limits(series.values) for series in recorded]
        else:
            references = choose_references(recorded, train, reference_steps)
            limits = [_limits(reference.values) for reference in references]
        if not typical_width:
            trained = {stretch.name for stretch in train or recorded}
            widths = [
                high - low
                for series, (low, high) in zip(recorded, limits, strict=True)
                if series.name in trained and not is_constant(low, high)
            ]
            typical_width = float(np.median(widths)) if widths else 1.0
        low, width = np.array([_range(*pair, typical_width) for pair in limits]).T
        return cls(scale, margin, low, width, typical_width)

    @property
    def ranges(self) -> list[tuple[float, float]]:
        """Returns the values mapped to 0 and 1 for each series, before the margin is added."""
        return list(zip(self.low.tolist(), (self.low + self.width).tolist(), strict=True))

    def __call__(self, windows: Windows) -> Float[np.ndarray, "windows time"]:
        """Scales windows: values inside the range become numbers in [0, 1], others lie beyond; NaN stays NaN."""
        if self.scale == "window":
            limits = np.array([_limits(values) for values in windows.values])
            low, width = limits[:, 0], limits[:, 1] - limits[:, 0]
            low, width = np.where(width > 0, low, low - 0.5), np.where(width > 0, width, 1.0)
        else:
            low, width = self.low[windows.series], self.width[windows.series]
        low, width = low - self.margin * width, width * (1 + 2 * self.margin)
        return np.clip((windows.values - low[:, None]) / width[:, None], -_FARTHEST, _FARTHEST).astype(np.float32)


class TableScaler:
    """Scales the columns of a new table as its rows arrive.

    A column whose range is known keeps it. Any other gets the range of its reference stretch once it has arrived: its
    first steps for scale='train', the whole column for scale='series'.
    """

    def __init__(
        self,
        scale: str,
        ranges: Sequence[tuple[float, float] | None],
        *,
        reference_steps: int,
        margin: float,
        typical_width: float,
    ) -> None:
        """Starts with the ranges that are known: the values mapped to 0 and 1 for each column; see `Scaler.fit`."""
        self._scale, self._margin, self._typical_width = scale, margin, typical_width
        self._reference_steps = reference_steps
        self._low = np.array([limits[0] if limits else 0.0 for limits in ranges])
        self._width = np.array([limits[1] - limits[0] if limits else 1.0 for limits in ranges])
        self._unknown = [i for i, limits in enumerate(ranges) if not limits] if scale != "window" else []

    @property
    def awaited_rows(self) -> int:
        """Returns the number of rows that must arrive before any can be scaled, for scale='train'."""
        return self._reference_steps if self._unknown and self._scale == "train" else 0

    def fit(self, values: Float[np.ndarray, "rows columns"], *, ended: bool) -> int:
        """Fits the ranges of the columns whose reference stretch has arrived; returns how many rows can be scaled.

        Args:
          values: the rows that have arrived and are not scaled yet.
          ended: whether the table ends with them.
        """
        scalable = len(values)
        for i in list(self._unknown):
            present = _from_first_value(values[:, i])
            reference = first_steps(present, self._reference_steps) if self._scale == "train" else present
            complete = ended or (self._scale == "train" and len(reference) == self._reference_steps)
            if complete and len(present):
                self._low[i], self._width[i] = _range(*_limits(reference), self._typical_width)
                self._unknown.remove(i)
            elif len(present):
                scalable = min(scalable, len(values) - len(present))
        return scalable

    def range_of(self, column: int) -> tuple[float, float]:
        """Returns the values of a column that are mapped to 0 and 1, before the margin is added."""
        return float(self._low[column]), float(self._low[column] + self._width[column])

    def far_outside(self, values: Float[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "rows columns"]:
        """Returns which values lie more than its width outside the range of their column; none with scale='window'."""
        if self._scale == "window":
            return np.zeros(values.shape, bool)
        return (values < self._low - self._width) | (values > self._low + 2 * self._width)

    def __call__(self, windows: Windows) -> Float[np.ndarray, "windows time"]:
        """Scales windows of columns whose range is known."""
        return Scaler(self._scale, self._margin, self._low, self._width, self._typical_width)(windows)


def first_steps(values: Float[np.ndarray, "time"], steps: int) -> Float[np.ndarray, "steps"]:
    """Returns the reference stretch of a series without a past: `steps` steps, starting at its first value."""
    return _from_first_value(values)[:steps]


def _from_first_value(values: Float[np.ndarray, "time"]) -> Float[np.ndarray, "rest"]:
    """Drops the missing values at the beginning of a series; nothing is left if all are missing."""
    finite = np.isfinite(values)
    return values[int(np.argmax(finite)) :] if finite.any() else values[:0]


class Stretches(NamedTuple):
    """The reference stretch of a series, or several.

    Attributes:
      values: values in the series' own unit.
      steps: the place of each in the recorded series; None for a past of its own.
    """

    values: Float[np.ndarray, "steps"]
    steps: Int[np.ndarray, "steps"] | None


def choose_references(recorded: Sequence[Series], train: Sequence[Series], reference_steps: int) -> list[Stretches]:
    """Chooses the reference of each recorded series, see `Scaler.fit`."""
    lengths = {series.name: len(series) for series in recorded}
    trained: dict[str, list[Series]] = {}
    for stretch in train:
        if len(stretch) < lengths[stretch.name]:  # cut in time: the rest of it is validation or test
            trained.setdefault(stretch.name, []).append(stretch)
    references = []
    for series in recorded:
        if len(series.reference):
            references.append(Stretches(series.reference, None))
        elif series.name in trained:
            stretches = trained[series.name]
            steps = np.concatenate([stretch.start + np.arange(len(stretch)) for stretch in stretches])
            references.append(Stretches(np.concatenate([stretch.values for stretch in stretches]), steps))
        else:
            values = first_steps(series.values, reference_steps)
            begin = len(series) - len(_from_first_value(series.values))
            references.append(Stretches(values, begin + np.arange(len(values))))
    return references


def _range(low: float, high: float, typical_width: float) -> tuple[float, float]:
    """Returns the start and the width of the range of a reference with these limits."""
    if is_constant(low, high):
        width = max(typical_width, 10 * _NO_CHANGE * max(abs(low), abs(high)))  # or adding it would change nothing
        return low / 2 + high / 2 - width / 2, width
    return low, high - low


def is_constant(low: float, high: float) -> bool:
    """Returns whether the limits differ by no more than rounding error."""
    return not high - low > _NO_CHANGE * max(abs(low), abs(high))


def _limits(values: Float[np.ndarray, "steps"]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
