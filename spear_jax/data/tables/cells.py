"""How the cells of a CSV are read: what divides them, numbers and times."""

import contextlib
import csv
import itertools
import re
import warnings
from collections.abc import Iterator, Sequence

import pandas as pd
from pandas.tseries.api import guess_datetime_format

_DELIMITERS = ",;\t|"


# Numbers as text, by the decimal sign: what groups thousands is the other one.
_NUMBER = {
    ".": re.compile(
        r"[+-]?(\d+|\d{1,3}(,\d{3})+)(\.\d*)?([eE][+-]?\d+)?|[+-]?\.\d+([eE][+-]?\d+)?|[+-]?inf(inity)?|nan", re.I
    ),
    ",": re.compile(
        r"[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d*)?([eE][+-]?\d+)?|[+-]?,\d+([eE][+-]?\d+)?|[+-]?inf(inity)?|nan", re.I
    ),
}


_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")


_TIME_OF_DAY = re.compile(
    r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d([.]\d+)?)?( ?[AP]M)?|([01]?\d|2[0-3])[.][0-5]\d[.][0-5]\d", re.I
)


_DOTTED = re.compile(r"^(\d{1,2})[.](\d{2})[.](\d{2})$")


_HALF = re.compile(r" *([AP]M)$", re.I)


_GROUPS = {sign: re.compile(rf"[+-]?\d{{1,3}}({re.escape(sign)}\d{{3}})+") for sign in ".,"}


def delimiter(names: str) -> str:
    """What divides the fields of a CSV, by its line of column names; the comma where there is one column."""
    return max(_DELIMITERS, key=lambda sign: len(next(csv.reader([names], delimiter=sign))))


def is_number(text: str) -> bool:
    """True for what is written like a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def no_field_too_many() -> Iterator[None]:
    """For `pandas.read_csv(..., index_col=False)`, which drops what has no column name and only warns.

    Raises:
      ValueError: a row has fields beyond the column names that are not empty.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    except pd.errors.ParserWarning:
        raise ValueError("rows have more fields than there are column names") from None


def decimal_sign(rows: Sequence[Sequence[str]], delimiter: str) -> tuple[str, str]:
    """The decimal sign of the numbers in a CSV.

    Args:
      rows: of cells; columns that are not mostly numbers tell nothing.
      delimiter: between them.

    Returns:
      The sign, '' where nothing tells; and what is said where it is in doubt.
    """
    cells = [cell.strip() for column in itertools.zip_longest(*rows, fillvalue="") for cell in _numbers(column)]
    grouped = [cell for cell in cells if _GROUPS[","].fullmatch(cell)]
    commas = any("," in cell and _NUMBER[","].fullmatch(cell) and not _GROUPS[","].fullmatch(cell) for cell in cells)
    points = any("." in cell and _NUMBER["."].fullmatch(cell) and not _GROUPS["."].fullmatch(cell) for cell in cells)
    if commas:
        return ",", ""
    if points or any(cell.count(",") > 1 for cell in grouped):
        return ".", ""
    if not grouped:
        return "", ""
    if delimiter == ",":  # quoted for their commas
        return ".", f"numbers like {grouped[0]} are read as thousands, not with a decimal comma"
    return ",", f"numbers like {grouped[0]} are read with a decimal comma, not as thousands"


def _numbers(column: Sequence[str]) -> Sequence[str]:
    """The cells of a column of numbers; none of a column of anything else."""
    filled = [cell.strip() for cell in column if cell.strip()]
    numbers = sum(any(form.fullmatch(cell) for form in _NUMBER.values()) for cell in filled)
    return filled if 2 * numbers > len(filled) else ()


def parse_numbers(column: pd.Series, decimal: str) -> pd.Series:
    """Numbers of a column, cell by cell where they are text; NaN where there is none.

    Args:
      column: numbers or text.
      decimal: from `decimal_sign`.
    """
    if pd.api.types.is_numeric_dtype(column):
        return pd.to_numeric(column, errors="coerce")
    text = column.astype(str).str.strip()
    text = text.where(text.str.fullmatch(_NUMBER[decimal]))
    text = text.str.replace("." if decimal == "," else ",", "", regex=False)
    return pd.to_numeric(text.str.replace(",", ".", regex=False), errors="coerce")


