"""Parses the cells of a table: numbers, dates and times."""

import csv
import itertools
import re
import warnings
from collections.abc import Sequence

import pandas as pd
from pandas.tseries.api import guess_datetime_format

_DELIMITERS = ",;\t|"

# Numbers as text, by decimal sign; the other sign may separate thousands.
_NUMBER = {
    ".": re.compile(
        r"[+-]?(\d+|\d{1,3}(,\d{3})+)(\.\d*)?([eE][+-]?\d+)?|[+-]?\.\d+([eE][+-]?\d+)?|[+-]?inf(inity)?|nan", re.I
    ),
    ",": re.compile(
        r"[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d*)?([eE][+-]?\d+)?|[+-]?,\d+([eE][+-]?\d+)?|[+-]?inf(inity)?|nan", re.I
    ),
}
# Numbers in which a sign may separate thousands or be the decimal sign.
_AMBIGUOUS = {sign: re.compile(rf"[+-]?\d{{1,3}}({re.escape(sign)}\d{{3}})+") for sign in ".,"}
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")
_TIME_OF_DAY = re.compile(
    r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d([.]\d+)?)?( ?[AP]M)?|([01]?\d|2[0-3])[.][0-5]\d[.][0-5]\d", re.I
)
_TIME_WITH_DOTS = re.compile(r"^(\d{1,2})[.](\d{2})[.](\d{2})$")
_AM_OR_PM = re.compile(r" *([AP]M)$", re.I)

# Upper limits of times since 1970 in each unit.
_UNITS = (("s", 1e11), ("ms", 1e14), ("us", 1e17), ("ns", float("inf")))

# Formats that pandas does not guess: two-digit years, and 12-hour clocks.
_MORE_FORMATS = tuple(
    f"{day}{hour}"
    for day in ("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d/%m/%Y", "%m/%d/%Y", "%Y-%m-%d", "%Y/%m/%d")
    for hour in ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
)


def split_line(line: str, delimiter: str) -> list[str]:
    """Splits a line of a CSV into its cells."""
    return next(csv.reader([line], delimiter=delimiter), [])


def find_delimiter(header: str) -> str:
    """Returns the delimiter of a CSV, given its header line; a comma if there is one column."""
    return max(_DELIMITERS, key=lambda sign: len(split_line(header, sign)))


def is_number(text: str) -> bool:
    """Returns whether a cell is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def find_decimal_sign(rows: Sequence[Sequence[str]], delimiter: str) -> tuple[str, str]:
    """Finds the decimal sign of the numbers in a CSV, ignoring columns in which most cells are not numbers.

    Returns:
      The sign, or '' if no number reveals it; and a remark if the sign is a guess, else ''.
    """
    cells = [cell for column in itertools.zip_longest(*rows, fillvalue="") for cell in _number_cells(column)]

    def reveals(cell: str, sign: str) -> bool:
        return sign in cell and _NUMBER[sign].fullmatch(cell) is not None and not _AMBIGUOUS[sign].fullmatch(cell)

    ambiguous = [cell for cell in cells if _AMBIGUOUS[","].fullmatch(cell)]
    if any(reveals(cell, ",") for cell in cells):
        return ",", ""
    if any(reveals(cell, ".") for cell in cells) or any(cell.count(",") > 1 for cell in ambiguous):
        return ".", ""
    if not ambiguous:
        return "", ""
    if delimiter == ",":  # the cells are quoted because of their commas
        return ".", f"numbers like {ambiguous[0]} are read as thousands, not with a decimal comma"
    return ",", f"numbers like {ambiguous[0]} are read with a decimal comma, not as thousands"


def _number_cells(column: Sequence[str]) -> Sequence[str]:
    """Returns the non-empty cells of a column if most of them are numbers, else none."""
    filled = [cell.strip() for cell in column if cell.strip()]
    numbers = sum(any(pattern.fullmatch(cell) for pattern in _NUMBER.values()) for cell in filled)
    return filled if 2 * numbers > len(filled) else ()


def parse_numbers(column: pd.Series, decimal: str) -> pd.Series:
    """Parses a column of numbers; a cell that is not a number becomes NaN."""
    if pd.api.types.is_numeric_dtype(column):
        return pd.to_numeric(column, errors="coerce")
    text = column.astype(str).str.strip()
    text = text.where(text.str.fullmatch(_NUMBER[decimal]))
    text = text.str.replace("." if decimal == "," else ",", "", regex=False)
    return pd.to_numeric(text.str.replace(",", ".", regex=False), errors="coerce")


def starts_with_date(text: str) -> bool:
    """Returns whether a cell begins with a date in digits."""
    return bool(re.match(r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(\D|$)", text))


def looks_like_times(column: pd.Series) -> bool:
    """Returns whether all cells of a column are times, and not numbers."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return True
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column) or column.isna().any():
        return False
    dates = all(starts_with_date(str(cell)) for cell in column.head(50))
    return bool(len(column)) and dates and bool(find_time_formats(column))


