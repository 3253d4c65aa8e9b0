"""Parses frames of raw cells into rows of numbers, times and labels."""

import dataclasses

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from spear_jax.data.series import LARGEST
from spear_jax.data.tables.cells import (
    find_decimal_sign,
    find_time_formats,
    join_dates_and_times,
    parse_numbers,
    parse_times,
)
from spear_jax.data.tables.columns import Columns, choose_columns
from spear_jax.data.tables.csv_format import CsvFormat
from spear_jax.errors import InputError

_LABELS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


@dataclasses.dataclass(frozen=True)
class Rows:
    """Consecutive rows of a table.

    Attributes:
      first: the number of the first row, from 0.
      times: time of each row in nanoseconds since 1970; empty without a time column.
      values: a column per series; NaN where missing, infinite, or beyond `LARGEST`.
      labels: True where anomalous; None without a label column, or if labels are not read.
      infinite: the number of values that were infinite or beyond `LARGEST`.
    """

    first: int
    times: Int[np.ndarray, "stamps"]
    values: Float[np.ndarray, "rows columns"]
    labels: Bool[np.ndarray, "rows"] | None
    infinite: int

    def __len__(self) -> int:
        return len(self.values)


class RowParser:
    """Parses the frames of one table.

    Attributes:
      columns: the roles of the table's columns.
      time_formats: the possible formats of the times: two as long as days and months cannot be told apart, of which the
        first is used.
      decimal_remark: a sentence if the decimal sign is a guess, else ''.
    """

    def __init__(
        self,
        head: pd.DataFrame,
        csv_format: CsvFormat | None,
        *,
        named: Columns,
        usual: Columns,
        labelled: bool,
    ) -> None:
        """Chooses columns and time format from the first rows; the format of Parquet is None.

        For `named` and `usual`, see `choose_columns`; a column of labels may contain anything unless `labelled`.
        """
        self._csv, self._labelled = csv_format, labelled
        self._decimal = csv_format.decimal if csv_format else "."
        self.decimal_remark = csv_format.remark if csv_format else ""
        self.columns = choose_columns(head, named, usual, self._decimal or ".")
        # One format for all rows: parsed cell by cell, 12/01 and 13/01 would be months apart.
        self.time_formats = find_time_formats(self.stamps(head)) if self.columns.time else []

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
          InputError: a cell cannot be parsed; names row and column.
        """
        columns = self.columns
        if not self._decimal:
            self._find_decimal_sign(frame)
        values = np.stack([self._parse_values(frame[name], first) for name in columns.values], axis=1)
        infinite = np.abs(values) > LARGEST
        return Rows(
            first=first,
            times=self._parse_times(self.stamps(frame), first) if columns.time else np.zeros(0, np.int64),
            values=np.where(infinite, np.nan, values),
            labels=_parse_labels(frame[columns.label], first) if columns.label and self._labelled else None,
            infinite=int(infinite.sum()),
        )

    def _find_decimal_sign(self, frame: pd.DataFrame) -> None:
        """Sets the decimal sign if a number in these rows reveals it."""
        assert self._csv  # a CSV of which all cells are text
        cells = frame[list(self.columns.values)].fillna("").to_numpy().tolist()
        self._decimal, remark = find_decimal_sign(cells, self._csv.delimiter)
        if self._decimal:
            self.decimal_remark = remark

    def _parse_values(self, column: pd.Series, first: int) -> Float[np.ndarray, "rows"]:
        decimal = self._decimal or "."
        numbers = parse_numbers(column, decimal)
        wrong = numbers.isna() & column.notna() & (column.astype(str).str.strip().str.lower() != "nan")
        if wrong.any():
            row, cell = first_cell(column, wrong, first)
            hint = f" (the decimal sign is {decimal!r})" if self._csv else ""
            raise InputError(f"row {row}, column {column.name!r}: {cell} is not a number{hint}")
        return numbers.to_numpy(np.float64)

    def _parse_times(self, column: pd.Series, first: int) -> Int[np.ndarray, "rows"]:
        self.settle_time_format(column, first)
        time_format = next(iter(self.time_formats), "")
        times = parse_times(column, time_format)
        if times.isna().any():
            row, cell = first_cell(column, times.isna(), first)
            time, clock = self.columns.time, self.columns.clock
            names = f"{time!r} with {clock!r}" if clock else repr(time)
            hint = f" of the form {time_format}, as in the first rows" if "%" in time_format else ""
            hint += f"; data.timestamp_column={time} takes the dates alone" if clock else ""
            raise InputError(f"row {row}, column {names}: {cell} is not a time{hint}")
        return times.to_numpy("datetime64[ns]").astype(np.int64)


def _parse_labels(column: pd.Series, first: int) -> Bool[np.ndarray, "rows"]:
    labels = column.astype(str).str.strip().str.lower().map(_LABELS)
    if labels.isna().any():
        row, cell = first_cell(column, labels.isna(), first)
        raise InputError(f"row {row}, column {column.name!r}: label is {cell}; allowed: 0 and 1")
    return labels.to_numpy(bool)


def first_cell(column: pd.Series, wrong: pd.Series, first: int) -> tuple[int, str]:
    """Returns the row, counted from 1, and the text of the first wrong cell."""
    position = int(wrong.to_numpy().argmax())
    cell = column.iloc[position]
    return first + position + 1, repr(cell) if isinstance(cell, str) else str(cell)
