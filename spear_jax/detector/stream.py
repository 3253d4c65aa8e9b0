"""Scores the rows of a table as they arrive, in bounded memory; all new series are scored this way."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from spear_jax.config import view_names
from spear_jax.data import ScoreSums, TableScaler, largest_distance
from spear_jax.detector.scorer import Column, Scorer
from spear_jax.errors import InputError
from spear_jax.evaluation import ReadoutStream

_NO_CHANGE = 1e-6


class ScoredRows(NamedTuple):
    """Consecutive rows with their final scores.

    Attributes:
      first: the number of the first row, from 0.
      times: time of each row in nanoseconds since 1970; empty if the rows have no times.
      values: a column per series; NaN where missing.
      scores: the score of each value, also of a missing one, never NaN; P(anomalous), unless the detector reads out
        more.
    """

    first: int
    times: Int[np.ndarray, "stamps"]
    values: Float[np.ndarray, "rows columns"]
    scores: Float[np.ndarray, "rows columns"]


class Stream:
    """Scores the rows of one table, without looking ahead.

    Windows begin every `stride` rows, and the last one ends with the table. No window is scored before the range of all
    its columns is known, see `TableScaler`.
    """

    def __init__(
        self,
        scorer: Scorer,
        columns: Sequence[Column],
        *,
        stride: int = 0,
        overlap: str = "mean",
        scaler: TableScaler | None = None,
    ) -> None:
        """Starts before the first row.

        Args:
          scorer: the detector.
          columns: columns of the table, each of them a series.
          stride: rows from one window to the next, at most a window; 0 is a window.
          overlap: 'mean' gives a row the mean score of all windows that it lies in; 'first' that of the first window,
            so that the score is final at most `stride` rows later, plus those that views and readout look ahead.
          scaler: a fitted scaler; without it, one is fitted to the rows as they arrive.

        Raises:
          InputError: the stride is longer than a window.
        """
        self._scorer, self._overlap = scorer, overlap
        self._window, self._stride = scorer.window, scorer.stride_or_window(stride)
        self._scaler = scaler or scorer.scaler(columns)
        self._values, self._times = np.zeros((0, len(columns))), np.zeros(0, np.int64)
        self._views = scorer.views(columns)
        self._scores = ScoreSums(columns=len(columns))
        self._buffer_start = 0  # the row that the buffer begins with
        self._next_window = 0  # the row that the next window begins with
        self._readout = ReadoutStream(scorer.detector.readout, len(columns))
        self._read = 0  # rows passed to the readout
        self._emitted = 0  # rows
        self._columns = columns
        self._extremes = np.zeros((0, len(columns)))  # lowest and highest score of each column
        self._outside = np.zeros(len(columns), int)  # values far outside their range
        self._remarked: set[str] = set()

    @property
    def _end(self) -> int:
        return self._buffer_start + len(self._values)

    def add(self, values: Float[np.ndarray, "rows columns"], times: Int[np.ndarray, "stamps"]) -> ScoredRows:
        """Adds rows; returns those of this and earlier calls whose scores are now final.

        Args:
          values: the values; NaN where missing.
          times: times in nanoseconds since 1970, or empty.
        """
        self._values = np.concatenate([self._values, values])
        self._times = np.concatenate([self._times, times])
        self._scores.append(len(values))
        self._views.add(values)
        scalable = min(self._buffer_start + self._scaler.fit(self._values, ended=False), self._views.final)
        starts = np.arange(self._next_window, scalable - self._window + 1, self._stride)
        if len(starts):
            self._score(starts, self._window)
            self._next_window = int(starts[-1]) + self._stride
        if self._overlap == "first":
            return self._emit(self._buffer_start + int(np.argmin(np.append(self._scores.scored, False))))
        last_window = self._end - self._window  # as if the table ended here
        return self._emit(max(self._read, min(self._next_window, last_window)))

    def finish(self) -> ScoredRows:
        """Returns the remaining rows."""
        self._scaler.fit(self._values, ended=True)
        self._views.finish()
        last_window = self._end - self._window
        if self._end and last_window < 0:
            self._score(np.zeros(1, int), self._end)
        elif not self._scores.scored.all():
            # These windows had to wait for the range of a column.
            starts = np.arange(self._next_window, last_window + 1, self._stride)
            self._score(np.unique(np.append(starts, last_window)), self._window)
        return self._emit(self._end, ended=True)

    def remarks(self, *, ended: bool) -> list[str]:
        """Returns new warnings about columns of which the scores say little, after ten windows or at the end."""
        if not self._emitted or not (ended or self._emitted >= 10 * self._window):
            return []
        low, high = self._extremes
        remarks = []
        for i, column in enumerate(self._columns):
            name = column.series or column.name
            if self._emitted > 1 and high[i] - low[i] < _NO_CHANGE and f"alike {i}" not in self._remarked:
                self._remarked.add(f"alike {i}")
                remarks.append(f"all scores of {name!r} so far are alike ({low[i]:.4g}): the detector says nothing")
            if self._outside[i] > 0.1 * self._emitted and f"outside {i}" not in self._remarked:
                self._remarked.add(f"outside {i}")
                share = self._outside[i] / self._emitted
                bottom, top = self._scaler.range_of(i)
                remarks.append(
                    f"{share:.0%} of the values of {name!r} so far lie far outside the range by which they are scaled,"
                    f" {bottom:g} to {top:g}: their scores say little"
                )
        return remarks

    def _score(self, starts: Int[np.ndarray, "windows"], length: int) -> None:
        """Scores the windows of `length` rows that begin at `starts`."""
        columns = self._values.shape[1]
        values = np.full((len(starts), columns, self._window), np.nan)
        stretches = np.lib.stride_tricks.sliding_window_view(self._values, length, axis=0)
        values[:, :, :length] = stretches[starts - self._buffer_start]
        real = np.broadcast_to(np.arange(self._window) < length, (len(starts) * columns, self._window))
        numbers = np.tile(np.arange(columns), len(starts))
        views = np.pad(
            self._views.windows(starts, length),
            ((0, 0), (0, 0), (0, self._window - length), (0, 0)),
            constant_values=np.nan,
        ).reshape(len(real), self._window, -1)
        scores = self._scorer.score(values.reshape(-1, self._window), views, real, numbers, self._scaler)
        by_step = scores.reshape(len(starts), columns, -1)[:, :, :length].transpose(0, 2, 1)
        steps = starts[:, None] + np.arange(length)
        self._scores.add(steps.reshape(-1), by_step.reshape(-1, columns), first_only=self._overlap == "first")

    def _emit(self, end: int, *, ended: bool = False) -> ScoredRows:
        """Reads out the rows before `end`, and drops rows that no window will read again.

        Returns:
          The rows that were not returned yet and whose scores are final.
        """
        scores = self._readout.add(self._scores.means(np.arange(self._read, end)), self._distances(end))
        if ended:
            scores = np.concatenate([scores, self._readout.finish()])
        if not np.isfinite(scores).all():
            raise InputError(f"scores from row {self._emitted} on are not finite numbers")
        first, self._read, self._emitted = self._emitted, end, self._emitted + len(scores)
        rows = slice(first - self._buffer_start, self._emitted - self._buffer_start)
        scored = ScoredRows(first, self._times[rows], self._values[rows], scores)
        if len(scores):
            both = np.concatenate([self._extremes, scores])
            self._extremes = np.stack([both.min(axis=0), both.max(axis=0)])
            self._outside += self._scaler.far_outside(scored.values).sum(axis=0)
        # The last window may start up to a window before the end.
        drop = max(0, min(self._emitted, self._next_window, self._end - self._window) - self._buffer_start)
        self._values, self._times = self._values[drop:], self._times[drop:]
        self._buffer_start += drop
        self._scores.drop_before(self._buffer_start)
        self._views.drop_before(self._buffer_start)
        return scored

    def _distances(self, end: int) -> Float[np.ndarray, "rows columns"]:
        """Returns the largest distances of the rows before `end` that the readout has not got yet."""
        numbers = self._views.windows(np.array([self._read]), end - self._read)[0]
        return largest_distance(view_names(self._scorer.detector.config)[1:], numbers).T
