"""Decides on the role of each column of a table: time, value, label or left out, with the reason."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from spear_jax.data.tables.names import (
    is_answer_name,
    is_id_name,
    is_index_name,
    is_label_name,
    is_time_name,
    is_unnamed,
    may_be_answer_name,
)
from spear_jax.data.tables.numbers import parse_numbers
from spear_jax.data.tables.times import (
    find_time_formats,
    in_our_time,
    looks_like_clock_counts,
    looks_like_dates_and_times,
    looks_like_times,
    parse_times,
    rises,
)
from spear_jax.errors import InputError, listed

_DATE_NAMES = ("date", "day", "datum", "fecha")  # of a pair of columns
_CLOCK_NAMES = ("time", "clock", "zeit", "uhrzeit", "heure", "hora")
_JUDGED_ROWS = 20  # fewer rows say little about what a column of numbers counts
_FEW = 20  # codes and classes have at most so many values

_COUNTS_ROWS = "counts the rows"
_EVEN_STEPS = "rises by equal steps, as times do: data.timestamp_column or data.value_columns can name it"
_SAME_STEP = 0.01  # of the usual step; times are rounded
ANSWER = "named like labels, scores or flags"


@dataclasses.dataclass(frozen=True)
class Columns:
    """The roles of a table's columns; an empty role is absent or not chosen yet.

    Attributes:
      time: the column of time stamps.
      values: the columns of values.
      label: the column of labels.
      left_out: all other columns.
      clock: the column of times of day if `time` contains dates only.
      reasons: why each column has its role.
      ids: columns that are left out and may tell which series a row belongs to.
      unseen: the columns of the training if the table has none of them.
      series: in a long table, the column that names the series of each row.
    """

    time: str = ""
    values: tuple[str, ...] = ()
    label: str = ""
    left_out: tuple[str, ...] = ()
    clock: str = ""
    reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ids: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    series: str = ""

    def without(self, reasons: Mapping[str, str]) -> "Columns":
        """Returns the roles with further value columns left out, for the given reasons."""
        values = tuple(name for name in self.values if name not in reasons)
        return dataclasses.replace(
            self, values=values, left_out=(*self.left_out, *reasons), reasons={**self.reasons, **reasons}
        )

    @property
    def remark(self) -> str:
        """Returns a sentence about the columns that are left out, or are not those of the training; '' for none."""
        out = f"columns that are left out: {_with_reasons(self.left_out, self.reasons)}" if self.left_out else ""
        unseen = (
            f"no column of the training is here ({listed(self.unseen)}): new ones are scored" if self.unseen else ""
        )
        return "; ".join(filter(None, (unseen, out)))


UNNAMED = Columns()


class IntervalsError(InputError):
    """The table has intervals, not values."""


def choose_columns(head: pd.DataFrame, named: Columns, usual: Columns) -> Columns:
    """Decides on the roles of a table's columns, from their names and first rows.

    Roles that the user named come first, then those of `usual`, then what names and contents say. A column whose name
    is that of a label, score, flag, index or id is no value unless the user names it, since it would give the answer
    away or say nothing.

    Args:
      head: the first rows.
      named: columns that the user named.
      usual: the columns of the training; if its columns of values are there, no others are values.

    Raises:
      InputError: a named column does not exist, some columns of the training are missing, or no column has values.
    """
    columns = [str(name) for name in head.columns]
    named = dataclasses.replace(named, values=_match(named.values, columns))
    _check_named(columns, named)
    values = named.values or tuple(name for name in columns if name in usual.values)
    if not named.values:
        _check_complete(columns, values, usual.values)
    unseen = () if values else usual.values
    time, label, series = named.time, named.label, named.series
    chosen, others = "as in training", "not in training"
    if named.values:
        chosen, others = "named in data.value_columns", "not in data.value_columns"
    reasons = dict.fromkeys(values, chosen)
    if series:
        reasons[series] = "named in data.series_column"
    free = [name for name in columns if name not in (time, label, series, *values)]
    label = label or _first(name for name in free if name == usual.label)
    label = label or _first(name for name in free if is_label_name(name))
    free = [name for name in free if name != label]
    clock = ""
    if time:
        reasons[time] = "named in data.timestamp_column"
    else:
        time, clock, reasons_of_times = _choose_time(head, free, usual.time)
        reasons |= reasons_of_times
    if label:
        reasons[label] = "named in data.label_column" if named.label else "by its name"
    one_series = head.index[head[series] == head[series].iloc[0]] if series and len(head) else head.index
    for name in columns:
        if name not in reasons:
            reasons[name] = others if values else _reason_against(head[name], name, one_series)
    if not values:
        values = tuple(name for name in columns if not reasons[name]) or _fall_back(columns, reasons)
        reasons |= {name: reasons[name] or "numbers" for name in values}
    if not named.values and {"start", "end"} <= {name.lower() for name in columns}:
        values = tuple(name for name in values if name.lower() not in ("start", "end"))
        if not values:
            raise IntervalsError("has intervals (start, end) and no values; data.intervals names such a file")
    if not values:
        raise InputError(f"no column of values; {_with_reasons(columns, reasons)}; data.value_columns can name them")
    left_out = tuple(name for name in columns if name not in (time, clock, label, series, *values))
    ids = tuple(name for name in left_out if _may_name_series(head[name], name))
    return Columns(time, values, label, left_out, clock, reasons, ids, unseen, series)


def _check_complete(columns: Sequence[str], there: Sequence[str], trained: Sequence[str]) -> None:
    """Checks that a table has all columns of the training, or none of them."""
    missing = [name for name in trained if name not in there]
    if there and missing:
        raise InputError(
            f"columns of the training are missing: {listed(missing)}; found {listed(columns)}; data.value_columns names"
            " those to be scored"
        )


def check_unique(names: Sequence[str]) -> None:
    """Checks that no two columns have the same name."""
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"two columns are named {name!r}")


def _match(names: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    """Returns names as columns have them; those of columns with commas were cut into several names."""
    known = {"".join(column.split()): column for column in columns}
    matched: list[str] = []
    first = 0
    while first < len(names):
        for last in range(len(names), first, -1):
            whole = "".join(",".join(names[first:last]).split())
            if whole in known or last == first + 1:
                matched.append(known.get(whole, names[first]))
                first = last
                break
    return tuple(matched)


def _check_named(names: Sequence[str], named: Columns) -> None:
    check_unique(names)
    check_unique(named.values)
    for field, name in (("label_column", named.label), ("series_column", named.series)):
        if name and name in named.values:
            raise InputError(f"{name!r} is in data.value_columns and data.{field}")
    fields = [("timestamp_column", named.time), ("label_column", named.label), ("series_column", named.series)]
    fields += [("value_columns", name) for name in named.values]
    for field, name in fields:
        if name and name not in names:
            raise InputError(f"no column {name!r} (data.{field}); found {listed(names)}")


def _first(names: Iterable[str]) -> str:
    return next(iter(names), "")


def _choose_time(head: pd.DataFrame, free: Sequence[str], usual: str) -> tuple[str, str, dict[str, str]]:
    """Returns the columns of times and of times of day, or '', and why they or others are what they are."""
    if usual in free:
        return usual, "", {usual: "as in training"}
    named = [name for name in free if is_time_name(name)]
    reasons = {name: _reason_against_time(head[name]) for name in named}
    candidates = [name for name in named if not reasons[name]]
    candidates += [name for name in free if name not in named and looks_like_times(head[name])]
    # A date that never changes may have the time of day beside it; otherwise, another column is preferred.
    candidates.sort(key=lambda name: _is_constant(head[name]))
    for time in (*candidates[:1], ""):
        date, clock = _find_clock(head, free, time)
        if clock:
            return date, clock, dict.fromkeys((date, clock), "date and time of day")
    if not candidates:
        return "", "", reasons
    time = candidates[0]
    further = {name: reasons[name] or "further times" for name in named}
    return time, "", {**further, time: "times, by its name" if time in named else "its cells are times"}


def _find_clock(head: pd.DataFrame, free: Sequence[str], time: str) -> tuple[str, str]:
    """Returns the columns of dates and of times of day if the table has such a pair, else the time and ''."""
    clocks = [name for name in free if name.lower() in _CLOCK_NAMES]
    dates = [name for name in free if name.lower() in _DATE_NAMES] if time in clocks else [time]
    for date, clock in itertools.product(filter(None, dates), clocks):
        if looks_like_dates_and_times(head[date], head[clock]):
            return date, clock
    return time, ""


def _reason_against_time(column: pd.Series) -> str:
    """Returns why a column with the name of times is none; '' if it is one."""
    filled = column.dropna()
    if not len(filled):
        return "empty" if len(column) else ""
    if not _is_numeric(column):
        stamps = parse_times(filled, next(iter(find_time_formats(filled)), ""))
        return "" if stamps.notna().mean() > 0.5 else f"named like times, but {str(filled.iloc[0])[:30]!r} is none"
    numbers = parse_numbers(filled, ".")
    if len(numbers) < 2 or rises(numbers) or in_our_time(numbers):
        return ""
    return "named like times, but does not rise; data.timestamp_column or data.value_columns can name it"


def _reason_against(column: pd.Series, name: str, one_series: pd.Index) -> str:
    """Returns why a column is left out; '' if it has values. Rows of one series tell whether it rises evenly."""
    if is_answer_name(name):
        return ANSWER
    if not len(column):
        return ""
    if not column.notna().any():
        return "without a name, and empty" if is_unnamed(name) else "empty"
    if looks_like_times(column):
        return "further times"
    if not _is_numeric(column):
        return f"text, such as {str(column.dropna().iloc[0]).strip()[:30]!r}"
    numbers = parse_numbers(column, ".").dropna()
    whole = len(numbers) > 0 and bool((numbers % 1 == 0).all())
    if is_time_name(name):
        return "named like times"
    if whole and may_be_answer_name(name) and numbers.nunique() <= _FEW:
        return ANSWER
    if whole and is_index_name(name):
        return "an index"
    if whole and is_id_name(name):
        return "an id"
    own = numbers[numbers.index.isin(one_series)]
    if len(own) >= _JUDGED_ROWS and whole and _counts(own.to_numpy(np.float64)):
        return _COUNTS_ROWS
    if len(numbers) >= _JUDGED_ROWS and whole and looks_like_clock_counts(numbers):
        return "like times since 1970: data.timestamp_column can name it"
    if len(own) >= _JUDGED_ROWS and _rises_evenly(own.to_numpy(np.float64)):
        return _EVEN_STEPS
    return ""


def _fall_back(columns: Sequence[str], reasons: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the columns that are values if no other is: those that only their contents speak against."""
    return tuple(name for name in columns if reasons[name] in (_COUNTS_ROWS, _EVEN_STEPS))


