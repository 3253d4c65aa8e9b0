"""Your own CSV and Parquet files: what was found in them, and the series that they hold.

Each column of numbers is a series. Time stamps, delimiter, compression and label column are found by themselves or
named. Rows keep the order of the file; gaps, duplicates and steps back in time are reported, not repaired.
"""

import bz2
import contextlib
import csv
import gzip
import itertools
import lzma
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from etils import epath

from spear_jax.data.series import LARGEST
from spear_jax.data.tables.cells import (
    decimal_sign,
    delimiter,
    is_number,
    is_time,
    joined,
    looks_like_dates_and_times,
    looks_like_times,
    no_field_too_many,
    parse_numbers,
    parse_times,
    time_formats,
)
from spear_jax.data.tables.rows import Columns, Remarks, Rows
from spear_jax.errors import InputError, one_line

CHUNK_ROWS = 1 << 16


_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


_TEXT, _PARQUET = (".csv", ".tsv", ".txt"), (".parquet", ".pq")


_NAMES = (*_TEXT, *(text + opener for text in _TEXT for opener in _OPENERS), *_PARQUET)


_ALLOWED = f"{', '.join(_TEXT)}, compressed ({', '.join(_OPENERS)}) or not, and {', '.join(_PARQUET)}"


_TIME_NAMES = ("timestamp", "time", "datetime", "date", "ds", "ts")


_DATE_NAMES, _CLOCK_NAMES = ("date", "day"), ("time", "clock")  # of two columns that are one


_LABEL_NAMES = ("label", "labels", "is_anomaly", "anomaly", "anomalous")


SNIFFED_BYTES = 1 << 16


UNREADABLE = (OSError, EOFError, ValueError, csv.Error, pa.ArrowException, lzma.LZMAError, zlib.error)


