"""Reads the rows of a CSV as they arrive."""

import io
import itertools
import select
from collections.abc import Callable, Iterator

import pandas as pd
from etils import epath

from spear_jax.data.tables.csv_format import SNIFFED_BYTES, CsvFormat, is_measured, split_line
from spear_jax.data.tables.file import UNREADABLE
from spear_jax.data.tables.remarks import Remarks
from spear_jax.data.tables.rows import RowParser, Rows, first_cell
from spear_jax.data.tables.table_options import TableOptions
from spear_jax.data.tables.times import parse_times
from spear_jax.errors import InputError, one_line

_WAKE_SECONDS = 1.0


class LiveTable:
    """A CSV that is still being written; its rows are parsed as they arrive, together if they arrive together.

    A row is a line. Delimiter, columns and time format are detected from the first row, which a row of units may
    precede. If days and months cannot be told apart there, the first row in which they can decides.

    Attributes:
      path: 'standard input', for messages.
      name: name of the table, used in the names of its series; '' for a long table.
      columns: the roles of the columns.
      error: the error that ended `chunks` before the end of the input, if any.
    """

    def __init__(self, raw: io.RawIOBase, report: Callable[[str], None], options: TableOptions) -> None:
        """Waits for the header line and the first row of an input with a file descriptor; lines of comments precede it.

        `report` is called with each remark as soon as it comes up.

        Raises:
          InputError: it is not a CSV, or lacks a column.
        """
        self.path, self.name = epath.Path("standard input"), "" if options.named.series else "input"
        self._text = options.named.series
        self.error: InputError | None = None
        self._raw, self._report, self._ended = raw, report, False
        self._header, self._first_row = _read_line(raw), _read_line(raw)
        try:
            self._csv = CsvFormat.sniff(self._header + self._first_row, options.decimal)
            if not self._first_row:
                raise InputError("has a header but no rows")
            if self._may_be_units(self._first_row):  # the next row tells
                units, self._first_row = self._first_row, _read_line(raw)
                self._csv = CsvFormat.sniff(self._header + units + self._first_row, options.decimal)
                if self._csv.has_units:
                    self._header += units
                else:
                    self._first_row = units + self._first_row
            head = self._frame(self._first_row)
            self._parser = _LiveRowParser(head, self._csv, options)
            self._parser.report = report
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error
        except UNREADABLE as error:
            raise InputError(f"{self.path}: cannot be read as CSV ({one_line(error)})") from error
        self.columns = self._parser.columns

    def chunks(self) -> Iterator[Rows]:
        """Yields rows as they arrive, up to the first that cannot be parsed; `error` then names it.

        A remark is reported when it first comes up, and at the end if its numbers have changed.
        """
        if len(self._parser.time_formats) > 1:
            used, other = self._parser.time_formats
            self._report(
                f"times are read as {used}; the first row could be {other} as well (ISO 8601 is never mistaken)"
            )
        remarks = Remarks(self.columns)
        reported: list[str] = []
        for chunk in self._parsed():
            remarks.add(chunk, self._parser.remarks)
            for remark in remarks.news():
                self._report(f"up to row {chunk.first + len(chunk)}: {remark}")
                reported.append(remark)
            yield chunk
        for remark in remarks:
            if remark not in reported:
                self._report(remark)

    def end(self) -> None:
        """Ends the input after the last complete line; signal handlers may call this while `chunks` waits for a row."""
        self._ended = True

    def _parsed(self) -> Iterator[Rows]:
        first = 0
        for lines in self._lines():
            try:
                chunks = [self._parser.parse(self._frame(lines), first)]
            except UNREADABLE:
                chunks = self._parse_line_by_line(lines, first)
            yield from chunks
            if self.error:
                return
            first += sum(map(len, chunks))

    def _parse_line_by_line(self, lines: bytes, first: int) -> list[Rows]:
        """Parses the lines up to the first that cannot be parsed."""
        chunks: list[Rows] = []
        for line in filter(bytes.strip, lines.splitlines(keepends=True)):
            row = first + len(chunks)
            try:
                chunks.append(self._parser.parse(self._frame(line), row))
            except InputError as error:
                self.error = InputError(f"{self.path}: {error}")
                break
            except UNREADABLE as error:
                self.error = InputError(f"{self.path}: row {row + 1}: cannot be read as CSV ({one_line(error)})")
                break
        return chunks

    def _may_be_units(self, line: bytes) -> bool:
        cells = [cell.strip() for cell in split_line(line.decode("utf-8", "replace"), self._csv.delimiter)]
        return any(cells) and not any(map(is_measured, cells))

    def _frame(self, lines: bytes) -> pd.DataFrame:
        return next(self._csv.read(io.BytesIO(self._header + lines), len(lines), text=self._text))

    def _lines(self) -> Iterator[bytes]:
        """Yields complete lines, together if they arrived together."""
        begun = b""
        for piece in itertools.chain([self._first_row], self._pieces()):
            complete, newline, begun = (begun + piece).rpartition(b"\n")
            if complete.strip():
                yield complete + newline
        if begun.strip() and not self._ended:
            yield begun

    def _pieces(self) -> Iterator[bytes]:
        """Yields bytes as they arrive."""
        while not self._ended:
            # Wakes up without input too, since a signal may interrupt another thread while its handler runs in this
            # one.
            if select.select([self._raw], [], [], _WAKE_SECONDS)[0]:
                if not (piece := self._raw.read(SNIFFED_BYTES)):
                    return
                yield piece
        if select.select([self._raw], [], [], 0)[0]:
            yield self._raw.read(SNIFFED_BYTES)


class _LiveRowParser(RowParser):
    """A parser whose time format is decided by the first row that tells days from months."""

    report: Callable[[str], None]

    def settle_time_format(self, stamps: pd.Series, first: int) -> None:
        if len(self.time_formats) < 2:
            return
        used, other = self.time_formats
        fits, fits_other = (parse_times(stamps, time_format).notna() for time_format in (used, other))
        if fits_other.all() and not fits.all():
            row, cell = first_cell(stamps, ~fits, first)
            self.report(
                f"row {row}: {cell} does not fit {used}; from row {first + 1} on times are read as {other}: day and"
                " month were confused before it"
            )
            self.time_formats = [other]
        elif fits.all() and not fits_other.all():
            self.time_formats = [used]


def _read_line(raw: io.RawIOBase) -> bytes:
    """Reads the next line that is neither blank nor a comment; returns nothing at the end of the input."""
    while (line := raw.readline()) and (not line.strip() or line.lstrip().startswith(b"#")):
        pass
    return line
