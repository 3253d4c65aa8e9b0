"""Parses dates and times, and finds their format."""

import datetime
import re
import warnings

import numpy as np
import pandas as pd
from pandas.tseries.api import guess_datetime_format

_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")
_TIME_OF_DAY = re.compile(
    r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d([.]\d+)?)?( ?[AP]M)?|([01]?\d|2[0-3])[.][0-5]\d[.][0-5]\d", re.I
)
_TIME_WITH_DOTS = re.compile(r"^(\d{1,2})[.](\d{2})[.](\d{2})$")
_AM_OR_PM = re.compile(r" *([AP]M)$", re.I)
_COMMA_BEFORE_FRACTION = re.compile(r"(:\d{2}),(\d+)")  # as Python's logging writes times
_OFFSET = re.compile(r"(?::\d{2}(?:\.\d+)?|T\d{2,6})\s*(?:Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$")

# Upper limits of times since 1970 in each unit.
_SIZES = (("s", 1e11), ("ms", 1e14), ("us", 1e17), ("ns", float("inf")))
TICKS = "ticks of .NET"  # of 100 ns, since the year 1
_TICKS_OF_1970 = 621_355_968_000_000_000
_LIKELY_TICKS = (624_511_296_000_000_000, 662_380_416_000_000_000)  # 1980 to 2100; as ns, three weeks around 1990
UNITS = ("s", "ms", "us", "ns", "m", "h", "D", TICKS)

DIGITS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}

EARLIEST = pd.Timestamp("1980-01-01").value
_RISING_SHARE = 0.9

# Formats that pandas does not guess: two-digit years, and 12-hour clocks.
_MORE_FORMATS = tuple(
    f"{day}{hour}"
    for day in ("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d/%m/%Y", "%m/%d/%Y", "%Y-%m-%d", "%Y/%m/%d")
    for hour in ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
)


def latest() -> int:
    """Returns the end of next year, in nanoseconds since 1970; later times are unlikely."""
    return pd.Timestamp(year=datetime.date.today().year + 2, month=1, day=1).value


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


def looks_like_clock_counts(column: pd.Series) -> bool:
    """Returns whether numbers rise and lie where counts since 1970, or .NET's ticks, lie in our time."""
    if not pd.api.types.is_numeric_dtype(column) or len(column) < 2 or column.isna().any():
        return False
    return in_our_time(column) and rises(column)


def in_our_time(numbers: pd.Series) -> bool:
    """Returns whether numbers are times between 1980 and next year, in a unit that their size tells."""
    stamps = parse_times(numbers, find_time_formats(numbers)[0])
    return bool(stamps.notna().all() and stamps.min().value >= EARLIEST and stamps.max().value < latest())


def rises(numbers: pd.Series) -> bool:
    """Returns whether numbers mostly rise, or mostly fall, from row to row, as times do."""
    steps = np.diff(numbers.dropna().to_numpy(np.float64))
    steps = steps[steps != 0]
    return bool(len(steps) and max((steps > 0).mean(), (steps < 0).mean()) >= _RISING_SHARE)


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


def find_time_formats(column: pd.Series, unit: str = "") -> list[str]:
    """Finds the formats that fit all times of a column: two if days and months cannot be told apart.

    Args:
      column: the times, as text, numbers or times.
      unit: the unit of numbers since 1970, if it is known; otherwise their size tells it.

    Returns:
      'ISO8601'; a unit of numbers, see `UNITS`; or formats of strptime.
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        return ["ISO8601"]
    numbers = pd.to_numeric(column, errors="coerce")
    if len(numbers) and numbers.notna().all():
        if digits := "" if unit else _find_digits(column):
            return [digits]
        largest = float(numbers.abs().max())
        if _LIKELY_TICKS[0] <= numbers.min() and largest < _LIKELY_TICKS[1]:
            return [TICKS]
        return [unit or next((unit for unit, limit in _SIZES if largest < limit), "ns")]
    filled = _texts(column.dropna())
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


def _find_digits(column: pd.Series) -> str:
    """Returns the format of whole numbers that are dates of our time, such as 20250131; '' if they are none."""
    texts = _texts(column)
    time_format = DIGITS.get(len(str(texts.iloc[0])), "")
    if not time_format or not texts.str.fullmatch(r"\d+").all():
        return ""
    times = parse_times(texts, time_format)
    return time_format if times.notna().all() and EARLIEST <= times.min().value <= times.max().value < latest() else ""


def parse_times(column: pd.Series, time_format: str) -> pd.Series:
    """Parses a column of times into UTC with nanoseconds; NaT for other cells and outside the years 1678 to 2261."""
    return parse_stamps(column, time_format)[0]


def parse_stamps(column: pd.Series, time_format: str) -> tuple[pd.Series, bool | None]:
    """Parses times, see `parse_times`.

    Returns:
      The times; and whether they are given with an offset from UTC, as in 12:00+02:00, None if only some are. Numbers
      count from an instant in UTC, and so have one.
    """
    offset: bool | None = True
    if time_format == TICKS:
        numbers = pd.to_numeric(column, errors="coerce")
        since = (numbers - _TICKS_OF_1970) * 100 if numbers.notna().all() else numbers * np.nan
        times = pd.to_datetime(since, unit="ns", errors="coerce", utc=True)
    elif time_format in UNITS:
        numbers = pd.to_numeric(column, errors="coerce")
        times = pd.to_datetime(numbers, unit=time_format, errors="coerce", utc=True)
    elif pd.api.types.is_datetime64_any_dtype(column):
        offset = column.dt.tz is not None
        times = pd.to_datetime(column, utc=True)
    else:
        texts = _texts(column)
        if time_format in DIGITS.values():  # which strptime would take from fewer digits, too: 1030 as 10:3:0
            (length,) = (length for length, known in DIGITS.items() if known == time_format)
            texts = texts.where(texts.str.len() == length)
        times, offset = _parse_texts(texts, time_format or "ISO8601")
    times = times.dt.tz_localize(None)
    inside = (times >= pd.Timestamp.min.ceil("D")) & (times <= pd.Timestamp.max.floor("D"))
    return times.where(inside).astype("datetime64[ns]"), offset


def _parse_texts(texts: pd.Series, time_format: str) -> tuple[pd.Series, bool | None]:
    """Parses times in text; returns them in UTC, and whether they have an offset."""
    try:
        times = pd.to_datetime(texts, format=time_format, errors="coerce")
    except ValueError:  # offsets that differ, or some times without one
        offset = True if texts.str.contains(_OFFSET).all() else None
        return pd.to_datetime(texts, format=time_format, errors="coerce", utc=True), offset
    if times.dt.tz is None:
        return times.dt.tz_localize("UTC"), False
    return times.dt.tz_convert("UTC"), True


def _texts(column: pd.Series) -> pd.Series:
    """Returns the cells of a column as text, with a point before fractions of a second."""
    texts = column.astype(str).str.strip()
    if len(texts) and "," in str(texts.iloc[0]):
        texts = texts.str.replace(_COMMA_BEFORE_FRACTION, r"\1.\2", regex=True)
    return texts
