"""Series that are given in memory: arrays, lists, and frames of pandas or polars."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from sklearn.utils import check_array

from spear_jax.data.series import LARGEST, Series
from spear_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Table:
    """Series of equal length that belong together: the columns of an array or a frame.

    Attributes:
      values: a column per series; NaN where missing.
      times: in nanoseconds since 1970; empty where there are none.
      columns: their names; numbers where they have none.
      named: whether they have.
    """

    values: Float[np.ndarray, "rows columns"]
    times: Int[np.ndarray, "stamps"]
    columns: tuple[str, ...]
    named: bool


def is_several(data: Any) -> bool:
    """True for a list of arrays or frames, False for one of them, a list of numbers included."""
    return isinstance(data, list | tuple) and any(hasattr(one, "__len__") and not isinstance(one, str) for one in data)


def read_array(data: Any, what: str) -> Table:
    """One array [time] or [time, columns], list of numbers, or frame.

    Of a frame the numbers are values, and one column of times, or an index of times, are the times.

    Args:
      data: it.
      what: it is called where it cannot be used.

    Raises:
      ValueError: it is not of numbers, empty, or has more than two axes.
    """
    data = data.to_pandas() if type(data).__module__.split(".")[0] == "polars" else data
    times = np.zeros(0, np.int64)
    if isinstance(data, pd.DataFrame):
        stamps = [data[name] for name in data if pd.api.types.is_datetime64_any_dtype(data[name])]
        if isinstance(data.index, pd.DatetimeIndex):
            stamps.insert(0, data.index.to_series())
        if len(stamps) > 1:
            raise InputError(f"{what}: has {len(stamps)} columns of times; allowed is one")
        if stamps:
            times = _nanoseconds(stamps[0], what)
        data = data[[name for name in data if not pd.api.types.is_datetime64_any_dtype(data[name])]]
    elif isinstance(data, pd.Series) and isinstance(data.index, pd.DatetimeIndex):
        times = _nanoseconds(data.index.to_series(), what)
    values = check_array(data, dtype=np.float64, ensure_2d=False, ensure_all_finite=False, input_name=what)
    if values.ndim > 2 or not values.ndim:
        raise InputError(f"{what}: has the shape {values.shape}; allowed are [time] and [time, columns]")
    if (beyond := np.abs(values) > LARGEST).any():
        raise InputError(
            f"{what}: row {np.argwhere(beyond)[0][0]} is infinite, or beyond 1e100; a missing value is NaN"
        )
    values = values.reshape(len(values), -1)
    names: list[Any] = list(data) if isinstance(data, pd.DataFrame) else [getattr(data, "name", None)]
    named = all(isinstance(name, str) for name in names)
    return Table(values, times, tuple(names) if named else tuple(map(str, range(values.shape[1]))), named)


def read_labels(data: Any, rows: int, what: str) -> Bool[np.ndarray, "rows"]:
    """One label per row, 0 or 1.

    Args:
      data: an array, list, or series of pandas or polars.
      rows: how many there must be.
      what: they are called where they cannot be used.

    Raises:
      InputError: others, or not as many.
    """
    labels = np.asarray(data)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.shape != (rows,):
        raise InputError(f"{what}: has the shape {np.shape(data)}; needed is a label for each of the {rows} rows")
    wrong = np.flatnonzero(~np.isin(labels, (0, 1)))
    if len(wrong):
        raise InputError(f"{what}: row {wrong[0]} is {labels[wrong[0]]!r}; allowed are 0 and 1")
    return labels.astype(bool)


def to_series(
    tables: Sequence[Table], labels: Sequence[Bool[np.ndarray, "rows"]] | None, prefix: str = ""
) -> list[Series]:
    """A series per column; those of a table are a group.

    Args:
      tables: the tables.
      labels: of their rows, where there are any.
      prefix: of the names.
    """
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


def _nanoseconds(times: pd.Series, what: str) -> Int[np.ndarray, "stamps"]:
    if times.isna().any():
        raise InputError(f"{what}: row {int(times.isna().to_numpy().argmax())} has no time")
    beyond = (times.dt.year < 1678) | (times.dt.year > 2261)  # what nanoseconds hold
    if beyond.any():
        row = int(beyond.to_numpy().argmax())
        raise InputError(f"{what}: row {row} has the time {times.iloc[row]}; allowed are the years 1678 to 2261")
    in_utc = times.dt.tz_convert(None) if times.dt.tz is not None else times
    return in_utc.to_numpy("datetime64[ns]").astype(np.int64)
