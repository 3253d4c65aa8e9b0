"""Decides which columns of a table are times, values and labels."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import pandas as pd

from spear_jax.data.tables.cells import looks_like_dates_and_times, looks_like_times, parse_numbers
from spear_jax.errors import InputError

_TIME_NAMES = ("timestamp", "time", "datetime", "date", "ds", "ts")
_DATE_NAMES, _CLOCK_NAMES = ("date", "day"), ("time", "clock")  # of a pair of columns
LABEL_NAMES = ("label", "labels", "is_anomaly", "anomaly", "anomalous")


@dataclasses.dataclass(frozen=True)
class Columns:
    """The roles of a table's columns; an empty role is absent or not chosen yet.

    Attributes:
      time: the column of time stamps.
      values: the columns of values.
      label: the column of labels.
      left_out: all other columns.
      clock: the column of times of day if `time` contains dates only.
    """

    time: str = ""
    values: tuple[str, ...] = ()
    label: str = ""
    left_out: tuple[str, ...] = ()
    clock: str = ""


UNNAMED = Columns()


def choose_columns(head: pd.DataFrame, named: Columns, usual: Columns, decimal: str) -> Columns:
    """Chooses the roles of a table's columns.

    The time column is the one the user named, else the first with a usual name, else the first that looks like times;
    the label column is the one the user named, else the first with a usual name; the value columns are those the user
    named, else all other numeric columns.

    Args:
      head: the first rows.
      named: columns that the user named.
      usual: columns to prefer, if they exist, for roles the user did not name.
      decimal: the decimal sign.

    Raises:
      InputError: a named column does not exist, or there is no numeric column.
    """
    names = [str(name) for name in head.columns]
    _check_named(names, named)
    time, values, label = named.time, named.values, named.label
    if set(usual.values) <= set(names):
        values = values or tuple(name for name in usual.values if name not in (time, label))
    free = [name for name in names if name not in (label, *values)]
    time = time or _first(name for name in free if name == usual.time)
    clock = ""
    if not time:
        time = _first(name for name in free if name.lower() in _TIME_NAMES)
        time = time or _first(name for name in free if looks_like_times(head[name]))
        time, clock = _find_clock(head, free, time)
    label = label or _first(name for name in free if name == usual.label)
    label = label or _first(name for name in free if name.lower() in LABEL_NAMES)
    if not values:
        # A column named like a label is never read as a value, since it would leak the labels.
        taken = (time, clock, label, *(name for name in names if name.lower() in LABEL_NAMES))
        values = tuple(name for name in names if name not in taken and _is_numeric(head[name], decimal))
    if not values:
        raise InputError(f"no column of numbers; found {', '.join(names)}")
    left_out = tuple(name for name in names if name not in (time, clock, label, *values))
    return Columns(time, values, label, left_out, clock)


def check_unique(names: Sequence[str]) -> None:
    """Checks that no two columns have the same name."""
    for name in names:
        if list(names).count(name) > 1:
            raise InputError(f"two columns are named {name!r}")


def _check_named(names: Sequence[str], named: Columns) -> None:
    check_unique(names)
    check_unique(named.values)
    if named.label and named.label in named.values:
        raise InputError(f"{named.label!r} is in data.value_columns and data.label_column")
    fields = [("timestamp_column", named.time), ("label_column", named.label)]
    fields += [("value_columns", name) for name in named.values]
    for field, name in fields:
        if name and name not in names:
            raise InputError(f"no column {name!r} (data.{field}); found {', '.join(names)}")


def _first(names: Iterable[str]) -> str:
    return next(iter(names), "")


def _find_clock(head: pd.DataFrame, free: Sequence[str], time: str) -> tuple[str, str]:
    """Returns the columns of dates and of times of day if the table has such a pair, else the time and ''."""
    clocks = [name for name in free if name.lower() in _CLOCK_NAMES]
    dates = [name for name in free if name.lower() in _DATE_NAMES] if time in clocks else [time]
    for date, clock in itertools.product(filter(None, dates), clocks):
        if looks_like_dates_and_times(head[date], head[clock]):
            return date, clock
    return time, ""


def _is_numeric(column: pd.Series, decimal: str) -> bool:
    """Returns whether most cells of a column are numbers; other cells are rejected later, by row."""
    if pd.api.types.is_numeric_dtype(column) or not column.notna().any():  # an empty column may be numeric
        return True
    if pd.api.types.is_datetime64_any_dtype(column):
        return False
    return bool(parse_numbers(column.dropna(), decimal).notna().mean() > 0.5)
