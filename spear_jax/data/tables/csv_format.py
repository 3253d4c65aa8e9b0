"""Detects the format of a CSV, and reads its rows as frames."""

import contextlib
import csv
import dataclasses
import io
import itertools
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from spear_jax.data.tables.columns import check_unique
from spear_jax.data.tables.names import is_unnamed
from spear_jax.data.tables.numbers import has_ambiguous_point, is_number, number_cells, revealed_sign
from spear_jax.data.tables.quotes import OneLineFields
from spear_jax.data.tables.times import starts_with_date
from spear_jax.data.tables.units import has_unit
from spear_jax.errors import InputError, listed, one_line

SNIFFED_BYTES = 1 << 16
_SNIFFED_LINES = 100  # that decide on delimiter and header
_DELIMITERS = ",;\t|"
_COMMENT = "#"
_MEASURED = re.compile(r"[-+\d\s.,:;/TZ]*")  # no name, but numbers and times, with any decimal sign
_MISSING = frozenset(("nan", "-nan", "na", "n/a", "#n/a", "<na>", "null", "none", "nil", "missing", "inf", "-inf"))
_UNIT = re.compile(r"\S{1,15}|[\[(][^\])]{1,20}[\])]")
_QUOTES = "a cell that contains the delimiter must be in quotes, and lines above the header deleted"
_MANY_TIMES = 10  # a table may have columns for several days
_SHOWN = 60  # characters of a line in a message


@dataclasses.dataclass(frozen=True)
class CsvFormat:
    """The format of a CSV.

    Attributes:
      delimiter: the sign between two cells.
      decimal: the decimal sign that the first rows tell; '' if none does.
      as_text: whether cells are read as text, since the first rows leave open what the signs in numbers mean.
      skipped: the lines that are left out, counted from 0: before the header, comments, titles, and the directive sep=
        of Excel; below it, a row of units.
      has_units: whether there is such a row.
      names: the names in the header, as they stand there.
      in_comment: whether the header is a line of comments.
      remark: a sentence if such lines are left out, else ''.
    """

    delimiter: str
    decimal: str
    as_text: bool
    skipped: tuple[int, ...] = ()
    has_units: bool = False
    names: tuple[str, ...] = ()
    in_comment: bool = False
    remark: str = ""

    @classmethod
    def sniff(cls, start: bytes, decimal: str = "") -> "CsvFormat":
        """Detects the format from the first bytes of a CSV.

        Args:
          start: the first bytes; a multiple of `SNIFFED_BYTES`, or the whole file.
          decimal: the decimal sign if the user named it, else ''.

        Raises:
          InputError: it is not a CSV in UTF-8 with a header line.
        """
        numbered = [(number, line) for number, line in enumerate(io.StringIO(_decode(start))) if line.strip()]
        if _may_be_cut(start) and len(numbered) > 1:  # the last line, or a number in it, may be cut
            numbered.pop()
        if not numbered:
            raise InputError("is empty; expected a CSV with a header line")
        delimiter = ""
        if numbered[0][1].lower().startswith("sep=") and len(numbered[0][1].strip()) <= 5:
            delimiter = numbered.pop(0)[1][4:5].strip("\r\n") or "\t"
        before = len(numbered)
        comments = []
        while numbered[0][1].lstrip().startswith(_COMMENT) and len(numbered) > 1:
            comments.append(numbered.pop(0))
        above = [_without_sign(line) for _, line in comments[-1:]]
        lines = [line for _, line in numbered]
        delimiter = delimiter or find_delimiter([*above, *lines])
        rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
        in_comment = bool(above) and _names_columns(split_line(above[0], delimiter), rows[0])
        if in_comment:
            numbered.insert(0, comments[-1])
            lines.insert(0, above[0])
            rows.insert(0, split_line(comments[-1][1], delimiter))
        header = _find_header(rows[:_SNIFFED_LINES]) if len(rows) == len(lines) and not in_comment else 0
        names = [_without_sign(name) if in_comment else name.strip() for name in rows[header]]
        columns = list(itertools.zip_longest(*rows[header + 1 :], fillvalue=""))
        _check_names(names, lines[header], columns)
        has_units = len(rows) == len(lines) and are_units(columns)
        columns = [column[1:] for column in columns] if has_units else columns
        decimal = decimal or revealed_sign(columns)
        as_text = not decimal and (delimiter != "," or has_ambiguous_point(columns))
        as_text |= decimal == delimiter  # numbers with a decimal comma are quoted, others would be read with a point
        titles = before - len(numbered) + header
        remarks = [f"lines before the header that are left out: {titles}"] if titles else []
        remarks += ["the header is a line of comments"] if in_comment else []
        skipped = list(range(numbered[header][0]))
        if has_units:
            units = [cell.strip() for cell in rows[header + 1] if cell.strip()]
            remarks.append(f"the row of units below the header is left out ({listed(units)})")
            skipped.append(numbered[header + 1][0])
        shown = "; ".join(remarks)
        return cls(delimiter, decimal, as_text, tuple(skipped), has_units, tuple(rows[header]), in_comment, shown)

    def read(
        self, file: io.BufferedIOBase, rows: int, columns: Sequence[str] | None = None, *, text: str = ""
    ) -> Iterator[pd.DataFrame]:
        """Reads frames of `rows` rows, as text if the decimal sign is not known.

        Args:
          file: the file, open at its beginning.
          rows: rows in a frame; the last one may have fewer.
          columns: names of the columns to read; None for all.
          text: the name of a column that is always read as text, such as 01, or ''.

        Raises:
          ValueError: a row has more cells than there are column names, or a field does not end on its line.
        """
        # Cells that pandas leaves as text are parsed later.
        texts = {name: str for name in self.names if self._clean(name) == text}
        options: dict[str, Any] = {"dtype": str} if self.as_text else {"decimal": self.decimal or ".", "dtype": texts}
        if columns is not None:
            options["usecols"] = lambda name: self._clean(str(name)) in columns
        with refuse_extra_cells():
            frames = pd.read_csv(
                io.BufferedReader(OneLineFields(file, self.delimiter), SNIFFED_BYTES),
                sep=self.delimiter,
                skipinitialspace=True,
                skiprows=list(self.skipped),
                index_col=False,
                chunksize=rows,
                encoding="utf-8-sig",
                low_memory=False,
                **options,
            )
        while True:
            with refuse_extra_cells():
                frame = next(frames, None)
            if frame is None:
                return
            yield frame.rename(columns=self._clean)

    def _clean(self, name: str) -> str:
        return _without_sign(name) if self.in_comment else name.strip()