def _counts(numbers: Float[np.ndarray, "rows"]) -> bool:
    """Returns whether numbers count, one by one, and begin anew at most now and then."""
    steps = np.diff(numbers)
    anew = steps != 1
    seldom = anew.sum() * _JUDGED_ROWS <= len(steps)
    return bool(seldom and (numbers[1:][anew] == numbers.min()).all())


def _rises_evenly(numbers: Float[np.ndarray, "rows"]) -> bool:
    steps = np.diff(numbers)
    usual = float(np.median(steps))
    return usual > 0 and bool((np.abs(steps - usual) <= _SAME_STEP * usual).all())


def _may_name_series(column: pd.Series, name: str) -> bool:
    """Returns whether a column may tell which series each row belongs to: an id that comes more than once."""
    return is_id_name(name) and 1 <= column.nunique() <= max(1, len(column) // 2)


def _is_constant(column: pd.Series) -> bool:
    return column.nunique() < 2 and len(column) > 1


def _is_numeric(column: pd.Series) -> bool:
    """Returns whether most cells of a column are numbers; other cells are rejected later, by row."""
    if pd.api.types.is_numeric_dtype(column):
        return True
    if pd.api.types.is_datetime64_any_dtype(column):
        return False
    filled = column.dropna()
    return any(parse_numbers(filled, sign).notna().mean() > 0.5 for sign in ".,")


def _with_reasons(names: Sequence[str], reasons: Mapping[str, str]) -> str:
    """Lists columns by reason: 'a, b (an index); c (empty)'."""
    by_reason: dict[str, list[str]] = {}
    for name in names:
        by_reason.setdefault(reasons[name], []).append(name)
    return "; ".join(f"{listed(group)} ({reason})" for reason, group in by_reason.items())
