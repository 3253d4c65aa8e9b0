"""Labels from a CSV of anomaly intervals, given in rows or in times."""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from etils import epath
from pandas.tseries.api import guess_datetime_format

from spear_jax.data.prepared import one_line
from spear_jax.data.series import Series
from spear_jax.errors import InputError


def with_intervals(series: Sequence[Series], path: str) -> list[Series]:
    """Labels series by the intervals in a CSV.

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
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as fault:
        raise InputError(f"{place}: cannot be read as CSV ({one_line(fault)})") from fault
    several = len({one.group or one.name for one in series}) > 1
    for column in ("start", "end", *(["series"] if several else [])):
        if column not in table:
            raise InputError(f"{place}: no column {column!r}; found {', '.join(map(str, table.columns))}")
    labels = {one.name: np.zeros(len(one), bool) for one in series}
    for number, row in enumerate(table.to_dict("records"), 1):
        where = f"{place}: row {number}"
        asked = row.get("series", "")
        chosen = [one for one in series if asked in ("", one.name, one.group)]
        if not chosen:
            raise InputError(f"{where}: no series is named {asked!r}; there are {', '.join(labels)}")
        for one in chosen:
            first, last = (_position(one, row[end], f"{where}, column {end!r}", end) for end in ("start", "end"))
            if not 0 <= first <= last < len(one):
                raise InputError(
                    f"{where}: {row['start']!r} to {row['end']!r} is no interval in series {one.name!r}, which has"
                    f" {_extent(one)}"
                )
            labels[one.name][first : last + 1] = True
    return [dataclasses.replace(one, labels=labels[one.name], labelled=True) for one in series]


def _position(series: Series, text: str, where: str, end: str) -> int:
    """The row that a number or a time names: the first at or after a start, the last at or before an end."""
    if text.strip().lstrip("-").isdigit() and len(text.strip()) < 9:
        return int(text)
    column = pd.Series([text])
    time = parse_times(column, time_format(column))
    if time.isna().any():
        raise InputError(f"{where}: {text!r} is neither a row number nor a time")
    if not len(series.timestamps):
        raise InputError(f"{where}: is a time, but series {series.name!r} has no time stamps")
    stamps = series.timestamps.astype("datetime64[ns]")
    if not stamps.min() <= time.to_numpy("datetime64[ns]")[0] <= stamps.max():
        return -1
    if end == "start":
        return int(np.argmax(stamps >= time.to_numpy("datetime64[ns]")[0]))
    return len(stamps) - 1 - int(np.argmax((stamps <= time.to_numpy("datetime64[ns]")[0])[::-1]))


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
    return fitting or ["ISO8601"]


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
