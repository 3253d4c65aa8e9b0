"""Rows in, scores out, as soon as they are final and in bounded memory: the one way in which new series are scored."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from spear_jax.backbones import Backbone
from spear_jax.data import Examples, Scaler, ScoreSums, Series, Windows, from_first_value
from spear_jax.detector.artifact import Detector
from spear_jax.errors import InputError
from spear_jax.model import PlacedModel


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A detector on its devices.

    Attributes:
      detector: quantizer, threshold and config.
      model: assembled from it.
      window: steps in a window: those of training, or where that took series whole, as many as the backbone takes.
    """

    detector: Detector
    model: PlacedModel
    window: int

    @classmethod
    def place(cls, detector: Detector, backbone: Backbone, batch_size: int) -> "Scorer":
        """Puts a detector onto all devices.

        Raises:
          InputError: the backbone is not the one that it was trained with.
        """
        model = detector.assemble(backbone).with_batch_size(batch_size)
        window = detector.config.data.window or backbone.max_positions - detector.config.prompt.length - 1
        return cls(detector, model, window)

    def with_batch_size(self, batch_size: int) -> "Scorer":
        """Returns the scorer of `batch_size` windows at a time."""
        return dataclasses.replace(self, model=self.model.with_batch_size(batch_size))

    def stride(self, asked: int) -> int:
        """Rows from one window to the next; a window where 0 is asked for.

        Raises:
          InputError: rows between two windows would lie in none.
        """
        if asked > self.window:
            raise InputError(
                f"config.score.stride={asked}: allowed is at most {self.window}, the steps in the detector's window, so"
                " that every row lies in one"
            )
        return asked or self.window

    def __call__(
        self,
        values: Float[np.ndarray, "windows time"],
        real: Bool[np.ndarray, "windows time"],
        scaler: Scaler,
        columns: Int[np.ndarray, "windows"],
    ) -> Float[np.ndarray, "windows time"]:
        """P(anomalous) per step of windows of raw values, each of the column that `columns` names."""
        windows = Windows(values, np.zeros_like(real), real, columns, np.zeros(len(values), int))
        missing = self.detector.config.quantizer.missing
        examples = Examples(
            bins=self.detector.quantizer(scaler(windows)),
            mask=real & np.isfinite(values) if missing == "mask" else real,
            targets=np.zeros(values.shape, np.float32),
            lengths=np.full(len(values), values.shape[1]),
        )
        # Few windows make a small batch, of one of a few sizes: each size is compiled once.
        size = min(self.model.batch_size, 1 << (len(values) - 1).bit_length())
        return self.model.with_batch_size(size).score(examples)


class Column(NamedTuple):
    """What is known of a column of a table.

    Attributes:
      series: the name of the series that it is.
      name: its own.
    """

    series: str
    name: str


class ScoredRows(NamedTuple):
    """Consecutive rows whose scores are final.

    Attributes:
      first: number of the first row, from 0.
      times: of the rows, in nanoseconds since 1970; empty where there are none.
      values: as they came, a series per column.
      scores: P(anomalous).
    """

    first: int
    times: Int[np.ndarray, "stamps"]
    values: Float[np.ndarray, "rows columns"]
    scores: Float[np.ndarray, "rows columns"]


