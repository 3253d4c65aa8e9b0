"""Rows of a table, and what is odd about them."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

_A_COUNTER = 20  # rows that show one


_LONG_AGO = pd.Timestamp("1980-01-01").value


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns of a table are what.

    Attributes:
      time: the column of time stamps, or ''.
      values: the columns of values.
      label: the column of labels, or ''.
      left_out: columns of anything else.
      clock: the column of times of the day, where `time` is one of dates alone and both are there; or ''.
    """

    time: str
    values: tuple[str, ...]
    label: str
    left_out: tuple[str, ...]
    clock: str = ""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Consecutive rows of a file.

    Attributes:
      first: number of the first row, from 0.
      times: in nanoseconds since 1970; empty where there are none.
      values: a column per series; NaN where missing, infinite, or beyond `LARGEST`.
      labels: True where anomalous; None without a label column, or where it is not read.
      infinite: how many values were infinite or beyond.
    """

    first: int
    times: Int[np.ndarray, "stamps"]
    values: Float[np.ndarray, "rows columns"]
    labels: Bool[np.ndarray, "rows"] | None
    infinite: int


class Remarks:
    """What is odd about the rows of a file, gathered chunk by chunk."""

    _ENOUGH = 100  # steps between time stamps that show which one is usual

    def __init__(self, columns: Columns, beforehand: Sequence[str] = ()) -> None:
        """Nothing seen yet, but for what was odd beforehand."""
        self._columns, self.beforehand = columns, list(beforehand)
        self._rows = self._infinite = 0
        self._counts = np.ones(len(columns.values), bool)  # whether a column only rises, by whole numbers
        self._before = np.full((1, len(columns.values)), np.nan)  # the last row
        self._least = np.full(len(columns.values), np.inf)
        self._most = np.full(len(columns.values), -np.inf)
        self._last = np.zeros(0, np.int64)  # the last time stamp, if any
        self._early = np.zeros(0, np.int64)  # nanoseconds between the first rows
        self._usual = 0.0  # their median
        self._twice = self._back = self._gaps = 0
        self._told: set[int] = set()

    def add(self, rows: Rows) -> None:
        """Looks at the next chunk."""
        self._infinite += rows.infinite
        known = np.isfinite(rows.values)
        rises = np.diff(np.concatenate([self._before[: self._rows and 1], rows.values]), axis=0)
        self._counts &= ((rises >= 1) & (rises == np.round(rises))).all(axis=0)
        self._before = rows.values[-1:] if len(rows.values) else self._before
        self._rows += len(rows.values)
        self._least = np.minimum(self._least, rows.values.min(axis=0, initial=np.inf, where=known))
        self._most = np.maximum(self._most, rows.values.max(axis=0, initial=-np.inf, where=known))
        steps = np.diff(np.concatenate([self._last, rows.times]))
        self._last = rows.times[-1:]
        forward = steps > 0
        if forward.any() and len(self._early) < self._ENOUGH:
            self._early = np.concatenate([self._early, steps[forward]])
            self._usual = float(np.median(self._early))
        self._twice += int((steps == 0).sum())
        self._back += int((steps < 0).sum())
        self._gaps += int((steps > 1.5 * self._usual).sum()) if self._usual else 0

    def _so_far(self) -> list[str]:
        """What the last row need not have come for, a sentence each; '' where there is nothing to say."""
        left_out = ", ".join(self._columns.left_out)
        time, clock = self._columns.time, self._columns.clock
        both = f"times are those of {time!r} and {clock!r} together" if clock else ""
        counted = (
            (self._infinite, "infinite values (beyond 1e100) are taken as missing"),
            (self._twice, "time stamps come twice"),
            (self._back, "time stamps step back; rows keep the file's order, which should be that of time"),
            (self._gaps, f"gaps, where the usual step is {self._usual / 1e9:g} s"),
        )
        return [
            *self.beforehand,
            both,
            f"columns that are left out (no numbers, or another label): {left_out}" if left_out else "",
            *(f"{count} {what}" if count else "" for count, what in counted),
        ]

    def news(self) -> Iterator[str]:
        """A sentence for each kind of thing that was not odd before this was last called."""
        for kind, remark in enumerate(self._so_far()):
            if remark and kind not in self._told:
                self._told.add(kind)
                yield remark

    def __iter__(self) -> Iterator[str]:
        """A sentence each."""
        if not self._rows:
            yield "no rows: left out"
            return
        yield from filter(None, self._so_far())
        if len(self._last) and 0 <= self._last[0] < _LONG_AGO:
            yield f"the times end in {pd.Timestamp(self._last[0]).year}: are they seconds since 1970?"
        for name, least, most in zip(self._columns.values, self._least, self._most, strict=True):
            if least > most:
                yield f"column {name!r} has no value at all"
            elif least == most:
                yield f"column {name!r} is constant ({least:g})"
        for name, counts in zip(self._columns.values, self._counts, strict=True):
            if counts and self._rows >= _A_COUNTER:
                yield (
                    f"column {name!r} only rises, by whole numbers: a counter, or times? data.value_columns names the"
                    " columns of values"
                )