def split_line(line: str, delimiter: str) -> list[str]:
    """Splits a line of a CSV into its cells."""
    if delimiter not in line and '"' not in line:  # it may be longer than a field that the reader accepts
        return [line.lstrip(" ").rstrip("\r\n")] if line.strip("\r\n") else []
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])


def find_delimiter(lines: Sequence[str]) -> str:
    """Returns the delimiter of a CSV, given its first lines, header first; a comma if there is one column.

    It divides most lines into the same number of cells, and into more than any other such delimiter, the earliest line
    of which has names: signs inside the header alone, as in the legend of a figure, do not count.
    """
    cells = {sign: (0, 0) for sign in _DELIMITERS}  # the number of cells, and the row of the header, from 0 downwards
    for sign in _DELIMITERS:
        rows = [split_line(line, sign) for line in lines[:_SNIFFED_LINES]]
        usual, agreeing = Counter(map(len, rows)).most_common(1)[0]
        header = next(number for number, row in enumerate(rows) if len(row) >= usual)
        if 2 * agreeing > len(rows) and not all(_MEASURED.fullmatch(cell) or has_unit(cell) for cell in rows[header]):
            cells[sign] = (usual, -header)
    if max(cells.values())[0] < 2:
        cells = {sign: (len(split_line(lines[0], sign)), 0) for sign in _DELIMITERS}
    return max(_DELIMITERS, key=lambda sign: cells[sign])


def _find_header(rows: Sequence[Sequence[str]]) -> int:
    """Returns the number of the header among the first rows: the first that is as long as most rows are.

    Earlier ones are titles, whose numbers are no names. A row that leaves most of its names out is one of groups, above
    the header proper.
    """
    if len(rows) < 3:
        return 0
    cells = Counter(map(len, rows)).most_common(1)[0][0]
    if cells < 2:
        return 0
    header = next((number for number, row in enumerate(rows) if len(row) >= cells), 0)
    if header and any(map(is_number, rows[header])):  # a longer title, or rows without names
        return _find_names(rows, cells)
    groups, below = rows[header], rows[header + 1] if header + 1 < len(rows) else []
    named = [cell for cell in groups if cell.strip()]
    if len(below) == len(groups) and len(set(named)) < len(groups) - 1 and _are_names(below):
        return header + 1
    return header


