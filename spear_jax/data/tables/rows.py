"""Parses frames of raw cells into rows of numbers, times and labels."""

import dataclasses
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped

from spear_jax.data.series import LARGEST
from spear_jax.data.tables.columns import choose_columns
from spear_jax.data.tables.csv_format import CsvFormat
from spear_jax.data.tables.names import is_time_name, split_words, time_unit
from spear_jax.data.tables.numbers import DecimalSign, parse_numbers
from spear_jax.data.tables.table_options import TableOptions
from spear_jax.data.tables.times import TICKS, find_time_formats, join_dates_and_times, parse_stamps
from spear_jax.data.tables.units import find_unit, take_off_unit
from spear_jax.errors import InputError, listed

NORMAL = frozenset(("0", "0.0", "false", "normal", "ok", "no", "n", "nominal", "healthy", "benign", "good", "nein"))
_ANOMALOUS = frozenset(("1", "1.0", "true", "anomaly", "anomalous", "abnormal", "attack", "outlier", "yes", "y", "ja"))
_FLAGS = ("0", "1", "0.0", "1.0", "false", "true")
_DESCRIBING_ROWS = 10  # below the header


@dataclasses.dataclass(frozen=True)
class Rows:
    """Consecutive rows of a table.

    Attributes:
      first: the number of the first row, from 0.
      times: time of each row in nanoseconds since 1970; empty without a time column.
      values: a column per series; NaN where missing, infinite, or beyond `LARGEST`.
      labels: True where anomalous; None without a label column, or if labels are not read.
      infinite: the number of values that were infinite or beyond `LARGEST`.
      series: in a long table, the name of each row's series; else None.
    """

    first: int
    times: Int[np.ndarray, "stamps"]
    values: Float[np.ndarray, "rows columns"]
    labels: Bool[np.ndarray, "rows"] | None
    infinite: int
    series: Shaped[np.ndarray, "rows"] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def parts(self) -> Iterator[tuple[str, "Rows"]]:
        """Yields the rows of each series of a long table, with its name; all rows of another table, with ''."""
        if self.series is None:
            yield "", self
            return
        for name, rows in rows_by_series(self.series).items():
            yield (
                name,
                dataclasses.replace(
                    self,
                    times=self.times[rows] if len(self.times) else self.times,
                    values=self.values[rows],
                    labels=None if self.labels is None else self.labels[rows],
                    infinite=0,
                    series=None,
                ),
            )

    def without(self, dropped: Sequence[bool]) -> "Rows":
        """Returns the rows without some columns of values."""
        return dataclasses.replace(self, values=self.values[:, ~np.array(dropped, bool)])


def rows_by_series(names: Shaped[np.ndarray, "rows"]) -> dict[str, Int[np.ndarray, "_rows"]]:
    """Returns the rows of each series, given the series' name in each row; in the order of their first rows."""
    return {str(name): rows for name, rows in pd.Series(names).groupby(names, sort=False).indices.items()}


