"""Labels from a CSV of anomaly intervals, given in rows or in times."""

import csv
import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from etils import epath

from spear_jax.data.series import Series
from spear_jax.data.tables.cells import delimiter, no_field_too_many, parse_times, time_formats
from spear_jax.errors import InputError, one_line


def with_intervals(series: Sequence[Series], path: str) -> tuple[list[Series], list[str]]:
    """Labels series by the intervals in a CSV.

    Returns:
      The series, and what is odd about the file.

    Raises:
      InputError: the file cannot be used, or an interval lies outside its series or ends before it begins.
    """
    if not path:
        raise InputError(
            "config.data.intervals is empty; data.labels=intervals needs a CSV with the columns start, end"
        )
    place = epath.Path(path).expanduser()
    try:
        with place.open("rb") as file:
            line = file.readline(1 << 16).decode("utf-8-sig")
            file.seek(0)
            sign = delimiter(line)
            form = {"dtype": str, "keep_default_na": False, "sep": sign, "skipinitialspace": True, "index_col": False}
            with no_field_too_many():
                table = pd.read_csv(file, **form)
    except (OSError, ValueError) as fault:
        raise InputError(f"{place}: cannot be read as CSV ({one_line(fault)})") from fault
    names = [name.strip() for name in next(csv.reader([line], delimiter=sign), [])]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{place}: two columns are named {name!r}")
    several = len({one.group or one.name for one in series}) > 1
    for column in ("start", "end", *(["series"] if several else [])):
        if column not in table:
            raise InputError(f"{place}: no column {column!r}; found {', '.join(map(str, table.columns))}")
    readings = _readings(table, f"{place}")
    labelled: list[list[Series]] = []
    faults: list[InputError] = []
    for reading in readings:
        try:
            labelled.append(_labelled(series, table, reading, f"{place}"))
        except InputError as fault:
            faults.append(fault)
    if not labelled:
        raise faults[0]
    first, other = labelled[0], labelled[-1]
    if all(np.array_equal(one.labels, also.labels) for one, also in zip(first, other, strict=True)):
        return first, []
    return first, [f"{place}: days are taken to stand before months; the other way around would fit as well"]


_DAY_FIRST, _MONTH_FIRST = "days before months", "months before days"


def _readings(table: pd.DataFrame, where: str) -> list[dict[str, pd.Timestamp]]:
    """The times of all cells that are no row numbers, once for each order of day and month that all cells can have."""
    found: dict[str, dict[str, pd.Timestamp]] = {_DAY_FIRST: {}, _MONTH_FIRST: {}}
    for number, row in enumerate(table.to_dict("records"), 1):
        for end in ("start", "end"):
            text = row[end]
            if _ROW.fullmatch(text.strip()):
                continue
            cell = pd.Series([text])
            for form in time_formats(cell):
                time = parse_times(cell, form)[0]
                for order, times in found.items():
                    if not pd.isna(time) and _order(form) in ("", order):
                        times[text] = time
            if not any(text in times for times in found.values()):
                raise InputError(f"{where}: row {number}, column {end!r}: {text!r} is neither a row number nor a time")
    everything = set().union(*found.values())
    whole = [times for times in found.values() if set(times) == everything]
    if not whole:
        one, other = (next(text for text in everything if text not in times) for times in found.values())
        raise InputError(f"{where}: {one!r} has the month first and {other!r} the day; needed is one order")
    return whole


def _order(form: str) -> str:
    """Which of day and month a format has first; '' where nobody could mistake them."""
    day, month = form.find("%d"), form.find("%m")
    if day < 0 or month < 0 or form.startswith("%Y"):
        return ""
    return _DAY_FIRST if day < month else _MONTH_FIRST


def _labelled(
    series: Sequence[Series], table: pd.DataFrame, times: Mapping[str, pd.Timestamp], place: str
) -> list[Series]:
    labels = {one.name: np.zeros(len(one), bool) for one in series}
    for number, row in enumerate(table.to_dict("records"), 1):
        where = f"{place}: row {number}"
        asked = row.get("series", "")
        chosen = [one for one in series if asked in ("", one.name, one.group, one.column)]
        if not chosen:
            raise InputError(f"{where}: no series is named {asked!r}; there are {', '.join(labels)}")
        for one in chosen:
            first, last = (_position(one, row[end], times, f"{where}, column {end!r}", end) for end in ("start", "end"))
            if not 0 <= first <= last < len(one):
                raise InputError(
                    f"{where}: {row['start']!r} to {row['end']!r} is no interval in series {one.name!r}, which has"
                    f" {_extent(one)}"
                )
            labels[one.name][first : last + 1] = True
    return [dataclasses.replace(one, labels=labels[one.name], labelled=True) for one in series]


_ROW = re.compile("-?[0-9]{1,8}")


def _position(series: Series, text: str, times: Mapping[str, pd.Timestamp], where: str, end: str) -> int:
    """The row that a number or a time names: the first at or after a start, the last at or before an end."""
    if text not in times:
        return int(text)
    if not len(series.timestamps):
        raise InputError(f"{where}: is a time, but series {series.name!r} has no time stamps")
    stamps, time = series.timestamps.astype("datetime64[ns]"), times[text].to_datetime64()
    if not stamps.min() <= time <= stamps.max():
        return -1
    if end == "start":
        return int(np.argmax(stamps >= time))
    return len(stamps) - 1 - int(np.argmax((stamps <= time)[::-1]))


def _extent(series: Series) -> str:
    rows = f"rows 0 to {len(series) - 1}"
    if not len(series.timestamps):
        return rows
    return f"{rows}, {series.timestamps.min()} to {series.timestamps.max()}"
