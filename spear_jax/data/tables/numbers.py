"""Parses numbers in text, and decides on their decimal sign."""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from spear_jax.errors import InputError

# Numbers as text, by decimal sign; the other sign may separate thousands.
_NUMBER = {
    ".": re.compile(
        r"[+-]?(\d+|\d{1,3}(,\d{3})+)(\.\d*)?([eE][+-]?\d+)?|[+-]?\.\d+([eE][+-]?\d+)?|[+-]?inf(inity)?|nan", re.I
    ),
    ",": re.compile(
        r"[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d*)?([eE][+-]?\d+)?|[+-]?,\d+([eE][+-]?\d+)?|[+-]?inf(inity)?|nan", re.I
    ),
}
# Numbers in which a sign may separate thousands or be the decimal sign; 0.125 can only be a fraction, and 1.250.000
# only be whole.
_AMBIGUOUS = {sign: re.compile(rf"[+-]?[1-9]\d{{0,2}}{re.escape(sign)}\d{{3}}") for sign in ".,"}
_GROUPED = {sign: re.compile(rf"[+-]?[1-9]\d{{0,2}}({re.escape(sign)}\d{{3}}){{2,}}") for sign in ".,"}
_WHOLE = re.compile(r"[+-]?\d+")
_OTHER = {".": ",", ",": "."}