def _find_names(rows: Sequence[Sequence[str]], cells: int) -> int:
    """Returns the number of the last row without numbers or times if it has names, and no row of the table is above."""
    measured = [any(map(is_measured, row)) for row in rows]
    last = max((number for number, numbers in enumerate(measured) if not numbers), default=0)
    within = last > 0 and measured[last - 1] and len(rows[last - 1]) >= cells
    return 0 if within or len(rows[last]) < cells or not _are_names(rows[last]) else last


def _are_names(row: Sequence[str]) -> bool:
    filled = [cell.strip() for cell in row]
    return len(set(filled)) == len(filled) and not any(is_number(cell) or starts_with_date(cell) for cell in filled)


def are_units(columns: Sequence[Sequence[str]]) -> bool:
    """Returns whether the first cells of columns are units: words where numbers or times follow, and nothing else."""
    units = 0
    for first, *below in ([cell.strip() for cell in column] for column in columns):
        filled = [cell for cell in below if cell]
        if not first or first == "-":
            continue
        measured = bool(filled) and all(is_measured(cell) or cell.lower() in _MISSING for cell in filled)
        if not measured or is_measured(first) or first.lower() in _MISSING or not _UNIT.fullmatch(first):
            return False
        units += 1
    return units > 0


def is_measured(cell: str) -> bool:
    """Returns whether a cell is a number, with any decimal sign, or begins with a date."""
    return bool(number_cells([cell])) or starts_with_date(cell)


def _without_sign(comment: str) -> str:
    return comment.strip().lstrip(_COMMENT).strip()


def _names_columns(names: Sequence[str], row: Sequence[str]) -> bool:
    """Returns whether cells of a comment are the names of a table's columns, whose first row follows."""
    return len(names) == len(row) > 1 and _are_names(names) and any(map(is_measured, row))


def _check_names(names: Sequence[str], line: str, columns: Sequence[Sequence[str]]) -> None:
    """Checks that a row has names, given the columns below it."""
    measured = [is_measured(name) for name in names]
    pairs = list(zip(names, columns, strict=False))
    same_words = all(name in map(str.strip, column) for name, column in pairs if name and not is_measured(name))
    if all(all(map(is_number, name.split())) or starts_with_date(name) for name in names) or (
        any(measured) and columns and same_words
    ):
        raise InputError(_without_header(line))
    if any(starts_with_date(name) and column and starts_with_date(column[0]) for name, column in pairs):
        raise InputError(_without_header(line))
    times = sum(map(starts_with_date, names))
    if times > max(_MANY_TIMES, max(map(len, columns), default=0)):
        raise InputError(f"has a column for each of {times} times; write a row for each time, and a column per series")
    if len(names) == 1 and columns and _has_spaces(names[0], columns[0]):
        raise InputError("has spaces between its cells; allowed: a comma, a semicolon, a tab, or |")
    check_unique([name for name in names if not is_unnamed(name)])


def _has_spaces(name: str, column: Sequence[str]) -> bool:
    """Returns whether cells of numbers are several ones with spaces between them, as many as there are names."""
    several = [sum(map(is_number, cell.split())) for cell in column if cell.strip()]
    return len(name.split()) > 1 and bool(several) and min(several) > 1


def _without_header(line: str) -> str:
    """Returns the message about a first row of numbers."""
    shown = line.strip()
    if len(shown.split()) > 3 and all(map(is_number, shown.split())):
        return (
            "has numbers between spaces and no header line; write one number per line, below a line with the name of"
            " the column (the archive of UCR: the file's name ends with the last training row and the anomaly's rows)"
        )
    return f"row 1 is {shown[:_SHOWN]!r}; expected a header line"


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
        raise ValueError(f"rows have more fields than there are column names; {_QUOTES}") from None
    except pd.errors.ParserError as error:
        if not (counts := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))):
            raise
        usual, line, fields = counts.groups()
        raise ValueError(f"line {line} has {fields} fields, earlier ones {usual}; {_QUOTES}") from None


def _may_be_cut(start: bytes) -> bool:
    return len(start) > 0 and len(start) % SNIFFED_BYTES == 0


def _decode(start: bytes) -> str:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError("is text in UTF-16; save it as UTF-8")
    if b"\0" in start:
        raise InputError("is neither a CSV nor named .parquet (it contains null bytes)")
    try:
        # The last character may be cut in two.
        return start.decode("utf-8-sig", errors="ignore" if _may_be_cut(start) else "strict")
    except UnicodeDecodeError as error:
        raise InputError(f"is not text in UTF-8 ({one_line(error)}); save it as UTF-8") from error