class RowParser:
    """Parses the frames of one table, in order.

    Attributes:
      columns: the roles of the table's columns.
      time_formats: the possible formats of the times: two as long as days and months cannot be told apart, of which the
        first is used.
      offset: whether times are given with their offset from UTC, or count from an instant in UTC.
    """

    def __init__(self, head: pd.DataFrame, csv_format: CsvFormat | None, options: TableOptions) -> None:
        """Chooses columns and time format from the first rows; the format of other tables than CSV is None."""
        self._reading, self._csv = options, csv_format
        self._sign = DecimalSign(options.decimal or (csv_format.decimal if csv_format else ""), self._delimiter)
        told = (options.named.time, options.named.label)
        head = self._present(head, [str(name) for name in head if name not in told])
        units = {name: find_unit(head[name]) for name in head if not (is_time_name(str(name)) or name in told)}
        self._units = {str(name): unit for name, unit in units.items() if unit}
        self.columns = choose_columns(self._without_units(head, 0), options.named, options.usual)
        self._units = {name: unit for name, unit in self._units.items() if name in self.columns.values}
        # One format for all rows: parsed cell by cell, 12/01 and 13/01 would be months apart.
        self.time_formats: list[str] = []
        self.offset = False
        if self.columns.time:
            self.time_formats = find_time_formats(self.stamps(head), time_unit(self.columns.time))
            self.offset = bool(parse_stamps(self.stamps(head), next(iter(self.time_formats), ""))[1])
        # By series, the ids and the time of the last row.
        self._last: dict[str, tuple[pd.DataFrame, Int[np.ndarray, stamps]]] = {}

    @property
    def _delimiter(self) -> str:
        return self._csv.delimiter if self._csv else ""

    @property
    def remarks(self) -> list[str]:
        """Returns a sentence for each guess but that of days and months, always in the same order; '' for none."""
        time_format, units = next(iter(self.time_formats), ""), self._units.items()
        return [
            self._csv.remark if self._csv else "",
            self._sign.remark,
            f"units that are left off: {listed([f'{u} ({name})' for name, u in units])}" if units else "",
            f"times are read as {TICKS} (100 ns since the year 1)" if time_format == TICKS else "",
        ]

    @property
    def time_remark(self) -> str:
        """Returns a sentence if days and months cannot be told apart, else ''."""
        if len(self.time_formats) < 2:
            return ""
        used, other = self.time_formats
        return f"times are read as {used}; they could be {other} as well (ISO 8601 is never mistaken)"

    def stamps(self, frame: pd.DataFrame) -> pd.Series:
        """Returns the unparsed times of a frame."""
        columns = self.columns
        if columns.clock:
            return join_dates_and_times(frame[columns.time], frame[columns.clock])
        return frame[columns.time]

    def settle_time_format(self, stamps: pd.Series, first: int) -> None:
        """Updates `time_formats`, given the unparsed times of the next frame; does nothing by default."""

    def parse(self, frame: pd.DataFrame, first: int) -> Rows:
        """Parses a frame.

        Raises:
          InputError: a cell cannot be parsed, or rows belong to several series; names row and column.
        """
        columns, frame = self.columns, self._without_units(self._present(frame, self.columns.values), first)
        if not self._sign.revealed:
            self._sign.add({name: frame[name] for name in columns.values})
        values = np.stack([self._parse_values(frame[name], first) for name in columns.values], axis=1)
        for number in self._reading.missing:
            values[values == number] = np.nan
        times = self._parse_times(self.stamps(frame), first) if columns.time else np.zeros(0, np.int64)
        series = _parse_names(frame[columns.series], first) if columns.series else None
        if columns.ids:
            ids = frame[list(columns.ids)]
            for name, rows in {"": slice(None)}.items() if series is None else rows_by_series(series).items():
                self._check_one_series(name, ids.iloc[rows], times[rows] if len(times) else times)
        infinite = np.abs(values) > LARGEST
        labelled = columns.label and self._reading.labelled
        return Rows(
            first=first,
            times=times,
            values=np.where(infinite, np.nan, values),
            labels=_parse_labels(frame[columns.label], first) if labelled else None,
            infinite=int(infinite.sum()),
            series=series,
        )

    def _without_units(self, frame: pd.DataFrame, first: int) -> pd.DataFrame:
        """Returns a frame without the units of its numbers."""
        return frame.assign(**{name: take_off_unit(frame[name], unit, first) for name, unit in self._units.items()})

    def _present(self, frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
        """Returns a frame without the words that stand for missing values in some of its columns."""
        words = self._reading.missing_words
        if not words:
            return frame
        cells = {name: frame[name] for name in names if not pd.api.types.is_numeric_dtype(frame[name])}
        return frame.assign(
            **{name: column.mask(column.astype(str).str.strip().isin(words)) for name, column in cells.items()}
        )

    def _parse_values(self, column: pd.Series, first: int) -> Float[np.ndarray, "rows"]:
        decimal = self._sign.sign or "."
        numbers = parse_numbers(column, decimal)
        wrong = numbers.isna() & column.notna()
        if wrong.any():
            wrong &= column.astype(str).str.strip().str.lower() != "nan"
        if wrong.any():
            row, cell = first_cell(column, wrong, first)
            hint = f" (the decimal sign is {decimal!r})" if self._csv else ""
            if re.match(r"'(\s*[^\W\d]|\D*$)", cell):
                hint = "; data.missing_values names words that stand for missing values"
                hint += ", and rows that describe the columns must be deleted" if row <= _DESCRIBING_ROWS else ""
            raise InputError(f"row {row}, column {column.name!r}: {cell} is not a number{hint}")
        return numbers.to_numpy(np.float64)

    def _parse_times(self, column: pd.Series, first: int) -> Int[np.ndarray, "rows"]:
        self.settle_time_format(column, first)
        time_format = next(iter(self.time_formats), "")
        times, offset = parse_stamps(column, time_format)
        time, clock = self.columns.time, self.columns.clock
        names = f"{time!r} with {clock!r}" if clock else repr(time)
        if times.isna().any():
            row, cell = first_cell(column, times.isna(), first)
            hint = f" of the form {time_format}, as in the first rows" if "%" in time_format else ""
            hint += f"; data.timestamp_column={time} takes the dates alone" if clock else ""
            raise InputError(f"row {row}, column {names}: {cell} is not a time{hint}")
        if len(column) and offset is not self.offset:
            raise InputError(
                f"rows {first + 1} to {first + len(column)}, column {names}: some times have an offset from UTC, as in"
                " 12:00+02:00, and some have none; allowed: all or none"
            )
        return times.to_numpy("datetime64[ns]").astype(np.int64)

    def _check_one_series(self, series: str, names: pd.DataFrame, times: Int[np.ndarray, "stamps"]) -> None:
        """Checks that no other series begins: an id changes where the time does not rise, or there is no time."""
        if series in self._last:
            names = pd.concat([self._last[series][0], names])
            times = np.concatenate([self._last[series][1], times])
        self._last[series] = names.iloc[-1:], times[-1:]
        before = names.shift(1)
        changed = (names != before) & names.notna() & before.notna()
        if len(times):
            changed = changed[np.diff(times, prepend=times[:1] - 1) <= 0]
        if not changed.to_numpy().any():
            return
        name = next(name for name in names if changed[name].any())
        raise InputError(
            f"column {name!r} tells series apart ({listed([str(cell) for cell in names[name].unique()], 3)}) whose rows"
            f" lie below one another; data.series_column={name} reads each as a series of its own"
        )


def _parse_names(column: pd.Series, first: int) -> Shaped[np.ndarray, "rows"]:
    if column.isna().any():
        row, _ = first_cell(column, column.isna(), first)
        raise InputError(f"row {row}, column {column.name!r} (data.series_column): names no series")
    return column.astype(str).str.strip().to_numpy(object)


def _parse_labels(column: pd.Series, first: int) -> Bool[np.ndarray, "rows"]:
    words = column.astype(str).str.lower().str.replace(" ", "")  # SWaT has 'A ttack'
    if split_words(str(column.name))[-1:] == ["normal"] and words.isin(_FLAGS).all():
        raise InputError(
            f"column {column.name!r}: its 1 seems to mean normal, and that of labels means anomalous; turn its values"
            " round, and name it otherwise"
        )
    labels = words.isin(_ANOMALOUS)
    wrong = ~labels & ~words.isin(NORMAL)
    if wrong.any():
        row, cell = first_cell(column, wrong, first)
        raise InputError(
            f"row {row}, column {column.name!r}: label is {cell}; allowed: 0 and 1, false and true, no and yes, normal"
            " and anomaly, and the like"
        )
    return labels.to_numpy(bool)


def first_cell(column: pd.Series, wrong: pd.Series, first: int) -> tuple[int, str]:
    """Returns the row, counted from 1, and the text of the first wrong cell."""
    position = int(wrong.to_numpy().argmax())
    cell = column.iloc[position]
    return first + position + 1, repr(cell) if isinstance(cell, str) else str(cell)
