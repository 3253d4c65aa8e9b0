"""Takes units off numbers in text, such as '12.3 %' and '5 ms'."""

import re

import pandas as pd

from spear_jax.data.tables.numbers import number_cells
from spear_jax.errors import InputError

_UNIT = r"(?:[^\W\d_]|[%‰°µ$€Ω]|/(?=[^\W\d_]))[^\d\s,;]{0,11}[23]?"  # such as %, m/s2, /min
_MEASURED = re.compile(rf"([+-]?[\d.,]*\d(?:[eE][+-]?\d+)?)\s*({_UNIT})")


def has_unit(cell: str) -> bool:
    """Returns whether a cell is a number with a unit."""
    return _MEASURED.fullmatch(cell.strip()) is not None


def find_unit(column: pd.Series) -> str:
    """Returns the unit that follows the number in all cells of a column of text; '' if there is none, or several."""
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return ""
    cells = column.dropna().astype(str).str.strip()
    unit = ""
    for cell in cells[cells != ""]:
        match = _MEASURED.fullmatch(cell)
        if not match or not number_cells([match[1]]) or (unit and match[2] != unit):
            return ""
        unit = match[2]
    return unit


def take_off_unit(column: pd.Series, unit: str, first: int) -> pd.Series:
    """Returns the numbers of a column as text, without their unit.

    Args:
      column: cells with a unit; missing ones are NaN or empty.
      unit: the unit of the first rows.
      first: the number of the first row, from 0.

    Raises:
      InputError: a cell has another unit, or none.
    """
    texts = column.astype(str).str.strip()
    wrong = column.notna() & (texts != "") & (texts.str.lower() != "nan") & ~texts.str.endswith(unit)
    if wrong.any():
        place = int(wrong.to_numpy().argmax())
        raise InputError(
            f"row {first + place + 1}, column {column.name!r}: {texts.iloc[place]!r} is not in {unit!r}, as the first"
            " rows are; write all in one unit"
        )
    return texts.str.removesuffix(unit).str.strip().where(column.notna())
