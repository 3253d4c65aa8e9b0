"""Reads series in memory: arrays, lists, and pandas or polars frames."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from sklearn.utils import check_array

from spear_jax.data.series import LARGEST, Series
from spear_jax.data.tables.cells import is_number, looks_like_times
from spear_jax.data.tables.columns import LABEL_NAMES
from spear_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Table:
    """Series of equal length: the columns of an array or a frame.

    Attributes:
      values: a column per series; NaN where missing.
      times: time of each row in nanoseconds since 1970; empty if the rows have no times.
      columns: the names of the columns, or their numbers if they have none.
      named: whether the columns have names.
      left_out: columns that are labels by their name, and so no values, as in files.
    """

    values: Float[np.ndarray, "rows columns"]
    times: Int[np.ndarray, "stamps"]
    columns: tuple[str, ...]
    named: bool
    left_out: tuple[str, ...] = ()


def is_list_of_series(data: Any) -> bool:
    """Returns whether data is a list of arrays or frames, rather than a single one or a list of numbers."""
    if not isinstance(data, list | tuple):
        return False
    return any(hasattr(item, "__len__") and not isinstance(item, str) for item in data)


def read_array(data: Any, name: str) -> Table:
    """Reads an array [time] or [time, columns], a list of numbers, or a frame.

    The columns of a frame are values, except those named like labels; times come from its datetime column or index.

    Raises:
      ValueError: the data are empty, not numbers, or infinite, or have more than two axes or several columns of times.
    """
    data = data.to_pandas() if type(data).__module__.split(".")[0] == "polars" else data
    times, data = _split_times(data, name)
    left_out: list[Any] = []
    if isinstance(data, pd.DataFrame):
        left_out = [column for column in data if str(column).lower() in LABEL_NAMES]
        data = data[[column for column in data if column not in left_out]]
        _check_columns(data, name, left_out)
    values = check_array(data, dtype=np.float64, ensure_2d=False, ensure_all_finite=False, input_name=name)
    if values.ndim > 2 or not values.ndim:
        raise InputError(f"{name}: its shape is {values.shape}; allowed: [time] and [time, columns]")
    if (too_large := np.abs(values) > LARGEST).any():
        row = np.argwhere(too_large)[0][0]
        raise InputError(f"{name}: row {row} is infinite, or beyond 1e100; a missing value is NaN")
    values = values.reshape(len(values), -1)
    names: list[Any] = list(data) if isinstance(data, pd.DataFrame) else [getattr(data, "name", None)]
    named = all(isinstance(column, str) for column in names)
    columns = tuple(names) if named else tuple(map(str, range(values.shape[1])))
    return Table(values, times, columns, named, tuple(left_out))


def _check_columns(frame: pd.DataFrame, name: str, left_out: Sequence[Any]) -> None:
    """Checks that a frame has columns of values, and that they contain numbers only."""
    if left_out and not len(frame.columns):
        raise InputError(f"{name}: has no values; rename {left_out[0]!r} if it contains values and not labels")
    for column in frame:
        if pd.api.types.is_numeric_dtype(frame[column]):
            continue
        filled = frame[column].dropna()
        text = [cell for cell in filled.astype(str) if not is_number(cell)]
        if not text:
            continue
        advice = f"make it times with pd.to_datetime(frame[{column!r}])"
        if not looks_like_times(filled):
            advice = "leave it out; series of several sensors are a list of frames, one for each"
        raise InputError(f"{name}: column {column!r} contains text, such as {text[0][:60]!r}; {advice}")


def _split_times(data: Any, name: str) -> tuple[Int[np.ndarray, "stamps"], Any]:
    """Splits data into times, in nanoseconds, and the rest."""
    stamps = []
    if isinstance(data, pd.DataFrame | pd.Series) and isinstance(data.index, pd.DatetimeIndex):
        stamps.append(data.index.to_series())
    if isinstance(data, pd.DataFrame):
        time_columns = [column for column in data if pd.api.types.is_datetime64_any_dtype(data[column])]
        stamps += [data[column] for column in time_columns]
        data = data[[column for column in data if column not in time_columns]]
    if len(stamps) > 1:
        raise InputError(f"{name}: has {len(stamps)} columns of times; at most one is allowed")
    return _nanoseconds(stamps[0], name) if stamps else np.zeros(0, np.int64), data


def _nanoseconds(times: pd.Series, name: str) -> Int[np.ndarray, "stamps"]:
    if times.isna().any():
        raise InputError(f"{name}: row {int(times.isna().to_numpy().argmax())} has no time")
    beyond = (times.dt.year < 1678) | (times.dt.year > 2261)  # the years that nanoseconds in int64 cover
    if beyond.any():
        row = int(beyond.to_numpy().argmax())
        raise InputError(f"{name}: row {row} has the time {times.iloc[row]}; allowed: the years 1678 to 2261")
    in_utc = times.dt.tz_convert(None) if times.dt.tz is not None else times
    return in_utc.to_numpy("datetime64[ns]").astype(np.int64)


def read_labels(data: Any, rows: int, name: str) -> Bool[np.ndarray, "rows"]:
    """Reads a label per row, 0 or 1.

    Raises:
      InputError: a label is neither 0 nor 1, or there is not one per row.
    """
    labels = np.asarray(data)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.shape != (rows,):
        raise InputError(f"{name}: their shape is {np.shape(data)}; expected a label for each of the {rows} rows")
    wrong = np.flatnonzero(~np.isin(labels, (0, 1)))
    if len(wrong):
        raise InputError(f"{name}: row {wrong[0]} is {labels[wrong[0]].item()!r}; allowed: 0 and 1")
    return labels.astype(bool)


def read_arrays(data: Any, name: str) -> list[Table]:
    """Reads one array or frame, or a list of them; see `read_array`."""
    if is_list_of_series(data):
        return [read_array(item, f"{name} {number}") for number, item in enumerate(data)]
    return [read_array(data, name)]


def read_table_labels(data: Any, tables: Sequence[Table], name: str) -> list[Bool[np.ndarray, "_rows"]]:
    """Reads the labels of a single table, or a list with those of each table, one per row; see `read_labels`.

    Raises:
      InputError: their number differs from that of the tables or rows, or a label is neither 0 nor 1.
    """
    if len(tables) == 1 and not is_list_of_series(data):
        return [read_labels(data, len(tables[0].values), name)]
    if len(data) != len(tables):
        raise InputError(f"{name}: {len(data)} for {len(tables)} series; expected one for each")
    return [
        read_labels(labels, len(table.values), f"{name} {number}")
        for number, (labels, table) in enumerate(zip(data, tables, strict=True))
    ]


def make_series(
    tables: Sequence[Table], labels: Sequence[Bool[np.ndarray, "_rows"]] | None, prefix: str = ""
) -> list[Series]:
    """Makes a series of each column; the columns of a table form a group."""
    return [
        Series(
            name=f"{prefix}{number}/{column}",
            values=values,
            labels=labels[number] if labels is not None else np.zeros(len(values), bool),
            timestamps=table.times.view("datetime64[ns]"),
            group=f"{prefix}{number}",
            column=column,
            labelled=labels is not None,
        )
        for number, table in enumerate(tables)
        for column, values in zip(table.columns, table.values.T, strict=True)
    ]
