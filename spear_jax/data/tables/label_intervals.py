"""Labels series from a CSV of anomaly intervals, given as rows or times."""

import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from etils import epath
from jaxtyping import Int

from spear_jax.data.series import Series
from spear_jax.data.tables.columns import check_unique
from spear_jax.data.tables.csv_format import find_delimiter, refuse_extra_cells, split_line
from spear_jax.data.tables.names import is_answer_name, split_words
from spear_jax.data.tables.numbers import is_number
from spear_jax.data.tables.quotes import OneLineFields
from spear_jax.data.tables.rows import NORMAL
from spear_jax.data.tables.times import DIGITS, EARLIEST, UNITS, find_time_formats, parse_stamps
from spear_jax.errors import InputError, listed, one_line
from spear_jax.storage import check_ordinary

_ROW_NUMBER = re.compile("-?[0-9]{1,8}")
_ISO_DAY = re.compile(r"\d{4}([-/. ]?)\d{2}\1\d{2}")
_DAY_FIRST, _MONTH_FIRST = "day first", "month first"
_PLACES = ("start", "end", "series")
_CLASS_WORDS = frozenset(
    (
        *("class", "type", "label", "labels", "kind", "category", "status", "state", "outlier", "attack"),
        *("severity", "level", "klasse", "typ", "art", "stufe"),
    )
)
_SURELY_NORMAL = frozenset(("normal", "nominal", "healthy"))
_NO_ANOMALY = r"(no|non|not|without|kein|keine|ohne)[\s_-]+(fault|anomal|attack|outlier|failure|event|fehler|störung).*"
_HOUR_SHIFTS = (1_800_000_000_000, 3_600_000_000_000)  # nanoseconds that clocks go back by
_DAY = 86_400_000_000_000
_SHOWN = 6  # classes, in a remark


class TimeForm(NamedTuple):
    """How the times of a table are written: its format, see `find_time_formats`, and whether they have an offset."""

    format: str
    offset: bool


class Moment(NamedTuple):
    """A cell that is a time.

    Attributes:
      first: nanoseconds since 1970.
      last: the end of the day if the cell is a date alone, else the same.
      offset: whether it has an offset from UTC.
    """

    first: int
    last: int
    offset: bool


Moments = Mapping[str, Moment]  # by the cell's text


def label_by_intervals(
    recorded: Sequence[Series], path: str, forms: Mapping[str, TimeForm]
) -> tuple[list[Series], list[str]]:
    """Labels the rows of series whose number or time lies in an interval of a CSV, whatever the order of the rows.

    Args:
      recorded: the series.
      path: a CSV with the columns start and end (rows from 0, or times; both inclusive), if there are several groups of
        series also series (a name, group or column); rows that a column of classes calls normal do not count.
      forms: how the times of each group are written.

    Returns:
      The labelled series, and remarks on the file.

    Raises:
      InputError: the file cannot be read; or an interval lies outside its series, ends before it begins, contains no
        row, or can be read in two ways.
    """
    if not path:
        raise InputError(
            "config.data.intervals is empty; data.labels=intervals needs a CSV with the columns start, end"
        )
    file = epath.Path(path).expanduser()
    check_ordinary(file)
    try:
        table = _read(file)
        several = len({series.group or series.name for series in recorded}) > 1
        for column in ("start", "end", *(["series"] if several else [])):
            if column not in table:
                where = ", which says where an interval applies (empty: everywhere)" if column == "series" else ""
                raise InputError(f"no column {column!r}{where}; found {', '.join(map(str, table.columns))}")
        table, remarks = _leave_out_normal(table)
        labelled, ambiguous, more = _label_by_table(recorded, table, forms)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    if ambiguous:
        remarks.append("dates are read day first; month first would fit as well")
    return labelled, [f"{file.name}: {remark}" for remark in [*remarks, *more]]


