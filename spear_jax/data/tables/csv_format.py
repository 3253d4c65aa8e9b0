"""Detects the format of a CSV, and reads its rows as frames."""

import contextlib
import csv
import dataclasses
import io
import warnings
from collections.abc import Iterator
from typing import Any

import pandas as pd

from spear_jax.data.tables.cells import find_decimal_sign, find_delimiter, is_number, split_line, starts_with_date
from spear_jax.data.tables.columns import check_unique
from spear_jax.errors import InputError, one_line

SNIFFED_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True)
class CsvFormat:
    """The format of a CSV.

    Attributes:
      delimiter: the sign between two cells.
      decimal: the decimal sign; '' if no number seen so far reveals it.
      remark: a remark if the decimal sign is a guess, else ''.
    """

    delimiter: str
    decimal: str
    remark: str

    @classmethod
    def sniff(cls, start: bytes) -> "CsvFormat":
        """Detects the format from the first bytes of a CSV, at most `SNIFFED_BYTES`.

        Raises:
          InputError: it is not a CSV in UTF-8 with a header line.
        """
        lines = [line for line in _decode(start).splitlines() if line.strip()]
        if not lines:
            raise InputError("is empty; expected a CSV with a header line")
        delimiter = find_delimiter(lines[0])
        names = [name.strip() for name in split_line(lines[0], delimiter)]
        if lines[0].lower().startswith("sep="):
            raise InputError(f"row 1 is {lines[0]!r}, an Excel directive; expected a header line")
        if all(is_number(name) or starts_with_date(name) for name in names):
            raise InputError(f"row 1 is {lines[0][:60]!r}; expected a header line")
        check_unique(names)
        rows = lines[1:-1] if len(start) == SNIFFED_BYTES else lines[1:]  # the last line, or a number in it, may be cut
        decimal, remark = find_decimal_sign(list(csv.reader(rows, delimiter=delimiter)), delimiter)
        if delimiter == ",":  # decimal commas would be quoted, and would have been found
            decimal = decimal or "."
        return cls(delimiter, decimal, remark)

    def read(self, file: io.BufferedIOBase, rows: int) -> Iterator[pd.DataFrame]:
        """Reads frames of `rows` rows, as text if the decimal sign is not known.

        Raises:
          ValueError: a row has more cells than there are column names.
        """
        # Cells that pandas leaves as text are parsed later; if the decimal sign is also the delimiter, these are all
        # cells.
        decimal = self.decimal if self.decimal != self.delimiter else "."
        numbers: dict[str, Any] = {"decimal": decimal} if self.decimal else {"dtype": str}
        with refuse_extra_cells():
            frames = pd.read_csv(
                file,
                sep=self.delimiter,
                skipinitialspace=True,
                index_col=False,
                chunksize=rows,
                encoding="utf-8-sig",
                low_memory=False,
                **numbers,
            )
        while True:
            with refuse_extra_cells():
                frame = next(frames, None)
            if frame is None:
                return
            yield frame.rename(columns=str.strip)


@contextlib.contextmanager
def refuse_extra_cells() -> Iterator[None]:
    """Makes `pandas.read_csv(..., index_col=False)` raise if a row has more cells than there are column names.

    By default, pandas drops such cells with a warning.

    Raises:
      ValueError: a row has extra cells that are not empty.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    except pd.errors.ParserWarning:
        raise ValueError("rows have more fields than there are column names") from None


def _decode(start: bytes) -> str:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError("is text in UTF-16; save it as UTF-8")
    if b"\0" in start:
        raise InputError("is neither a CSV nor named .parquet (it contains null bytes)")
    try:
        # The last character may be cut in two.
        return start.decode("utf-8-sig", errors="strict" if len(start) < SNIFFED_BYTES else "ignore")
    except UnicodeDecodeError as error:
        raise InputError(f"is not text in UTF-8 ({one_line(error)}); save it as UTF-8") from error