def looks_like_dates_and_times(dates: pd.Series, clock: pd.Series) -> bool:
    """Returns whether, in every row, one column contains a date and the other the time of day that belongs to it."""
    if not len(dates) or dates.isna().any() or clock.isna().any():
        return False
    if looks_like_times(clock) and _all_parse(clock):  # 10.05.20 may be a date itself
        return False
    for column, pattern in ((dates, _DATE), (clock, _TIME_OF_DAY)):
        if not column.astype(str).str.strip().str.fullmatch(pattern).all():
            return False
    return _all_parse(join_dates_and_times(dates, clock))


def _all_parse(times: pd.Series) -> bool:
    return bool(parse_times(times, find_time_formats(times)[0]).notna().all())


def join_dates_and_times(dates: pd.Series, clock: pd.Series) -> pd.Series:
    """Joins dates and times of day into a column of text; NaN where either is missing."""
    times = clock.astype(str).str.strip().str.replace(_TIME_WITH_DOTS, r"\1:\2:\3", regex=True)
    times = times.str.replace(_AM_OR_PM, r" \1", regex=True)
    return (dates.astype(str).str.strip() + " " + times).where(dates.notna() & clock.notna())


def find_time_formats(column: pd.Series) -> list[str]:
    """Finds the formats that fit all times of a column: two if days and months cannot be told apart.

    Returns:
      'ISO8601'; a unit of numbers since 1970 ('s', 'ms', 'us' or 'ns', by their size); or formats of strptime.
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        return ["ISO8601"]
    numbers = pd.to_numeric(column, errors="coerce")
    if len(numbers) and numbers.notna().all():
        largest = float(numbers.abs().max())
        return [next((unit for unit, limit in _UNITS if largest < limit), "ns")]
    filled = column.dropna().astype(str).str.strip()
    if not len(filled):
        return []

    def fits(time_format: str) -> bool:
        return bool(parse_times(filled, time_format).notna().all())

    if fits("ISO8601"):
        return ["ISO8601"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns when `dayfirst` contradicts the text
        guesses = {guess_datetime_format(text, dayfirst=first) for text in filled[:1] for first in (False, True)}
    likely = sorted(
        guess for guess in guesses if guess and not re.match("%Y.%d", guess)
    )  # nobody writes year-day-month
    return list(filter(fits, likely)) or list(filter(fits, _MORE_FORMATS)) or ["ISO8601"]


def parse_times(column: pd.Series, time_format: str) -> pd.Series:
    """Parses a column of times into UTC with nanoseconds; NaT for other cells and outside the years 1678 to 2261."""
    if time_format in dict(_UNITS):
        numbers = pd.to_numeric(column, errors="coerce")
        times = pd.to_datetime(numbers, unit=time_format, errors="coerce", utc=True)
    elif pd.api.types.is_datetime64_any_dtype(column):
        times = pd.to_datetime(column, utc=True)
    else:
        text = column.astype(str).str.strip()
        times = pd.to_datetime(text, format=time_format or "ISO8601", errors="coerce", utc=True)
    times = times.dt.tz_localize(None)
    inside = (times >= pd.Timestamp.min.ceil("D")) & (times <= pd.Timestamp.max.floor("D"))
    return times.where(inside).astype("datetime64[ns]")