def is_number(text: str) -> bool:
    """Returns whether a cell is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def parse_numbers(column: pd.Series, decimal: str) -> pd.Series:
    """Parses a column of numbers; a cell that is not a number becomes NaN."""
    if pd.api.types.is_numeric_dtype(column):
        return pd.to_numeric(column, errors="coerce")
    text = column.astype(str).str.strip()
    text = text.where(text.str.fullmatch(_NUMBER[decimal]))
    text = text.str.replace(_OTHER[decimal], "", regex=False)
    return pd.to_numeric(text.str.replace(",", ".", regex=False), errors="coerce")


def revealed_sign(columns: Iterable[Sequence[str]]) -> str:
    """Returns the decimal sign that a number in these columns tells; '' for none.

    Columns in which most cells are not numbers do not count.
    """
    for column in columns:
        for cell in number_cells(column):
            if sign := _sign_of(cell):
                return sign
    return ""


def has_ambiguous_point(columns: Iterable[Sequence[str]]) -> bool:
    """Returns whether a number such as 1.250 may be a fraction or thousands."""
    return any(_AMBIGUOUS["."].fullmatch(cell) for column in columns for cell in number_cells(column))


def number_cells(column: Sequence[str]) -> list[str]:
    """Returns the non-empty cells of a column if most of them are numbers, else none."""
    filled = [cell.strip() for cell in column if cell.strip()]
    numbers = sum(any(pattern.fullmatch(cell) for pattern in _NUMBER.values()) for cell in filled)
    return filled if 2 * numbers > len(filled) else []


def _sign_of(cell: str) -> str:
    """Returns the decimal sign that a number tells, if it can be read in one way only, else ''."""
    for sign, other in _OTHER.items():
        if other in cell and _GROUPED[other].fullmatch(cell):
            return sign
        if sign in cell and _NUMBER[sign].fullmatch(cell) and not _AMBIGUOUS[sign].fullmatch(cell):
            return sign
    return ""


class DecimalSign:
    """The decimal sign of a table's numbers, found in their text as it is read.

    Attributes:
      sign: the sign; '' as long as no number has one.
      revealed: whether the user or a number that can be read in one way only tells the sign.
      remark: a sentence if the sign is a guess, else ''.
    """

    def __init__(self, told: str, delimiter: str) -> None:
        """Starts without numbers.

        Args:
          told: the sign if it is known, or ''.
          delimiter: the delimiter of a CSV; '' for other tables.
        """
        self.sign, self.revealed, self.remark = told, bool(told), ""
        self._delimiter = delimiter
        self._whole: dict[str, str] = {}  # by column, a whole number without a sign; a long one if there is any
        self._ambiguous: dict[str, str] = {}  # by column, a number such as 1.250

    def add(self, columns: Mapping[str, pd.Series]) -> None:
        """Examines the next cells of columns of numbers.

        Raises:
          InputError: numbers may be thousands or fractions, and other numbers do not fit to either options.
        """
        for name, column in columns.items():
            if self.revealed:
                return
            if pd.api.types.is_numeric_dtype(column):
                if self._delimiter:  # other tables' numbers were never text
                    self._add_numbers(name, column)
            else:
                self._add_text(name, column)
        if not self.revealed and self._ambiguous:
            self._guess()

    def _add_numbers(self, name: str, column: pd.Series) -> None:
        """Examines numbers that were parsed with a decimal point; 1.250 has lost its last digit."""
        numbers = column.dropna().to_numpy()
        numbers = np.abs(numbers[np.isfinite(numbers.astype(np.float64))])
        fractions = numbers[numbers % 1 != 0] if numbers.dtype.kind == "f" else numbers[:0]
        if len(fractions):
            thousandths = 1000 * fractions
            certain = (np.abs(np.round(thousandths) - thousandths) > 1e-6 * thousandths) | (fractions < 1)
            if certain.any() or 2 * (np.round(thousandths) % 10 == 0).sum() > len(fractions):
                self._reveal(".", f"{fractions[np.argmax(certain)]:g}")
                return
            self._ambiguous.setdefault(name, f"{fractions[0]:.3f}")
        if len(numbers) > len(fractions):
            largest = str(int(numbers[numbers % 1 == 0].max()))
            self._whole[name] = max(self._whole.get(name, ""), largest, key=len)

    def _add_text(self, name: str, column: pd.Series) -> None:
        for cell in number_cells(column.dropna().astype(str).unique().tolist()):
            if sign := _sign_of(cell):
                self._reveal(sign, cell)
                return
            if any(pattern.fullmatch(cell) for pattern in _AMBIGUOUS.values()):
                self._ambiguous.setdefault(name, cell)
            elif _WHOLE.fullmatch(cell):
                self._whole[name] = max(self._whole.get(name, ""), cell.strip("+-"), key=len)

    def _guess(self) -> None:
        """Chooses a sign although every number with one can be read in two ways."""
        examples = {sign: cell for cell in self._ambiguous.values() for sign in ",." if sign in cell}
        if len(examples) > 1:
            raise InputError(_doubt(examples[","], f"{examples['.']} has the other sign"))
        ((between, example),) = examples.items()
        thousands = between == self._delimiter  # such cells are quoted
        for name in self._ambiguous.keys() & self._whole.keys():
            whole = self._whole[name]
            if len(whole) > 3:  # a whole number without a sign between its thousands
                self._reveal(between, whole)
                return
            if between == "." or thousands or len(whole) > 2:  # 20 and 20,125 are no 20 and 20 thousand
                raise InputError(_doubt(self._ambiguous[name], f"column {name!r} has {whole} too"))
        self.sign = "." if thousands else between
        fraction = {",": "a decimal comma", ".": "a decimal point"}[between]
        used, other = ("as thousands", f"with {fraction}") if thousands else (f"with {fraction}", "as thousands")
        self.remark = f"numbers like {example} are read {used}, not {other}"

    def _reveal(self, sign: str, cell: str) -> None:
        """Sets the sign that a number tells.

        Raises:
          InputError: earlier numbers were read with the other one.
        """
        if self.sign and self.sign != sign and self._ambiguous:
            example = next(iter(self._ambiguous.values()))
            raise InputError(_doubt(example, f"was read as the first, but {cell} has the decimal sign {sign!r}"))
        self.sign, self.revealed, self.remark = sign, True, ""


def _doubt(cell: str, why: str) -> str:
    """Returns the message about a number that can be read in two ways."""
    digits = cell.replace(",", ".")
    fraction = "," if "," in cell else "."
    return (
        f"{cell} is {digits} or {digits.replace('.', '')} ({why}); data.decimal_sign={fraction} means the first,"
        f" data.decimal_sign={_OTHER[fraction]} the second"
    )
