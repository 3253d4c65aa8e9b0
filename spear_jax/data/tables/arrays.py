"""Reads series in memory: arrays, lists, and pandas or polars frames, the latter by the same rules as files."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped
from sklearn.utils import check_array

from spear_jax.data.series import LARGEST, Series
from spear_jax.data.tables.answers import leave_out_answers
from spear_jax.data.tables.columns import ANSWER, UNNAMED, Columns, check_unique
from spear_jax.data.tables.extremes import remark_on_extremes
from spear_jax.data.tables.file import name_series, name_table
from spear_jax.data.tables.names import is_time_name
from spear_jax.data.tables.remarks import Remarks
from spear_jax.data.tables.rows import RowParser, Rows, rows_by_series
from spear_jax.data.tables.table_options import TableOptions
from spear_jax.data.tables.times import looks_like_times
from spear_jax.errors import InputError

_INDEX = "index"  # the name of an index of times without a name


@dataclasses.dataclass(frozen=True)
class Table:
    """Series of equal length: the columns of an array or a frame.

    Attributes:
      values: a column per series; NaN where missing.
      times: time of each row in nanoseconds since 1970; empty if the rows have no times.
      columns: the names of the columns, or their numbers if they have none.
      named: whether the columns have names.
      remarks: sentences about what is unusual, as for files.
      series: in a long table, the name of each row's series; else None.
    """

    values: Float[np.ndarray, "rows columns"]
    times: Int[np.ndarray, "stamps"]
    columns: tuple[str, ...]
    named: bool
    remarks: tuple[str, ...] = ()
    series: Shaped[np.ndarray, "rows"] | None = None

    def parts(self) -> dict[str, Int[np.ndarray, "_rows"]]:
        """Returns the rows of each series of a long table, by name; those of another table, with ''."""
        return {"": np.arange(len(self.values))} if self.series is None else rows_by_series(self.series)

    def select(self, rows: Int[np.ndarray, "_rows"]) -> "Table":
        """Returns some rows, as a table of one series per column."""
        times = self.times[rows] if len(self.times) else self.times
        return dataclasses.replace(self, values=self.values[rows], times=times, series=None)


def is_list_of_series(data: Any) -> bool:
    """Returns whether data is a list of arrays or frames, rather than a single one or a list of numbers."""
    if not isinstance(data, list | tuple):
        return False
    return any(hasattr(item, "__len__") and not isinstance(item, str) for item in data)


def read_array(data: Any, name: str, options: TableOptions) -> Table:
    """Reads an array [time] or [time, columns], a list of numbers, or a frame.

    The columns of a frame have the roles that they have in a file; an index of times is a column of times.

    Raises:
      ValueError: the data are empty, not numbers, or infinite, or have more than two axes; or a frame cannot be used.
    """
    data = data.to_pandas() if type(data).__module__.split(".")[0] == "polars" else data
    if isinstance(data, pd.Series):
        data = data.to_frame()
    if isinstance(data, np.ma.MaskedArray):
        data = np.ma.filled(data.astype(np.float64), np.nan)
    if isinstance(data, pd.DataFrame):
        try:
            data, times = _with_names(data), _find_times(data.index)
            if times is not None or _has_names(data):
                return _read_frame(data, times, name, options)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    values = check_array(data, dtype=np.float64, ensure_2d=False, ensure_all_finite=False, input_name=name)
    if values.ndim > 2 or not values.ndim:
        raise InputError(f"{name}: its shape is {values.shape}; allowed: [time] and [time, columns]")
    if (too_large := np.abs(values) > LARGEST).any():
        row = np.argwhere(too_large)[0][0]
        raise InputError(f"{name}: row {row} is infinite, or beyond 1e100; a missing value is NaN")
    values = values.reshape(len(values), -1)
    for number in options.missing:
        values = np.where(values == number, np.nan, values)
    columns = tuple(map(str, range(values.shape[1])))
    remarks = Remarks(Columns(values=columns))
    remarks.add(Rows(0, np.zeros(0, np.int64), values, None, 0), [])
    return Table(values, np.zeros(0, np.int64), columns, named=False, remarks=_prefixed(name, remarks))


def _has_names(frame: pd.DataFrame) -> bool:
    return all(isinstance(name, str) for name in frame)


def _with_names(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a frame whose columns have one level of names, all of which are text if any is."""
    if frame.columns.nlevels > 1:
        return frame.set_axis(["/".join(filter(None, map(str, names))) for names in frame.columns], axis=1)
    return frame.rename(columns=str) if any(isinstance(name, str) for name in frame) else frame


def _find_times(index: pd.Index) -> pd.Series | None:
    """Returns the times in an index, as a column; None if it has none.

    Raises:
      InputError: it has several levels.
    """
    if index.nlevels > 1:
        raise InputError("has an index of several levels; reset_index makes columns of them")
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    column = index.to_series(name=str(index.name or _INDEX)).reset_index(drop=True)
    if isinstance(index, pd.TimedeltaIndex):
        return column.dt.total_seconds()
    return column if looks_like_times(column) or is_time_name(str(index.name)) else None


