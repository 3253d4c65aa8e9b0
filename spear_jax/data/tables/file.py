"""Reads CSV and Parquet files.

Roles of columns, delimiter, decimal sign and compression are detected or named by the user. Rows keep the file's order;
gaps, repeated and backward time stamps are reported, not repaired.
"""

import bz2
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from etils import epath

from spear_jax.data.series import ColumnRole
from spear_jax.data.tables.csv_format import SNIFFED_BYTES, CsvFormat
from spear_jax.data.tables.names import is_unnamed
from spear_jax.data.tables.remarks import Remarks
from spear_jax.data.tables.rows import RowParser, Rows
from spear_jax.data.tables.table_options import NO_OPTIONS, TableOptions
from spear_jax.data.tables.times import UNITS, parse_times
from spear_jax.errors import InputError, one_line
from spear_jax.storage import check_ordinary

CHUNK_ROWS = 1 << 16
_LONGEST_START = 1 << 24  # bytes in which the names of the columns end
_HEAD_ROWS = 1000  # rows from which columns are chosen
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_TEXT, _PARQUET = (".csv", ".tsv", ".txt"), (".parquet", ".pq")
SUFFIXES = (*_TEXT, *(text + opener for text in _TEXT for opener in _OPENERS), *_PARQUET)
ALLOWED_SUFFIXES = f"{', '.join(_TEXT)}, compressed ({', '.join(_OPENERS)}) or not, and {', '.join(_PARQUET)}"
UNREADABLE = (
    *(OSError, EOFError, ValueError, csv.Error, pa.ArrowException, lzma.LZMAError, zlib.error),
    *(NotImplementedError, OverflowError),  # of pandas, for times outside the years that Python knows
)


def strip_suffixes(name: str) -> str:
    """Removes the suffixes of a CSV or Parquet file from its name."""
    for suffix in (*_OPENERS, *_TEXT, *_PARQUET):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name


def name_table(table: str, part: str) -> str:
    """Names a table; a series of a long table is a table of its own, in a folder of the table's name if it has one."""
    return "/".join(filter(None, (table, part)))


def name_series(table: str, values: Sequence[str]) -> list[str]:
    """Names the series of a table, one per value column: the table's name, plus '/column' if there are several."""
    return [f"{table}/{column}" if len(values) > 1 else table for column in values]


def _is_binary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_binary(kind.value_type)
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(is_of(kind) for is_of in tests)


def _decode(cell: bytes) -> str:
    return cell.decode(errors="backslashreplace")


