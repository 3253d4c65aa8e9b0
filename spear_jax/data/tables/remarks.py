"""Collects remarks on oddities in the rows of a table."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from spear_jax.data.tables.columns import Columns
from spear_jax.data.tables.rows import Rows

_COUNTER_ROWS = 20  # number of rows from which a column that rises by whole numbers counts as a counter
_USUAL_STEPS = 100  # number of time steps whose median is the usual step
_EARLIEST = pd.Timestamp("1980-01-01").value

_LONG_TABLE = (
    "if another column names the sensor of each row, this is a long table: write a column or a file per sensor (see"
    " docs/data_formats.md)"
)


class Remarks:
    """Remarks on the rows of a table, collected chunk by chunk; iterating yields sentences."""

    def __init__(self, columns: Columns) -> None:
        """Starts without rows."""
        self._columns = columns
        self._guesses: list[str] = []
        width = len(columns.values)
        self._rows = self._infinite = 0
        self._last_values = np.zeros((0, width))
        self._counter = np.ones(width, bool)  # whether a column only rises, by whole numbers
        self._smallest, self._largest = np.full(width, np.inf), np.full(width, -np.inf)
        self._last_time = np.zeros(0, np.int64)
        self._first_steps = np.zeros(0, np.int64)  # nanoseconds
        self._usual_step = 0.0
        self._repeated = self._backward = self._gaps = 0
        self._reported: set[int] = set()

    def add(self, rows: Rows, guesses: Sequence[str]) -> None:
        """Examines the next rows.

        Args:
          rows: the rows.
          guesses: remarks of the parser, always in the same order; '' for no remark.
        """
        self._guesses = list(guesses)
        self._rows += len(rows)
        self._infinite += rows.infinite
        self._add_values(rows.values)
        self._add_times(rows.times)

    def _add_values(self, values: Float[np.ndarray, "rows columns"]) -> None:
        rises = np.diff(np.concatenate([self._last_values, values]), axis=0)
        self._counter &= ((rises >= 1) & (rises == np.round(rises))).all(axis=0)
        self._last_values = values[-1:] if len(values) else self._last_values
        finite = np.isfinite(values)
        self._smallest = np.minimum(self._smallest, values.min(axis=0, initial=np.inf, where=finite))
        self._largest = np.maximum(self._largest, values.max(axis=0, initial=-np.inf, where=finite))

    def _add_times(self, times: Int[np.ndarray, "stamps"]) -> None:
        steps = np.diff(np.concatenate([self._last_time, times]))
        self._last_time = times[-1:]
        forward = steps[steps > 0]
        if len(forward) and len(self._first_steps) < _USUAL_STEPS:
            self._first_steps = np.concatenate([self._first_steps, forward])
            self._usual_step = float(np.median(self._first_steps))
        self._repeated += int((steps == 0).sum())
        self._backward += int((steps < 0).sum())
        self._gaps += int((steps > 1.5 * self._usual_step).sum()) if self._usual_step else 0

    def _at_any_row(self) -> list[str]:
        """Returns the remarks that any row may cause, one per kind; '' for no remark."""
        columns, left_out = self._columns, ", ".join(self._columns.left_out)
        order = "rows keep the file's order, which should be that of time"
        usual = f"where the usual step is {self._usual_step / 1e9:g} s"
        counts = (
            (self._infinite, "infinite value", " (beyond 1e100) is taken", " (beyond 1e100) are taken", " as missing"),
            (self._repeated, "time stamp", " comes", " come", " twice"),
            (self._backward, "time stamp", " steps", " step", f" back; {order}"),
            (self._gaps, "gap", "", "", f", {usual}"),
        )
        return [
            *self._guesses,
            f"times are those of {columns.time!r} and {columns.clock!r} together" if columns.clock else "",
            f"columns that are left out (no numbers, or another label): {left_out}" if left_out else "",
            *(
                f"{count} {noun}{f's{many}' if count > 1 else one}{rest}" if count else ""
                for count, noun, one, many, rest in counts
            ),
            _LONG_TABLE if self._repeated and columns.left_out and len(columns.values) == 1 else "",
        ]

    def news(self) -> Iterator[str]:
        """Yields a sentence for each kind of remark that is new since the last call."""
        for kind, remark in enumerate(self._at_any_row()):
            if remark and kind not in self._reported:
                self._reported.add(kind)
                yield remark

    def __iter__(self) -> Iterator[str]:
        if not self._rows:
            yield "no rows: left out"
            return
        yield from filter(None, self._at_any_row())
        if len(self._last_time) and 0 <= self._last_time[0] < _EARLIEST:
            yield f"the times end in {pd.Timestamp(self._last_time[0]).year}: are they seconds since 1970?"
        for name, smallest, largest in zip(self._columns.values, self._smallest, self._largest, strict=True):
            if smallest > largest:
                yield f"column {name!r} has no value at all"
            elif smallest == largest:
                yield f"column {name!r} is constant ({smallest:g})"
        for name, counter in zip(self._columns.values, self._counter, strict=True):
            if counter and self._rows >= _COUNTER_ROWS:
                yield (
                    f"column {name!r} only rises, by whole numbers: a counter, or times? data.value_columns names the"
                    " columns of values"
                )
