"""Rows of a CSV as they come."""

import io
import os
import select
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO

import numpy as np
import pandas as pd
from etils import epath

from spear_jax.data.cells import parse_times
from spear_jax.data.files import CHUNK_ROWS, SNIFFED_BYTES, File, shown
from spear_jax.data.rows import Rows


class LiveFile(File):
    """A CSV that is still being written: its rows are given out as they come, those that came together at once.

    A row is a line. Delimiter and columns are recognized by the first row, and times too, unless it leaves open which
    number is the month: the first later row that tells decides.
    """

    def __init__(
        self,
        raw: IO[bytes],
        say: Callable[[str], None] = lambda remark: None,
        *,
        time: str = "",
        values: Sequence[str] = (),
        label: str = "",
        labelled: bool = True,
    ) -> None:
        """Waits for the line of column names and the first row.

        Args:
          raw: where the lines come from.
          say: gets what is odd about the rows, as soon as it is seen.
          time: see `File`.
          values: see `File`.
          label: see `File`.
          labelled: see `File`.

        Raises:
          InputError: see `File`.
        """
        self._raw, self._names, self._first = raw, _line(raw), _line(raw)
        self._ended, self._say = False, say
        super().__init__(
            epath.Path("standard input"), "input", time=time, values=values, label=label, labelled=labelled
        )

    def _size(self) -> int:
        return 0

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Rows]:
        """See `File`; what is odd is said once when it is first seen, and at the end where there was more of it."""
        if len(self._time_formats) > 1:
            used, other = self._time_formats
            self._say(f"times are read as {used}; the first row could be {other} as well (ISO 8601 is never mistaken)")
        said: list[str] = []
        for chunk in super().chunks(rows):
            for remark in self.remarks.news():
                self._say(f"up to row {chunk.first + len(chunk.values)}: {remark}")
                said.append(remark)
            yield chunk
        for remark in self.remarks:
            if remark not in said:
                self._say(remark)

    def _settled(self, formats: list[str]) -> list[str]:
        return formats  # rows that come later cannot be looked at

    def _open(self) -> str:
        return ""  # said above, before the first row is scored

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
        source = self._raw.fileno()
        left = os.read(source, SNIFFED_BYTES) if select.select([source], [], [], 0)[0] else b""
        # A read that is under way goes on, and finds what had come, and then the end.
        with tempfile.TemporaryFile(buffering=0) as rest:
            rest.write(left)
            rest.seek(0)
            os.dup2(rest.fileno(), source)

    def _beginning(self) -> bytes:
        return self._names + self._first

    def _frames(self, rows: int) -> Iterator[pd.DataFrame]:
        whole, begun = self._first, b""
        while True:
            if whole.strip():
                lines = io.BytesIO(self._names + whole)
                frame = pd.read_csv(lines, **self._format, encoding="utf-8-sig", low_memory=False)
                yield self._checked(frame)
            came = self._raw.read1(SNIFFED_BYTES)  # type: ignore[attr-defined]  # waits for something, not for all
            if not came and (self._ended or not begun):
                return
            # What follows the last line break is a row of which more is to come.
            whole, newline, begun = (begun + came).rpartition(b"\n") if came else (begun, b"", b"")
            whole += newline


def _line(raw: IO[bytes]) -> bytes:
    """The next line that is not blank; nothing at the end."""
    while (line := raw.readline()) and not line.strip():
        pass
    return line