def is_time(text: str) -> bool:
    """True for what is written like a date."""
    return bool(re.match(r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(\D|$)", text))


def looks_like_times(column: pd.Series) -> bool:
    """True where all cells are times, and not numbers."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return True
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column) or column.isna().any():
        return False
    return bool(len(column)) and all(is_time(str(cell)) for cell in column.head(50)) and bool(time_formats(column))


def looks_like_dates_and_times(dates: pd.Series, clock: pd.Series) -> bool:
    """True for a column of dates alone and one of times of the day that are times together, in every row."""
    if not len(dates) or dates.isna().any() or clock.isna().any():
        return False
    if looks_like_times(clock) and _all_fit(clock):  # 10.05.20 may be a date itself
        return False
    for column, form in ((dates, _DATE), (clock, _TIME_OF_DAY)):
        if not column.astype(str).str.strip().str.fullmatch(form).all():
            return False
    return _all_fit(joined(dates, clock))


def _all_fit(times: pd.Series) -> bool:
    return bool(parse_times(times, time_formats(times)[0]).notna().all())


def joined(dates: pd.Series, clock: pd.Series) -> pd.Series:
    """Dates and the times of the day beside them as one column of text; NaN where one of them is missing."""
    times = clock.astype(str).str.strip().str.replace(_DOTTED, r"\1:\2:\3", regex=True)
    times = times.str.replace(_HALF, r" \1", regex=True)
    return (dates.astype(str).str.strip() + " " + times).where(dates.notna() & clock.notna())


def time_formats(column: pd.Series) -> list[str]:
    """The formats that all times of a column may have: two where nothing tells days from months.

    Returns:
      'ISO8601', the unit of numbers since 1970 ('s', 'ms', 'us', 'ns', by their size), or formats of strptime.
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        return ["ISO8601"]
    numbers = pd.to_numeric(column, errors="coerce")
    if len(numbers) and numbers.notna().all():
        largest = float(numbers.abs().max())
        return [next((unit for unit, limit in (("s", 1e11), ("ms", 1e14), ("us", 1e17)) if largest < limit), "ns")]
    known = column.dropna().astype(str).str.strip()
    if not len(known):
        return []
    if not parse_times(known, "ISO8601").isna().any():
        return ["ISO8601"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas says that it guesses the one where the other was asked for
        guesses = {guess_datetime_format(text, dayfirst=first) for text in known[:1] for first in (False, True)}
    likely = sorted(guess for guess in guesses if guess and not re.match("%Y.%d", guess))  # nobody writes that
    fitting = [guess for guess in likely if not parse_times(known, guess).isna().any()]
    return fitting or [one for one in _UNGUESSED if not parse_times(known, one).isna().any()] or ["ISO8601"]


# What pandas does not guess: years of two digits, and hours up to twelve.
_UNGUESSED = tuple(
    f"{day}{hour}"
    for day in ("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d/%m/%Y", "%m/%d/%Y", "%Y-%m-%d", "%Y/%m/%d")
    for hour in ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
)


def parse_times(column: pd.Series, form: str) -> pd.Series:
    """Times in UTC, in nanoseconds; NaT where there is none, or none that fits into the years 1678 to 2262.

    Args:
      column: times or numbers.
      form: from `time_formats`.
    """
    if form in ("s", "ms", "us", "ns"):
        numbers = pd.to_numeric(column, errors="coerce")
        times = pd.to_datetime(numbers, unit=form, errors="coerce", utc=True)
    elif pd.api.types.is_datetime64_any_dtype(column):
        times = pd.to_datetime(column, utc=True)
    else:
        times = pd.to_datetime(column.astype(str).str.strip(), format=form or "ISO8601", errors="coerce", utc=True)
    times = times.dt.tz_localize(None)
    inside = (times >= pd.Timestamp.min.ceil("D")) & (times <= pd.Timestamp.max.floor("D"))
    return times.where(inside).astype("datetime64[ns]")
