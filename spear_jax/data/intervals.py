"""Labels from a CSV of anomaly intervals, given in rows or in times."""

import dataclasses
import re
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from etils import epath
from pandas.tseries.api import guess_datetime_format

from spear_jax.data.prepared import one_line
from spear_jax.data.series import Series
from spear_jax.errors import InputError


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
            # Fields are divided as in the data files, by what the column names are divided by.
            table = pd.read_csv(file, dtype=str, keep_default_na=False, sep=_delimiter(place), skipinitialspace=True)
    except (OSError, ValueError) as fault:
        raise InputError(f"{place}: cannot be read as CSV ({one_line(fault)})") from fault
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


def _delimiter(place: epath.Path) -> str:
    with place.open("rb") as file:
        names = file.readline()
    return max(",;\t|", key=lambda sign: names.count(sign.encode()))  # the comma, where there is none


def _extent(series: Series) -> str:
    rows = f"rows 0 to {len(series) - 1}"
    if not len(series.timestamps):
        return rows
    return f"{rows}, {series.timestamps.min()} to {series.timestamps.max()}"


def time_format(column: pd.Series) -> str:
    """The one format that all times of a column have, the first of `time_formats`; '' where there is none."""
    return next(iter(time_formats(column)), "")


def time_formats(column: pd.Series) -> list[str]:
    """The formats that all times of a column may have: two where nothing tells days from months.

    Returns:
      'ISO8601', the unit of numbers since 1970 ('s', 'ms', 'us', 'ns', by their size), or formats of strptime.
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        return ["ISO8601"]
    numbers = pd.to_numeric(column, errors="coerce")
    if len(numbers) and numbers.notna().all():
        largest = float(numbers.abs().max())
        return [next((unit for unit, limit in (("s", 1e11), ("ms", 1e14), ("us", 1e17)) if largest < limit), "ns")]
    known = column.dropna().astype(str)
    if not len(known):
        return []
    if not parse_times(known, "ISO8601").isna().any():
        return ["ISO8601"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas says that it guesses the one where the other was asked for
        guesses = {guess_datetime_format(text, dayfirst=first) for text in known[:1] for first in (False, True)}
    fitting = [guess for guess in sorted(filter(None, guesses)) if not parse_times(known, guess).isna().any()]
    return fitting or [one for one in _UNGUESSED if not parse_times(known, one).isna().any()] or ["ISO8601"]


# What pandas does not guess: years of two digits, and hours up to twelve.
_UNGUESSED = tuple(
    f"{day}{hour}"
    for day in ("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d/%m/%Y", "%m/%d/%Y")
    for hour in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
)


def parse_times(column: pd.Series, form: str) -> pd.Series:
    """Times in UTC, in nanoseconds; NaT where there is none, or none that fits into the years 1678 to 2262.

    Args:
      column: times or numbers.
      form: from `time_format`.
    """
    if form in ("s", "ms", "us", "ns"):
        numbers = pd.to_numeric(column, errors="coerce")
        times = pd.to_datetime(numbers, unit=form, errors="coerce", utc=True)
    elif pd.api.types.is_datetime64_any_dtype(column):
        times = pd.to_datetime(column, utc=True)
    else:
        times = pd.to_datetime(column.astype(str), format=form or "ISO8601", errors="coerce", utc=True)
    times = times.dt.tz_localize(None)
    inside = (times >= pd.Timestamp.min.ceil("D")) & (times <= pd.Timestamp.max.floor("D"))
    return times.where(inside).astype("datetime64[ns]")