def _read_frame(frame: pd.DataFrame, times: pd.Series | None, name: str, options: TableOptions) -> Table:
    """Reads a frame as a file is read; `times` are those of its index."""
    named = _has_names(frame)
    if not len(frame) or not len(frame.columns):
        raise InputError("has no rows or no columns")
    if any(map(pd.api.types.is_complex_dtype, frame.dtypes)):
        raise InputError("has complex numbers; give real and imaginary parts as columns of their own")
    frame = frame.reset_index(drop=True).rename(columns=str)
    check_unique(list(frame))
    if times is not None and times.name not in frame:
        frame = pd.concat([times, frame], axis=1)
        if not options.named.time:
            named_columns = dataclasses.replace(options.named, time=str(times.name))
            options = dataclasses.replace(options, named=named_columns)
    if not named:  # by their places, as the columns of an array
        values = tuple(column for column in frame if column != options.named.time)
        options = dataclasses.replace(options, named=dataclasses.replace(options.named, values=values), usual=UNNAMED)
    parser = RowParser(frame, None, dataclasses.replace(options, labelled=False))
    rows = parser.parse(frame, 0)
    roles = parser.columns
    if roles.label:  # labels are given beside the frame
        roles = dataclasses.replace(
            roles, left_out=(*roles.left_out, roles.label), reasons={**roles.reasons, roles.label: ANSWER}
        )
    remarks = Remarks(roles)
    remarks.add(rows, [*parser.remarks, parser.time_remark])
    idle = remarks.leave_out_idle()
    columns = tuple(column for column, out in zip(parser.columns.values, idle, strict=True) if not out)
    return Table(rows.without(idle).values, rows.times, columns, named, _prefixed(name, remarks), rows.series)


def _prefixed(name: str, remarks: Remarks) -> tuple[str, ...]:
    return tuple(f"{name}: {remark}" for remark in remarks)


def read_labels(data: Any, rows: int, name: str) -> Bool[np.ndarray, "rows"]:
    """Reads a label per row, 0 or 1.

    Raises:
      InputError: a label is neither 0 nor 1, or there is not one per row.
    """
    if np.ma.is_masked(data):
        raise InputError(f"{name}: some are masked; allowed: 0 and 1")
    labels = np.asarray(data)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.shape != (rows,):
        raise InputError(f"{name}: their shape is {np.shape(data)}; expected a label for each of the {rows} rows")
    wrong = np.flatnonzero(~np.isin(labels, (0, 1)))
    if len(wrong):
        raise InputError(f"{name}: row {wrong[0]} is {labels[wrong[0]].item()!r}; allowed: 0 and 1")
    return labels.astype(bool)


def read_arrays(data: Any, name: str, options: TableOptions) -> list[Table]:
    """Reads one array or frame, or a list of them; see `read_array`."""
    if is_list_of_series(data):
        return [read_array(item, f"{name} {number}", options) for number, item in enumerate(data)]
    return [read_array(data, name, options)]


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


class LabelledTables(NamedTuple):
    """Tables with their series, one per column, and remarks on them."""

    tables: list[Table]
    series: list[Series]
    remarks: list[str]

    @property
    def columns(self) -> Columns:
        """Returns the columns that all tables have in common, if they have the same, as those of further tables."""
        names = {table.columns if table.named else () for table in self.tables}
        return Columns(values=names.pop()) if len(names) == 1 else UNNAMED


def read_labelled(data: Any, labels: Any, options: TableOptions, prefix: str = "") -> LabelledTables:
    """Reads one array or frame, or a list of them, and their labels if they are not None, see `read_array`.

    Columns whose values are those of the labels are left out.

    Raises:
      ValueError: see `read_array`; or such a column has no name, and so cannot be left out of further arrays.
    """
    tables = read_arrays(data, f"{prefix}series", options)
    row_labels = None if labels is None else read_table_labels(labels, tables, f"{prefix}labels")
    series, answers = leave_out_answers(_make_series(tables, row_labels, prefix), options.named)
    if answers and not all(table.named for table in tables):
        raise InputError(f"{answers[0]}; it has no name and must be taken out of the array")
    names = {item.name for item in series}
    kept = [
        _select(table, np.any([np.isin(own, list(names)) for own in _names(tables, number, prefix).values()], axis=0))
        for number, table in enumerate(tables)
    ]
    remarks = dict.fromkeys(remark for table in tables for remark in table.remarks)
    return LabelledTables(kept, series, [*remarks, *answers, *remark_on_extremes(series)])


def _select(table: Table, kept: Bool[np.ndarray, "columns"]) -> Table:
    columns = tuple(column for column, keep in zip(table.columns, kept, strict=True) if keep)
    return dataclasses.replace(table, values=table.values[:, kept], columns=columns)


def _names(tables: Sequence[Table], number: int, prefix: str) -> dict[str, list[str]]:
    """Returns the names of a table's series; those of a single long table are named as in a file."""
    table = tables[number]
    if table.series is None:
        return {"": [f"{prefix}{number}/{column}" for column in table.columns]}
    whole = f"{prefix}{number}" if len(tables) > 1 else prefix.strip()
    return {part: name_series(name_table(whole, part), table.columns) for part in table.parts()}


def _make_series(
    tables: Sequence[Table], labels: Sequence[Bool[np.ndarray, "_rows"]] | None, prefix: str
) -> list[Series]:
    """Makes a series of each column, or several of a long table's; the columns of a table form a group."""
    return [
        Series(
            name=name,
            values=values,
            labels=labels[number][rows] if labels is not None else np.zeros(len(values), bool),
            timestamps=own.times.view("datetime64[ns]"),
            group=f"{prefix}{number}/{part}" if part else f"{prefix}{number}",
            column=column,
            labelled=labels is not None,
        )
        for number, table in enumerate(tables)
        for part, rows in table.parts().items()
        for own in [table.select(rows)]
        for name, column, values in zip(_names(tables, number, prefix)[part], table.columns, own.values.T, strict=True)
    ]