class Stream:
    """Scores the rows of one table; what has come so far is all it looks at.

    Windows begin every `stride` rows and the last one ends with the table. Where the scale is that of a reference
    stretch (`quantizer.scale='train'`), and of a series that was not trained on, `quantizer.reference_steps` rows from
    the first value on are waited for before that is scored.
    """

    def __init__(
        self,
        scorer: Scorer,
        columns: Sequence[Column],
        *,
        stride: int = 0,
        overlap: str = "mean",
        scaler: Scaler | None = None,
    ) -> None:
        """Nothing seen yet.

        Args:
          scorer: the detector.
          columns: of the table, each of them a series.
          stride: rows from one window to the next, at most a window; 0 is a window.
          overlap: 'mean' scores a row by the mean of all windows that it lies in; 'first' by the first, so that it is
            final up to `stride` rows after it came.
          scaler: fitted already; without it, one is fitted on the first rows.

        Raises:
          InputError: the stride is longer than a window.
        """
        self._scorer, self._columns = scorer, columns
        self._window, self._stride = scorer.window, scorer.stride(stride)
        self._scaler = scaler or fit_scaler(scorer.detector, columns, np.zeros((0, len(columns))))
        self._ranges: dict[int, tuple[float, float]] = {}  # of columns that were waited for
        waits = scaler is None and scorer.detector.config.quantizer.scale == "train"
        self._waiting = [i for i, one in enumerate(columns) if waits and not scorer.detector.range_of(*one)]
        self._overlap = overlap
        self._values, self._times = np.zeros((0, len(columns))), np.zeros(0, np.int64)
        self._scores = ScoreSums(columns=len(columns))
        self._base = 0  # number of the buffer's first row
        self._next = 0  # where the next window begins
        self._given = 0  # rows that were given out

    def add(self, values: Float[np.ndarray, "rows columns"], times: Int[np.ndarray, "stamps"]) -> ScoredRows:
        """Takes the next rows.

        Args:
          values: NaN where missing.
          times: of the rows, or none.

        Returns:
          The rows that are final by now, those of earlier calls among them; maybe none.
        """
        self._values = np.concatenate([self._values, values])
        self._times = np.concatenate([self._times, times])
        self._scores.append(len(values))
        starts = np.arange(self._next, self._scalable(ended=False) - self._window + 1, self._stride)
        if len(starts):
            self._score(starts, self._window)
            self._next = int(starts[-1]) + self._stride
        if self._overlap == "first":
            return self._give(self._base + int(np.argmin(np.append(self._scores.scored, False))))
        return self._give(max(self._given, min(self._next, self._end - self._window)))  # a last window may begin there

    def finish(self) -> ScoredRows:
        """The rows that are left."""
        self._scalable(ended=True)
        if self._end and self._end < self._window:
            self._score(np.zeros(1, int), self._end)
        elif not self._scores.scored.all():
            missing = np.arange(self._next, self._end - self._window + 1, self._stride)  # while a scale was unknown
            self._score(np.unique(np.append(missing, self._end - self._window)), self._window)
        return self._give(self._end)

    @property
    def _end(self) -> int:
        return self._base + len(self._values)

    def _scalable(self, ended: bool) -> int:
        """The row up to which all series can be scaled; finds the range of those whose reference has come by now."""
        steps = self._scorer.detector.config.quantizer.reference_steps
        until = self._end
        for i in list(self._waiting):
            known = from_first_value(self._values[:, i])
            if len(known) >= steps or (ended and len(known)):
                self._waiting.remove(i)
                (self._ranges[i],) = fit_scaler(self._scorer.detector, [self._columns[i]], known[:, None]).ranges
                self._scaler = fit_scaler(self._scorer.detector, self._columns, self._values[:0], self._ranges)
            elif len(known):
                until = min(until, self._end - len(known))
        return until

    def _score(self, starts: Int[np.ndarray, "windows"], length: int) -> None:
        """Adds the scores of windows that begin at these rows."""
        columns = self._values.shape[1]
        cut = np.full((len(starts), columns, self._window), np.nan)
        rows = np.lib.stride_tricks.sliding_window_view(self._values, length, axis=0)
        cut[:, :, :length] = rows[starts - self._base]
        real = np.broadcast_to(np.arange(self._window) < length, (len(starts) * columns, self._window))
        number = np.tile(np.arange(columns), len(starts))
        found = self._scorer(cut.reshape(-1, self._window), real, self._scaler, number)
        scores = found.reshape(len(starts), columns, -1)[:, :, :length].transpose(0, 2, 1).reshape(-1, columns)
        steps = (starts[:, None] + np.arange(length)).reshape(-1)
        self._scores.add(steps, scores, first_only=self._overlap == "first")

    def _give(self, end: int) -> ScoredRows:
        """The rows up to `end` that were not given out before; drops what no window will read again."""
        here = slice(self._given - self._base, end - self._base)
        scores = self._scores.means(np.arange(self._given, end))
        given = ScoredRows(self._given, self._times[here], self._values[here], scores)
        self._given = end
        # A last window may read as far back as one window.
        drop = max(0, min(end, self._next, self._end - self._window) - self._base)
        self._values, self._times = self._values[drop:], self._times[drop:]
        self._base += drop
        self._scores.drop_before(self._base)
        return given


def rows_for_scale(detector: Detector, columns: Sequence[Column]) -> int:
    """How many rows must have come before the first can be scaled.

    Args:
      detector: how it scales.
      columns: of the table.
    """
    quantizer = detector.config.quantizer
    known = all(detector.range_of(*column) for column in columns)
    return 0 if known or quantizer.scale != "train" else quantizer.reference_steps


def fit_scaler(
    detector: Detector,
    columns: Sequence[Column],
    values: Float[np.ndarray, "rows columns"],
    found: Mapping[int, tuple[float, float]] | None = None,
) -> Scaler:
    """The ranges of a new table's series.

    A series that the detector was trained on keeps its range; another gets that of its first rows, or of all of them
    where the detector looks ahead.

    Args:
      detector: how it scales.
      columns: of the table.
      values: the first rows, or all.
      found: by the number of a column, a range that is known already.
    """
    quantizer = detector.config.quantizer
    series = [Series(str(i), one, np.zeros(len(one), bool)) for i, one in enumerate(values.T)]
    known = {str(i): (found or {}).get(i) or detector.range_of(*column) for i, column in enumerate(columns)}
    return Scaler(
        quantizer.scale,
        series,
        [],
        reference_steps=quantizer.reference_steps,
        margin=quantizer.margin,
        typical_width=detector.typical_width,
        ranges={name: limits for name, limits in known.items() if limits},
    )