def _read(file: epath.Path) -> pd.DataFrame:
    try:
        with file.open("rb") as raw:
            start = raw.read(1 << 16).decode("utf-8-sig", errors="replace")
            raw.seek(0)
            lines = [line for line in start.splitlines() if line.strip()]
            if not lines:
                raise ValueError("it is empty")
            delimiter = find_delimiter(lines)
            with refuse_extra_cells():
                table = pd.read_csv(
                    io.BufferedReader(OneLineFields(raw, delimiter)),
                    dtype=str,
                    keep_default_na=False,
                    sep=delimiter,
                    skipinitialspace=True,
                    index_col=False,
                )
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as CSV ({one_line(error)})") from error
    check_unique([name.strip() for name in split_line(lines[0], delimiter)])
    table = table.rename(columns=str.strip)
    return table.rename(columns={name: name.lower() for name in table if name.lower() in _PLACES})


def _leave_out_normal(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Leaves out intervals of a class that means 'no anomaly'; returns the others, and remarks."""
    remarks: list[str] = []
    for name in [name for name in table if name not in _PLACES]:
        words = table[name].str.strip().str.lower()
        by_name = not _CLASS_WORDS.isdisjoint(split_words(str(name))) or is_answer_name(str(name))
        normal = words.isin(NORMAL | {"none"}) if by_name else words.isin(_SURELY_NORMAL)
        normal |= words.str.fullmatch(_NO_ANOMALY)
        if not by_name and not normal.any() and not 1 < words.nunique() < len(words):
            continue
        counts = [f"{value or 'empty'} ({count})" for value, count in words[normal].value_counts().items()]
        others = [f"{value or 'empty'} ({count})" for value, count in words[~normal].value_counts().items()]
        remark = f"column {name!r}: intervals of class {listed(others, _SHOWN) or 'none'} are anomalies"
        remarks.append(remark + (f", those of {listed(counts, _SHOWN)} are not" if counts else ""))
        table = table[~normal]
    return table, remarks


def _label_by_table(
    recorded: Sequence[Series], table: pd.DataFrame, forms: Mapping[str, TimeForm]
) -> tuple[list[Series], bool, list[str]]:
    """Labels series, using the order of day and month for which all intervals are valid; day first if both are.

    Returns:
      The labelled series, whether the other order would give other labels, and remarks.
    """
    labellings: list[list[Series]] = []
    errors: list[InputError] = []
    remarks: list[str] = []
    for moments in _parse_moments(table):
        try:
            labellings.append(_label(recorded, table, moments, forms, remarks))
        except InputError as error:
            errors.append(error)
    if not labellings:
        raise errors[0]
    first, last = labellings[0], labellings[-1]
    ambiguous = any(not np.array_equal(a.labels, b.labels) for a, b in zip(first, last, strict=True))
    return first, ambiguous, list(dict.fromkeys(remarks))


def _parse_moments(table: pd.DataFrame) -> list[Moments]:
    """Parses the cells that are times, once for each order of day and month that fits all of them."""
    by_order: dict[str, dict[str, Moment]] = {_DAY_FIRST: {}, _MONTH_FIRST: {}}
    for number, row in zip(table.index + 1, table.to_dict("records"), strict=True):
        for column in ("start", "end"):
            text = row[column]
            if is_number(text):  # a row or a time, depending on the series
                continue
            cell = pd.Series([text])
            for time_format in find_time_formats(cell):
                moment = _parse_moment(cell, time_format)
                for order, moments in by_order.items():
                    if moment and _order(time_format) in ("", order):
                        moments[text] = moment
            if not any(text in moments for moments in by_order.values()):
                raise InputError(f"row {number}, column {column!r}: {text!r} is neither a row number nor a time")
    texts = set().union(*by_order.values())
    complete = [moments for moments in by_order.values() if set(moments) == texts]
    if not complete:
        month_first, day_first = (next(text for text in texts if text not in moments) for moments in by_order.values())
        raise InputError(f"{month_first!r} has the month first and {day_first!r} the day first; use one order")
    return list(complete)


def _parse_moment(cell: pd.Series, time_format: str) -> Moment | None:
    """Parses a time; None if it is none, or only a month."""
    times, offset = parse_stamps(cell, time_format)
    text = str(cell[0]).strip()
    if times.isna()[0] or (time_format == "ISO8601" and not re.match(_ISO_DAY, text)):
        return None
    first = int(times.to_numpy("datetime64[ns]").astype(np.int64)[0])
    is_day = _ISO_DAY.fullmatch(text) if time_format == "ISO8601" else not re.search("%[HI]", time_format)
    return Moment(first, first + _DAY - 1 if is_day else first, bool(offset))


def _order(time_format: str) -> str:
    """Returns which of day and month comes first in a format; '' if they cannot be confused."""
    day, month = time_format.find("%d"), time_format.find("%m")
    if day < 0 or month < 0 or time_format.startswith("%Y"):
        return ""
    return _DAY_FIRST if day < month else _MONTH_FIRST


def _label(
    recorded: Sequence[Series],
    table: pd.DataFrame,
    moments: Moments,
    forms: Mapping[str, TimeForm],
    remarks: list[str],
) -> list[Series]:
    """Labels series; adds to the remarks."""
    labels = {series.name: np.zeros(len(series), bool) for series in recorded}
    places = {series.name: _Places(series, forms[series.group], moments, remarks) for series in recorded}
    for number, row in zip(table.index + 1, table.to_dict("records"), strict=True):
        name = row.get("series", "").strip()
        chosen = [series for series in recorded if name in ("", series.name, series.group, series.column)]
        if not chosen:
            raise InputError(f"row {number}: no series is named {name!r}; there are {listed(list(labels))}")
        for series in chosen:
            try:
                labels[series.name][places[series.name].find(row["start"], row["end"])] = True
            except InputError as error:
                raise InputError(f"row {number}: {row['start']!r} to {row['end']!r} {error}") from error
    return [dataclasses.replace(series, labels=labels[series.name], labelled=True) for series in recorded]


class _Places:
    """Finds the rows of a series that lie in intervals."""

    def __init__(self, series: Series, form: TimeForm, moments: Moments, remarks: list[str]) -> None:
        self._series, self._form, self._moments, self._remarks = series, form, moments, remarks
        times = series.timestamps.astype("datetime64[ns]").astype(np.int64)
        self._order = np.argsort(times, kind="stable")
        self._sorted = times[self._order]
        self._twice = [] if form.offset else _repeated_hours(times)

    def find(self, start: str, end: str) -> Int[np.ndarray, "rows"]:
        """Returns the rows from start to end, both included.

        Raises:
          InputError: there are none, or it is not clear which ones are meant; the message goes on after the interval.
        """
        if is_number(start) != is_number(end):
            raise InputError("is a number and a time; allowed: two row numbers, or two times")
        if not is_number(start):
            return self._between_moments(self._moments[start], self._moments[end])
        if self._form.format in DIGITS.values():
            first, last = (_parse_moment(pd.Series([text.strip()]), self._form.format) for text in (start, end))
            if first and last:
                return self._between_moments(first, last)
        if self._form.format in UNITS or (len(self._sorted) and not _ROW_NUMBER.fullmatch(start.strip())):
            return self._between_numbers(start, end)
        return self._between_rows(start, end)

    def _between_rows(self, start: str, end: str) -> Int[np.ndarray, "rows"]:
        first, last = float(start), float(end)
        if first % 1 or last % 1 or not 0 <= first <= last < len(self._series):
            raise self._outside()
        return np.arange(int(first), int(last) + 1)

    def _between_numbers(self, start: str, end: str) -> Int[np.ndarray, "rows"]:
        """Reads numbers in the unit of the times; as rows if those lie in our time, which small numbers cannot mean."""
        unit = self._form.format if self._form.format in UNITS else ""
        cells = pd.Series([float(start), float(end)])
        times, _ = parse_stamps(cells, unit or find_time_formats(cells)[0])
        first, last = times.to_numpy("datetime64[ns]").astype(np.int64).tolist()
        if self._inside(first, first, last, last):
            if not self._form.offset:
                raise InputError("counts from 1970 in UTC, but the rows have no zone; write the times as the rows do")
            rows = self._rows(first, last)
            if not len(rows):
                raise InputError(
                    f"has no row between these times, in {unit}; row numbers are not read beside such times"
                )
            self._remarks.append("numbers are times, as in the rows, and not row numbers")
            return rows
        if self._sorted[0] >= EARLIEST:
            rows = self._between_rows(start, end)
            self._remarks.append("numbers are rows, since no row has such a time")
            return rows
        raise InputError(
            f"is not between the first and the last time of series {self._series.name!r} ({self._extent()}); numbers"
            f" are times in {unit}, as in the rows, and not row numbers"
        )

    def _between_moments(self, first: Moment, last: Moment) -> Int[np.ndarray, "rows"]:
        if not len(self._sorted):
            raise InputError(f"is given as times, but series {self._series.name!r} has no time stamps")
        if self._form.format in UNITS and not first.offset and not last.offset:
            self._remarks.append("times without an offset are read as UTC, since those of the rows count from 1970")
        elif (first.offset, last.offset) != (self._form.offset, self._form.offset):
            here, there = ("have one", "not all of these do") if self._form.offset else ("have none", "these do")
            raise InputError(
                f"and the rows differ in their offset from UTC (as in 12:00+02:00): the rows {here}, {there}; write"
                " both in the same way"
            )
        if not self._inside(first.first, first.last, last.first, last.last):
            raise self._outside()
        for begin, finish in self._twice:
            if begin <= last.last and first.first <= finish:
                raise InputError(
                    f"touches the hour from {pd.Timestamp(begin)}, which series {self._series.name!r} has twice (clocks"
                    " go back); give row numbers, or times with an offset in both files"
                )
        rows = self._rows(first.first, last.last)
        if not len(rows):
            after = int(np.searchsorted(self._sorted, first.first))
            near = [str(pd.Timestamp(self._sorted[place])) for place in (after - 1, after)]
            raise InputError(f"has no row of series {self._series.name!r}; the nearest are at {near[0]} and {near[1]}")
        return rows

    def _inside(self, start: int, start_last: int, end: int, end_last: int) -> bool:
        """Returns whether an interval, whose bounds may be whole days, begins and ends within the series' times."""
        low, high = int(self._sorted[0]), int(self._sorted[-1])
        return start <= end_last and start_last >= low and start <= high and end_last >= low and end <= high

    def _rows(self, first: int, last: int) -> Int[np.ndarray, "rows"]:
        begin, end = np.searchsorted(self._sorted, first), np.searchsorted(self._sorted, last, side="right")
        return self._order[begin:end]

    def _outside(self) -> InputError:
        return InputError(f"is not an interval in series {self._series.name!r}, which has {self._extent()}")

    def _extent(self) -> str:
        rows = f"rows 0 to {len(self._series) - 1}"
        if not len(self._sorted):
            return rows
        return f"{rows}, {pd.Timestamp(self._sorted[0])} to {pd.Timestamp(self._sorted[-1])}"


def _repeated_hours(times: Int[np.ndarray, "stamps"]) -> list[tuple[int, int]]:
    """Returns the first and last time of each hour that comes twice since clocks were put back."""
    steps = np.diff(times)
    if not (steps > 0).any():
        return []
    usual = float(np.median(steps[steps > 0]))
    goes_on = np.append(steps[1:], usual)
    twice = np.zeros(len(steps), bool)
    for shift in _HOUR_SHIFTS:
        twice |= np.abs(steps - usual + shift) < 0.5 * usual
    twice &= (goes_on > 0) & (goes_on < 1.5 * usual) & (usual < min(_HOUR_SHIFTS))
    back = np.flatnonzero(twice)
    return list(zip(times[back + 1].tolist(), times[back].tolist(), strict=True))