class File:
    """A CSV or Parquet file, read in chunks of rows."""

    def __init__(
        self,
        path: epath.Path,
        name: str,
        *,
        time: str = "",
        values: Sequence[str] = (),
        label: str = "",
        labelled: bool = True,
        usual: Columns | None = None,
    ) -> None:
        """Looks at the beginning of a file.

        Args:
          path: the file.
          name: of its series.
          time: column of time stamps; '' means the first one that is called or looks like one, if any; one of
            dates alone takes the times of the day beside it with it.
          values: columns of values; () means all columns of numbers that are neither time nor label.
          label: column of labels; '' means one that is called like one, if any.
          labelled: whether labels are read; else their column may hold anything.
          usual: what is taken, as far as the file has it, where nothing is named.

        Raises:
          InputError: it is neither CSV nor Parquet, or lacks a column.
        """
        self.path, self.name, self._labelled = path, name, labelled
        try:
            self.size = self._size()
        except OSError as fault:  # as of a symbolic link to nothing
            raise InputError(f"{path}: cannot be read ({one_line(fault)})") from fault
        self.bytes_read = 0  # of the chunk under way, for progress
        self._parquet = path.suffix.lower() in _PARQUET
        self._usual = usual or Columns("", (), "", ())
        self._decimal, self._doubt, self._undecided = ".", "", False
        self._format: dict[str, Any] = {} if self._parquet else self._sniff()
        try:
            head = next(self._frames(1000), pd.DataFrame())
        except InputError:
            raise
        except UNREADABLE as fault:
            raise InputError(f"{path}: cannot be read as {self._kind} ({one_line(fault)})") from fault
        self.columns = self._choose(head, time, tuple(values), label)
        self.remarks = Remarks(self.columns)  # on what `chunks` gave out since it last began
        # One format for the whole file: cell by cell, 12/01 and 13/01 would be months apart.
        self._time_formats = time_formats(self._stamps(head)) if self.columns.time else []
        if len(self._time_formats) > 1:
            self._time_formats = self._settled(self._time_formats)

    @property
    def series_names(self) -> list[str]:
        """A name per value column: the file's, with '/column' where it has several."""
        several = len(self.columns.values) > 1
        return [f"{self.name}/{column}" if several else self.name for column in self.columns.values]

    @property
    def _kind(self) -> str:
        return "Parquet" if self._parquet else "CSV"

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Rows]:
        """The file's rows, in order.

        Raises:
          InputError: a row cannot be read; names it.
        """
        first = 0
        self.remarks = Remarks(self.columns, [self._doubt, self._open()])
        try:
            for frame in self._frames(rows):
                chunk = self._rows(frame, first)
                self.remarks.add(chunk)
                yield chunk
                first += len(frame)
        except InputError:
            raise
        except UNREADABLE as fault:
            raise InputError(
                f"{self.path}: cannot be read as {self._kind} after row {first} ({one_line(fault)})"
            ) from fault

    def _settled(self, formats: list[str]) -> list[str]:
        """Those of the formats that the first rows have which all rows have, as far as there are any."""
        with contextlib.suppress(*UNREADABLE):  # `chunks` says where
            for frame in self._frames(CHUNK_ROWS):
                fitting = [one for one in formats if parse_times(self._stamps(frame), one).notna().all()]
                formats = fitting or formats
                if len(formats) == 1:
                    break
        return formats

    def _open(self) -> str:
        """What is said where nothing tells days from months."""
        if len(self._time_formats) > 1:
            used, other = self._time_formats
            return f"times are read as {used}; they could be {other} as well (ISO 8601 is never mistaken)"
        return ""

    def read(self) -> Rows:
        """All rows at once."""
        parts = list(self.chunks()) or [
            Rows(0, np.zeros(0, np.int64), np.zeros((0, len(self.columns.values))), None, 0)
        ]
        labels = [part.labels for part in parts if part.labels is not None]
        return Rows(
            first=0,
            times=np.concatenate([part.times for part in parts]),
            values=np.concatenate([part.values for part in parts]),
            labels=np.concatenate(labels) if labels else None,
            infinite=sum(part.infinite for part in parts),
        )

    def _decompressed(self, raw: IO[bytes]) -> IO[bytes]:
        return _OPENERS[self.path.suffix.lower()](raw) if self.path.suffix.lower() in _OPENERS else raw

    def _size(self) -> int:
        return self.path.stat().length

    def _beginning(self) -> bytes:
        try:
            with self.path.open("rb") as raw, self._decompressed(raw) as file:
                return file.read(SNIFFED_BYTES)
        except UNREADABLE as fault:
            raise InputError(f"{self.path}: cannot be read ({one_line(fault)})") from fault

    def _sniff(self) -> dict[str, Any]:
        """Delimiter and decimal sign."""
        start = self._beginning()
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(f"{self.path}: is text in UTF-16; save it as UTF-8")
        if b"\0" in start:
            raise InputError(f"{self.path}: is neither a CSV nor named .parquet (it holds zero bytes)")
        try:
            # A character may be cut in two at the end.
            text = start.decode("utf-8-sig", errors="strict" if len(start) < SNIFFED_BYTES else "ignore")
        except UnicodeDecodeError as fault:
            raise InputError(f"{self.path}: is not text in UTF-8 ({one_line(fault)}); save it as UTF-8") from fault
        lines = [line for line in text.splitlines() if line.strip()]
        if not lines:
            raise InputError(f"{self.path}: is empty; needed is a CSV with a line of column names")
        sign = delimiter(lines[0])
        names = [name.strip() for name in next(csv.reader([lines[0]], delimiter=sign))]
        if lines[0].lower().startswith("sep="):
            raise InputError(
                f"{self.path}: row 1 is {lines[0]!r}, which is for Excel; needed is a line of column names"
            )
        if all(is_number(name) or is_time(name) for name in names):
            raise InputError(f"{self.path}: row 1 is {lines[0][:60]!r}; needed is a line of column names")
        self._check_twice(names)
        # The last line may be cut in two, and a number in it.
        known = lines[1:-1] if len(start) == SNIFFED_BYTES else lines[1:]
        found, self._doubt = decimal_sign(list(csv.reader(known, delimiter=sign)), sign)
        # Where numbers need no quotes for a comma and none has told yet, the first that does decides: until then, all
        # is read as text.
        self._undecided = not found and sign != ","
        self._decimal = found or "."
        # What pandas leaves as text is read by `_numbers`: all of it where fields are divided by the decimal sign.
        given = {"decimal": self._decimal if self._decimal != sign else "."}
        return {
            "sep": sign,
            "skipinitialspace": True,
            "index_col": False,
            **({"dtype": str} if self._undecided else given),
        }

    def _frames(self, rows: int) -> Iterator[pd.DataFrame]:
        if self._parquet:
            with self.path.open("rb") as raw:
                for batch in pa.parquet.ParquetFile(raw).iter_batches(batch_size=rows):
                    self.bytes_read = raw.tell()
                    # Without pandas' own notes, so that an index stays a column like any other.
                    frame = pa.Table.from_batches([batch]).to_pandas(ignore_metadata=True)
                    hidden = [name for name in frame if str(name).startswith("__index_level_")]
                    yield frame.drop(columns=[name for name in hidden if frame[name].dtype.kind != "M"])
            return
        with self.path.open("rb") as raw, self._decompressed(raw) as file:
            with no_field_too_many():
                frames = pd.read_csv(file, **self._format, chunksize=rows, encoding="utf-8-sig", low_memory=False)
            while True:
                with no_field_too_many():
                    frame = next(frames, None)
                if frame is None:
                    return
                self.bytes_read = raw.tell()
                yield frame.rename(columns=str.strip)

    def _check_twice(self, names: Sequence[str]) -> None:
        for name in names:
            if list(names).count(name) > 1:
                raise InputError(f"{self.path}: two columns are named {name!r}")

    def _choose(self, head: pd.DataFrame, time: str, values: tuple[str, ...], label: str) -> Columns:
        names = [str(name) for name in head.columns]
        self._check_twice(names)
        self._check_twice(values)
        if label and label in values:
            raise InputError(f"{self.path}: {label!r} is in data.value_columns and data.label_column")
        for field, asked in (
            ("timestamp_column", time),
            ("label_column", label),
            *(("value_columns", v) for v in values),
        ):
            if asked and asked not in names:
                raise InputError(f"{self.path}: no column {asked!r} (data.{field}); found {', '.join(names)}")
        usual = self._usual
        if set(usual.values) <= set(names):
            values = values or tuple(name for name in usual.values if name not in (time, label))
        free = [name for name in names if name not in (label, *values)]
        named = time or next((name for name in free if name == usual.time), "")
        time = named or next((name for name in free if name.lower() in _TIME_NAMES), "")
        time = time or next((name for name in free if looks_like_times(head[name])), "")
        time, clock = (time, "") if named else self._dates_and_times(head, free, time)
        label = label or next((name for name in free if name == usual.label), "")
        label = label or next((name for name in free if name.lower() in _LABEL_NAMES), "")
        # What is called like a label is never read as a value: it would give the answer away.
        taken = (time, clock, label, *(name for name in names if name.lower() in _LABEL_NAMES))
        numbers = [name for name in names if name not in taken and self._is_numeric(head[name])]
        chosen = values or tuple(numbers)
        if not chosen:
            raise InputError(f"{self.path}: no column of numbers; found {', '.join(names)}")
        left_out = tuple(name for name in names if name not in (time, clock, label, *chosen))
        return Columns(time, chosen, label, left_out, clock)

    def _dates_and_times(self, head: pd.DataFrame, free: Sequence[str], time: str) -> tuple[str, str]:
        """The column of times; where it holds dates alone or times of the day alone, and the other is there, both."""
        clocks = [name for name in free if name.lower() in _CLOCK_NAMES]
        dates = [name for name in free if name.lower() in _DATE_NAMES] if time in clocks else [time]
        for date, clock in itertools.product(filter(None, dates), clocks):
            if looks_like_dates_and_times(head[date], head[clock]):
                return date, clock
        return time, ""

    def _stamps(self, frame: pd.DataFrame) -> pd.Series:
        columns = self.columns
        return joined(frame[columns.time], frame[columns.clock]) if columns.clock else frame[columns.time]

    def _rows(self, frame: pd.DataFrame, first: int) -> Rows:
        columns = self.columns
        if self._undecided:
            self._decide(frame)
        values = np.stack([self._numbers(frame[name], name, first) for name in columns.values], axis=1)
        infinite = np.abs(values) > LARGEST
        return Rows(
            first=first,
            times=self._times(self._stamps(frame), first) if columns.time else np.zeros(0, np.int64),
            values=np.where(infinite, np.nan, values),
            labels=self._labels(frame[columns.label], first) if columns.label and self._labelled else None,
            infinite=int(infinite.sum()),
        )

    def _decide(self, frame: pd.DataFrame) -> None:
        """The decimal sign, if any of these rows tells."""
        cells = frame[list(self.columns.values)].fillna("").to_numpy().tolist()
        found, self._doubt = decimal_sign(cells, self._format["sep"])
        if found:
            self._decimal, self._undecided = found, False
            self.remarks.beforehand[0] = self._doubt

    def _numbers(self, column: pd.Series, name: str, first: int) -> np.ndarray:
        numbers = parse_numbers(column, self._decimal)
        wrong = numbers.isna() & column.notna() & (column.astype(str).str.strip().str.lower() != "nan")
        if wrong.any():
            place = int(wrong.to_numpy().argmax())
            raise InputError(
                f"{self.path}: row {first + place + 1}, column {name!r}: {shown(column.iloc[place])} is no number"
                + (f" (the decimal sign is {self._decimal!r})" if not self._parquet else "")
            )
        return numbers.to_numpy(np.float64)

    def _is_numeric(self, column: pd.Series) -> bool:
        """True for numbers, even if a few cells are none: those are then named. Without a row, nothing tells."""
        if pd.api.types.is_numeric_dtype(column) or not column.notna().any():
            return True
        if pd.api.types.is_datetime64_any_dtype(column):
            return False
        return bool(parse_numbers(column.dropna(), self._decimal).notna().mean() > 0.5)

    def _labels(self, column: pd.Series, first: int) -> np.ndarray:
        text = column.astype(str).str.strip().str.lower()
        known = text.map({"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True})
        if known.isna().any():
            place = int(known.isna().to_numpy().argmax())
            raise InputError(
                f"{self.path}: row {first + place + 1}, column {column.name!r}: label is {shown(column.iloc[place])};"
                " allowed are 0 and 1"
            )
        return known.to_numpy(bool)

    def _times(self, column: pd.Series, first: int) -> np.ndarray:
        form = next(iter(self._time_formats), "")
        times = parse_times(column, form)
        if times.isna().any():
            place = int(times.isna().to_numpy().argmax())
            columns = self.columns
            where = f"column {columns.time!r}" + (f" with {columns.clock!r}" if columns.clock else "")
            known = f" of the form {form}, as in the first rows" if "%" in form else ""
            known += f"; data.timestamp_column={columns.time} takes the dates alone" if columns.clock else ""
            raise InputError(
                f"{self.path}: row {first + place + 1}, {where}: {shown(column.iloc[place])} is no time{known}"
            )
        return times.to_numpy("datetime64[ns]").astype(np.int64)


def shown(cell: object) -> str:
    """A cell as a message names it."""
    return repr(cell) if isinstance(cell, str) else str(cell)
