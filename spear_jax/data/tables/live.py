"""Rows of a CSV as they come."""

import io
import itertools
import select
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from etils import epath

from spear_jax.data.tables.cells import no_field_too_many, parse_times
from spear_jax.data.tables.file import CHUNK_ROWS, SNIFFED_BYTES, UNREADABLE, File, shown
from spear_jax.data.tables.rows import Columns, Remarks, Rows
from spear_jax.errors import InputError, one_line

_WAKES = 1.0  # seconds


class LiveFile(File):
    """A CSV that is still being written: its rows are given out as they come, those that came together at once.

    A row is a line. Delimiter and columns are recognized by the first row, and times too, unless it leaves open which
    number is the month: the first later row that tells decides.
    """

    def __init__(
        self,
        raw: io.RawIOBase,
        say: Callable[[str], None] = lambda remark: None,
        *,
        time: str = "",
        values: Sequence[str] = (),
        label: str = "",
        labelled: bool = True,
        usual: Columns | None = None,
    ) -> None:
        """Waits for the line of column names and the first row.

        Args:
          raw: where the lines come from; has a file descriptor.
          say: gets what is odd about the rows, as soon as it is seen.
          time: see `File`.
          values: see `File`.
          label: see `File`.
          labelled: see `File`.
          usual: see `File`.

        Raises:
          InputError: see `File`.
        """
        self._raw, self._names, self._first = raw, _line(raw), _line(raw)
        self._ended, self._say = False, say
        self.fault: InputError | None = None
        super().__init__(
            epath.Path("standard input"),
            "input",
            time=time,
            values=values,
            label=label,
            labelled=labelled,
            usual=usual,
        )

    def _size(self) -> int:
        return 0

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Rows]:
        """The rows as they come, up to the first that cannot be read: `fault` then says why.

        What is odd is said once when it is first seen, and at the end where there was more of it.
        """
        if len(self._time_formats) > 1:
            used, other = self._time_formats
            self._say(f"times are read as {used}; the first row could be {other} as well (ISO 8601 is never mistaken)")
        self.remarks = Remarks(self.columns, [self._doubt])
        said: list[str] = []
        for chunk in self._readable():
            self.remarks.add(chunk)
            for remark in self.remarks.news():
                self._say(f"up to row {chunk.first + len(chunk.values)}: {remark}")
                said.append(remark)
            yield chunk
        for remark in self.remarks:
            if remark not in said:
                self._say(remark)

    def _readable(self) -> Iterator[Rows]:
        first = 0
        for lines in self._come():
            try:
                given = [self._rows(self._frame(lines), first)]
            except UNREADABLE:
                given = self._one_by_one(lines, first)
            yield from given
            if self.fault:
                return
            first += sum(len(one.values) for one in given)

    def _one_by_one(self, lines: bytes, first: int) -> list[Rows]:
        """The rows before the one that cannot be read."""
        given: list[Rows] = []
        for line in filter(bytes.strip, lines.splitlines(keepends=True)):
            row = first + len(given)
            try:
                given.append(self._rows(self._frame(line), row))
            except InputError as fault:
                self.fault = fault
                break
            except UNREADABLE as fault:
                self.fault = InputError(f"{self.path}: row {row + 1}: cannot be read as CSV ({one_line(fault)})")
                break
        return given

    def _settled(self, formats: list[str]) -> list[str]:
        return formats  # rows that come later cannot be looked at

    def _times(self, column: pd.Series, first: int) -> np.ndarray:
        if len(self._time_formats) > 1:
            used, other = self._time_formats
            fits, fits_other = (parse_times(column, form).notna() for form in (used, other))
            if fits_other.all() and not fits.all():
                place = int(fits.to_numpy().argmin())
                self._say(
                    f"row {first + place + 1}: {shown(column.iloc[place])} is no {used}; from row {first + 1} on times"
                    f" are read as {other}: before it, day and month were taken for one another"
                )
                self._time_formats = [other]
            elif fits.all() and not fits_other.all():
                self._time_formats = [used]
        return super()._times(column, first)

    def end(self) -> None:
        """Ends the file behind the last whole line that has come; a signal may call it while a row is waited for."""
        self._ended = True

    def _beginning(self) -> bytes:
        return self._names + self._first

    def _frames(self, rows: int) -> Iterator[pd.DataFrame]:
        if self._first.strip():
            yield self._frame(self._first)

    def _frame(self, lines: bytes) -> pd.DataFrame:
        source = io.BytesIO(self._names + lines)
        with no_field_too_many():
            frame = pd.read_csv(source, **self._format, encoding="utf-8-sig", low_memory=False)
        return frame.rename(columns=str.strip)

    def _come(self) -> Iterator[bytes]:
        """Whole lines, those that came together at once."""
        begun = b""
        for came in itertools.chain([self._first], self._pieces()):
            # What follows the last line break is a row of which more is to come.
            whole, newline, begun = (begun + came).rpartition(b"\n")
            if whole.strip():
                yield whole + newline
        if begun.strip() and not self._ended:
            yield begun

    def _pieces(self) -> Iterator[bytes]:
        while not self._ended:
            # Wakes by itself too: a signal's handler runs here, though another thread may have been interrupted.
            if select.select([self._raw], [], [], _WAKES)[0]:
                if not (came := self._raw.read(SNIFFED_BYTES)):
                    return
                yield came
        if select.select([self._raw], [], [], 0)[0]:
            yield self._raw.read(SNIFFED_BYTES)


def _line(raw: io.RawIOBase) -> bytes:
    """The next line that is not blank; nothing at the end."""
    while (line := raw.readline()) and not line.strip():
        pass
    return line
