"""Labels series from a CSV of anomaly intervals, given as rows or times."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from etils import epath

from spear_jax.data.series import Series
from spear_jax.data.tables.cells import find_delimiter, find_time_formats, parse_times, split_line
from spear_jax.data.tables.columns import check_unique
from spear_jax.data.tables.csv_format import refuse_extra_cells
from spear_jax.errors import InputError, one_line

_ROW_NUMBER = re.compile("-?[0-9]{1,8}")
_DAY_FIRST, _MONTH_FIRST = "day first", "month first"
Times: TypeAlias = Mapping[str, pd.Timestamp]  # by the cell's text


def label_by_intervals(recorded: Sequence[Series], path: str) -> tuple[list[Series], list[str]]:
    """Labels series from the intervals in a CSV; returns them with remarks on the file.

    Args:
      recorded: the series.
      path: a CSV with the columns start and end (rows from 0, or times; both inclusive) and, if there are several
        groups of series, series (a name, group or column).

    Raises:
      InputError: the file cannot be read, or an interval lies outside its series or ends before it begins.
    """
    if not path:
        raise InputError(
            "config.data.intervals is empty; data.labels=intervals needs a CSV with the columns start, end"
        )
    file = epath.Path(path).expanduser()
    try:
        table = _read(file)
        several = len({series.group or series.name for series in recorded}) > 1
        for column in ("start", "end", *(["series"] if several else [])):
            if column not in table:
                raise InputError(f"no column {column!r}; found {', '.join(map(str, table.columns))}")
        labelled, ambiguous = _label_by_table(recorded, table)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    remark = f"{file}: dates are read day first; month first would fit as well"
    return labelled, [remark] if ambiguous else []


def _read(file: epath.Path) -> pd.DataFrame:
    try:
        with file.open("rb") as raw:
            header = raw.readline(1 << 16).decode("utf-8-sig")
            raw.seek(0)
            delimiter = find_delimiter(header)
            with refuse_extra_cells():
                table = pd.read_csv(
                    raw, dtype=str, keep_default_na=False, sep=delimiter, skipinitialspace=True, index_col=False
                )
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as CSV ({one_line(error)})") from error
    check_unique([name.strip() for name in split_line(header, delimiter)])
    return table


def _label_by_table(recorded: Sequence[Series], table: pd.DataFrame) -> tuple[list[Series], bool]:
    """Labels series, using the order of day and month for which all intervals are valid; day first if both are.

    Returns:
      The labelled series, and whether the other order would give other labels.
    """
    labellings: list[list[Series]] = []
    errors: list[InputError] = []
    for times in _parse_times(table):
        try:
            labellings.append(_label(recorded, table, times))
        except InputError as error:
            errors.append(error)
    if not labellings:
        raise errors[0]
    first, last = labellings[0], labellings[-1]
    ambiguous = any(not np.array_equal(a.labels, b.labels) for a, b in zip(first, last, strict=True))
    return first, ambiguous


def _parse_times(table: pd.DataFrame) -> list[Times]:
    """Parses the cells that are times, once for each order of day and month that fits all of them."""
    times_by_order: dict[str, dict[str, pd.Timestamp]] = {_DAY_FIRST: {}, _MONTH_FIRST: {}}
    for number, row in enumerate(table.to_dict("records"), 1):
        for column in ("start", "end"):
            text = row[column]
            if _ROW_NUMBER.fullmatch(text.strip()):
                continue
            cell = pd.Series([text])
            for time_format in find_time_formats(cell):
                time = parse_times(cell, time_format)[0]
                for order, times in times_by_order.items():
                    if not pd.isna(time) and _order(time_format) in ("", order):
                        times[text] = time
            if not any(text in times for times in times_by_order.values()):
                raise InputError(f"row {number}, column {column!r}: {text!r} is neither a row number nor a time")
    texts = set().union(*times_by_order.values())
    complete = [times for times in times_by_order.values() if set(times) == texts]
    if not complete:
        month_first, day_first = (
            next(text for text in texts if text not in times) for times in times_by_order.values()
        )
        raise InputError(f"{month_first!r} has the month first and {day_first!r} the day first; use one order")
    return list(complete)


def _order(time_format: str) -> str:
    """Returns which of day and month comes first in a format; '' if they cannot be confused."""
    day, month = time_format.find("%d"), time_format.find("%m")
    if day < 0 or month < 0 or time_format.startswith("%Y"):
        return ""
    return _DAY_FIRST if day < month else _MONTH_FIRST


def _label(recorded: Sequence[Series], table: pd.DataFrame, times: Times) -> list[Series]:
    labels = {series.name: np.zeros(len(series), bool) for series in recorded}
    for number, row in enumerate(table.to_dict("records"), 1):
        name = row.get("series", "")
        chosen = [series for series in recorded if name in ("", series.name, series.group, series.column)]
        if not chosen:
            raise InputError(f"row {number}: no series is named {name!r}; there are {', '.join(labels)}")
        for series in chosen:
            first = _find_row(series, row["start"], times, "start", number)
            last = _find_row(series, row["end"], times, "end", number)
            if not 0 <= first <= last < len(series):
                raise InputError(
                    f"row {number}: {row['start']!r} to {row['end']!r} is not an interval in series {series.name!r},"
                    f" which has {_extent(series)}"
                )
            labels[series.name][first : last + 1] = True
    return [dataclasses.replace(series, labels=labels[series.name], labelled=True) for series in recorded]


def _find_row(series: Series, text: str, times: Times, column: Literal["start", "end"], number: int) -> int:
    """Returns the row of a number or a time: the first one from a start on, the last one up to an end; -1 for none."""
    if text not in times:
        return int(text)
    if not len(series.timestamps):
        raise InputError(f"row {number}, column {column!r}: is a time, but series {series.name!r} has no time stamps")
    stamps, time = series.timestamps.astype("datetime64[ns]"), times[text].to_datetime64()
    if not stamps.min() <= time <= stamps.max():
        return -1
    if column == "start":
        return int(np.argmax(stamps >= time))
    return len(stamps) - 1 - int(np.argmax((stamps <= time)[::-1]))


def _extent(series: Series) -> str:
    rows = f"rows 0 to {len(series) - 1}"
    if not len(series.timestamps):
        return rows
    return f"{rows}, {series.timestamps.min()} to {series.timestamps.max()}"
