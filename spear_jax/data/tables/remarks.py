"""Collects remarks on oddities in the rows of a table."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from spear_jax.data.tables.columns import Columns
from spear_jax.data.tables.rows import Rows
from spear_jax.data.tables.times import EARLIEST, latest

_COUNTER_ROWS = 20  # number of rows from which a column that only rises counts as a counter
_USUAL_STEPS = 100  # number of time steps whose median is the usual step
_DAYS_OF_1980, _DAYS_OF_2060 = 29_221, 58_441  # since 1900
_MOST_SECONDS = 366 * 86_400  # times since the start of a recording, which count from 0


_GATHERED = 20  # remarks of a kind that a run repeats in all that it writes


def gathered(remarks: Mapping[str, Sequence[str]], what: str, advice: str = "") -> list[str]:
    """Returns a line for each of the first remarks, with the first place that it is about and the number of the others.

    Args:
      remarks: the places of each remark.
      what: what the places are.
      advice: ends the line that counts the other remarks.
    """
    lines = []
    for remark, places in list(remarks.items())[:_GATHERED]:
        more = f" and {len(places) - 1:,} more {what}" if len(places) > 1 else ""
        lines.append(f"{places[0]}{more}: {remark}")
    if len(remarks) > _GATHERED:
        lines.append(f"{len(remarks) - _GATHERED:,} more remarks on {what}{advice}")
    return lines


@dataclasses.dataclass
class _Past:
    """What is kept of a series: its last row, and the steps in nanoseconds between its first times."""

    last_values: Float[np.ndarray, "_rows columns"]
    last_time: Int[np.ndarray, "_stamps"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    first_steps: Int[np.ndarray, "_steps"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    usual_step: float = 0.0


class Remarks:
    """Remarks on the rows of a table, collected chunk by chunk; iterating yields sentences."""

    def __init__(self, columns: Columns) -> None:
        """Starts without rows."""
        self._columns = columns
        self._guesses: list[str] = []
        width = len(columns.values)
        self._rows = self._infinite = 0
        self._rising = np.ones(width, bool)  # whether a column rises from row to row
        self._smallest, self._largest = np.full(width, np.inf), np.full(width, -np.inf)
        self._pasts: dict[str, _Past] = {}  # by series
        self._repeated = self._backward = self._gaps = 0
        self._earliest, self._latest = np.iinfo(np.int64).max, np.iinfo(np.int64).min
        self._reported: set[int] = set()
        self._left_out: list[str] = []

    def add(self, rows: Rows, guesses: Sequence[str]) -> None:
        """Examines the next rows.

        Args:
          rows: the rows.
          guesses: remarks of the parser, always in the same order; '' for no remark.
        """
        self._guesses = list(guesses)
        self._rows += len(rows)
        self._infinite += rows.infinite
        for name, part in rows.parts():
            past = self._pasts.setdefault(name, _Past(part.values[:0]))
            self._add_values(past, part.values)
            self._add_times(past, part.times)

    def _add_values(self, past: "_Past", values: Float[np.ndarray, "rows columns"]) -> None:
        rises = np.diff(np.concatenate([past.last_values, values]), axis=0)
        self._rising &= (rises > 0).all(axis=0)
        past.last_values = values[-1:] if len(values) else past.last_values
        finite = np.isfinite(values)
        self._smallest = np.minimum(self._smallest, values.min(axis=0, initial=np.inf, where=finite))
        self._largest = np.maximum(self._largest, values.max(axis=0, initial=-np.inf, where=finite))

    def _add_times(self, past: "_Past", times: Int[np.ndarray, "stamps"]) -> None:
        steps = np.diff(np.concatenate([past.last_time, times]))
        past.last_time = times[-1:]
        forward = steps[steps > 0]
        if len(forward) and len(past.first_steps) < _USUAL_STEPS:
            past.first_steps = np.concatenate([past.first_steps, forward])
            past.usual_step = float(np.median(past.first_steps))
        if len(times):
            self._earliest = min(self._earliest, int(times.min()))
            self._latest = max(self._latest, int(times.max()))
        self._repeated += int((steps == 0).sum())
        self._backward += int((steps < 0).sum())
        self._gaps += int((steps > 1.5 * past.usual_step).sum()) if past.usual_step else 0

    def _at_any_row(self) -> list[str]:
        """Returns the remarks that any row may cause, one per kind; '' for no remark."""
        columns = self._columns
        order = "rows keep the file's order, which should be that of time"
        steps = sorted({past.usual_step / 1e9 for past in self._pasts.values() if past.usual_step}) or [0.0]
        usual = f"where the usual step is {' to '.join(f'{step:g}' for step in dict.fromkeys((steps[0], steps[-1])))} s"
        counts = (
            (self._infinite, "infinite value", " (beyond 1e100) is taken", " (beyond 1e100) are taken", " as missing"),
            (self._repeated, "time stamp", " comes", " come", " twice"),
            (self._backward, "time stamp", " steps", " step", f" back; {order}"),
            (self._gaps, "gap", "", "", f", {usual}"),
        )
        return [
            *self._guesses,
            f"times are those of {columns.time!r} and {columns.clock!r} together" if columns.clock else "",
            columns.remark,
            *(
                f"{count} {noun}{f's{many}' if count > 1 else one}{rest}" if count else ""
                for count, noun, one, many, rest in counts
            ),
            self._unlikely_times(),
        ]

    def _unlikely_times(self) -> str:
        """Returns a sentence about times long ago or in the future; '' if there are none."""
        if self._latest < self._earliest:
            return ""
        first, last = pd.Timestamp(self._earliest), pd.Timestamp(self._latest)
        if self._latest >= latest():
            year_1904 = last - pd.Timedelta(days=24_107)
            return (
                f"times lie in the future ({last}); numbers are read as counts since 1970, and {year_1904.year} if they"
                " count from 1904, as in LabVIEW"
            )
        if self._earliest >= EARLIEST:
            return ""
        if self._earliest >= 0 and self._latest < _MOST_SECONDS * 10**9:
            days = range(_DAYS_OF_1980, _DAYS_OF_2060)
            in_excel = int(self._earliest / 1e9) in days and int(self._latest / 1e9) in days
            excel = ", or days since 1900, as in Excel (write dates)" if in_excel else ""
            return (
                f"the times end in {last.year}: are they seconds since 1970, or since the start of a recording{excel}?"
            )
        return f"times lie long ago ({first}); numbers are read as counts since 1970"

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
        for name, problem in self._idle().items():
            yield f"column {name!r} {problem}{': left out' if name in self._left_out else ''}"
        for name, rises in zip(self._columns.values, self._rising, strict=True):
            if rises and self._rows >= _COUNTER_ROWS and name not in self._left_out:
                yield (
                    f"column {name!r} only rises: a counter, or times? data.value_columns names the columns of values"
                )

    def leave_out_idle(self) -> list[bool]:
        """Returns which columns are left out since they never change in any row, unless the user named them."""
        idle = self._idle()
        idle_values = [name in idle and self._columns.reasons.get(name) == "numbers" for name in self._columns.values]
        few = self._rows < _COUNTER_ROWS  # too few to tell
        left_out = [False] * len(idle_values) if few or all(idle_values) else idle_values
        self._left_out = [name for name, out in zip(self._columns.values, left_out, strict=True) if out]
        return left_out

    def _idle(self) -> dict[str, str]:
        """Returns what is wrong with columns of one value, or none."""
        extremes = zip(self._columns.values, self._smallest, self._largest, strict=True)
        return {
            name: "has no value at all" if smallest > largest else f"is constant ({smallest:g})"
            for name, smallest, largest in extremes
            if smallest >= largest
        }