class TableFile:
    """A CSV or Parquet file, read in chunks of rows.

    Attributes:
      path: the file.
      name: name of the table, used in the names of its series; that of a long table may be ''.
      size: size of the file in bytes.
      bytes_read: bytes read up to the current chunk, for a progress bar.
      columns: the roles of the columns.
      remarks: remarks on the rows that the last call of `chunks` has yielded so far.
    """

    def __init__(self, path: epath.Path, name: str, options: TableOptions = NO_OPTIONS) -> None:
        """Examines the beginning of a file, and more if that leaves open what columns or times are.

        Raises:
          InputError: it is neither CSV nor Parquet, or lacks a column.
        """
        self.path, self.name, self.bytes_read = path, name, 0
        self._text = options.named.series
        self._is_parquet = path.suffix.lower() in _PARQUET
        with self._errors("cannot be read"):
            self.size = path.stat().length  # fails for a symbolic link to nothing
        check_ordinary(path)
        with self._errors("cannot be read"):
            self._csv = None if self._is_parquet else self._sniff(options.decimal)
        kind = "Parquet" if self._is_parquet else "CSV"
        self._unreadable = f"cannot be read as {kind}"
        with self._errors(self._unreadable):
            head = self._with_late_cells(next(self._frames(_HEAD_ROWS), pd.DataFrame()), options)
            self._parser = RowParser(head, self._csv, options)
        if len(self._parser.time_formats) > 1:
            self._parser.time_formats = self._narrow_down(self._parser.time_formats)
        self.columns = self._parser.columns
        self.remarks = Remarks(self.columns)

    @property
    def time_format(self) -> str:
        """Returns the format of the times, see `find_time_formats`; '' without times."""
        return next(iter(self._parser.time_formats), "")

    @property
    def roles(self) -> list[ColumnRole]:
        """Returns the role of each column, with the reason."""
        columns = self.columns
        zone = "since 1970, in UTC" if self.time_format in UNITS else "with an offset from UTC"
        form = f"{self.time_format}, {zone if self.has_offsets else 'without a zone'}"
        named = {columns.time: "time", columns.clock: "time of day", columns.label: "label", columns.series: "series"}
        roles = dict.fromkeys(columns.values, "value") | dict.fromkeys(columns.left_out, "left out") | named
        reasons = {**columns.reasons, columns.time: f"{columns.reasons.get(columns.time)}; {form}"}
        return [
            ColumnRole(self.path.name, name, roles[name], reasons[name]) for name in columns.reasons if name in roles
        ]

    @property
    def has_offsets(self) -> bool:
        """Returns whether times are given with their offset from UTC, or count from an instant in UTC."""
        return self._parser.offset

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Rows]:
        """Yields the file's rows, in order.

        Raises:
          InputError: a row cannot be parsed; names it.
        """
        first = 0
        self.remarks = Remarks(self.columns)
        frames = self._frames(rows)
        while True:
            with self._errors(f"{self._unreadable} after row {first}"):
                frame = next(frames, None)
                if frame is None:
                    return
                chunk = self._parser.parse(frame, first)
            self.remarks.add(chunk, [*self._parser.remarks, self._parser.time_remark])
            yield chunk
            first += len(chunk)

    def read(self) -> Rows:
        """Reads all rows at once, and leaves out columns that never change, if others do."""
        empty = Rows(0, np.zeros(0, np.int64), np.zeros((0, len(self.columns.values))), None, 0)
        chunks = list(self.chunks()) or [empty]
        labels = [chunk.labels for chunk in chunks if chunk.labels is not None]
        rows = Rows(
            first=0,
            times=np.concatenate([chunk.times for chunk in chunks]),
            values=np.concatenate([chunk.values for chunk in chunks]),
            labels=np.concatenate(labels) if labels else None,
            infinite=sum(chunk.infinite for chunk in chunks),
            series=np.concatenate([chunk.series for chunk in chunks]) if chunks[0].series is not None else None,
        )
        idle = self.remarks.leave_out_idle()
        self.columns = self.columns.without(
            {name: "constant or empty" for name, out in zip(self.columns.values, idle, strict=True) if out}
        )
        return rows.without(idle)

    @contextmanager
    def _errors(self, problem: str) -> Iterator[None]:
        """Turns errors into an InputError that names the file."""
        try:
            yield
        except InputError as error:
            raise type(error)(f"{self.path}: {error}") from error
        except UNREADABLE as error:
            raise InputError(f"{self.path}: {problem} ({one_line(error)})") from error

    def _open(self, raw: io.BufferedIOBase) -> io.BufferedIOBase:
        suffix = self.path.suffix.lower()
        return _OPENERS[suffix](raw) if suffix in _OPENERS else raw

    def _sniff(self, decimal: str) -> CsvFormat:
        with self.path.open("rb") as raw, self._open(raw) as file:
            start = file.read(SNIFFED_BYTES)
            # The line of names alone may be longer.
            while len(start) < _LONGEST_START and start.count(b"\n") < 3 and (more := file.read(SNIFFED_BYTES)):
                start += more
            return CsvFormat.sniff(start, decimal)

    def _with_late_cells(self, head: pd.DataFrame, options: TableOptions) -> pd.DataFrame:
        """Returns the first rows, and in columns that are empty there, later cells, which tell what the column is."""
        chosen = (*options.named.values, *options.usual.values, options.named.time, options.named.label)
        empty = [name for name in head if not (head[name].notna().any() or is_unnamed(str(name)) or name in chosen)]
        if len(head) < _HEAD_ROWS:
            return head
        head = head.copy()
        with suppress(*UNREADABLE):  # `chunks` reports these errors
            for frame in self._frames(CHUNK_ROWS, empty) if empty else ():
                for name in [name for name in empty if frame[name].notna().any()]:
                    head[name] = frame[name].dropna().head(_HEAD_ROWS).reset_index(drop=True).reindex(head.index)
                    empty.remove(name)
                if not empty:
                    break
        return head

    def _frames(self, rows: int, columns: list[str] | None = None) -> Iterator[pd.DataFrame]:
        with self.path.open("rb") as raw:
            if self._csv:
                with self._open(raw) as file:
                    for frame in self._csv.read(file, rows, columns, text=self._text):
                        self.bytes_read = raw.tell()
                        yield frame
                return
            for batch in pa.parquet.ParquetFile(raw).iter_batches(batch_size=rows, columns=columns):
                self.bytes_read = raw.tell()
                # Without pandas metadata, an index is an ordinary column.
                frame = pa.Table.from_batches([batch]).to_pandas(ignore_metadata=True)
                for name in [
                    field.name for field in batch.schema if _is_binary(field.type)
                ]:  # text, as some writers do
                    frame[name] = frame[name].map(_decode, na_action="ignore")
                index = [name for name in frame if str(name).startswith("__index_level_")]
                yield frame.drop(columns=[name for name in index if frame[name].dtype.kind != "M"])

    def _narrow_down(self, time_formats: list[str]) -> list[str]:
        """Returns the formats that fit all rows, reading on until only one is left."""
        with suppress(*UNREADABLE):  # `chunks` reports these errors
            for frame in self._frames(CHUNK_ROWS):
                stamps = self._parser.stamps(frame)
                fitting = [form for form in time_formats if parse_times(stamps, form).notna().all()]
                time_formats = fitting or time_formats
                if len(time_formats) == 1:
                    break
        return time_formats
