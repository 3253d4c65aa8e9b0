"""Times in own files: their formats, dates and times of day in two columns, and which column they are."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from own_files import ROWS, check, frame, load_files, load_series, load_text

from spear_jax.errors import InputError


@pytest.mark.parametrize(("unit", "divisor"), [("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1)])
def test_times_as_numbers(tmp_path: Path, unit: str, divisor: int) -> None:
    table = frame()
    table["time"] = table["time"].astype("datetime64[ns]").astype("int64") // divisor
    table.to_csv(tmp_path / "own.csv", index=False)
    check(tmp_path / "own.csv")


@pytest.mark.parametrize(("form", "step"), [("%Y%m%d", "D"), ("%Y%m%d%H%M", "7min"), ("%Y%m%d%H%M%S", "7s")])
@pytest.mark.parametrize("sign", [",", ";"])
def test_times_as_digits(tmp_path: Path, form: str, step: str, sign: str) -> None:
    times = pd.date_range("2024-03-01", periods=ROWS, freq=step)
    table = frame().assign(time=times.strftime(form))
    table.to_csv(tmp_path / "own.csv", index=False, sep=sign)
    (tmp_path / "marks.csv").write_text(f"start,end\n{table['time'][3]},{table['time'][5]}\n")
    loaded = load_files(tmp_path / "own.csv", labels="intervals", intervals=str(tmp_path / "marks.csv"))
    np.testing.assert_array_equal(loaded.series[0].timestamps, times.to_numpy("datetime64[ns]"))
    assert np.flatnonzero(loaded.series[0].labels).tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    ("form", "start", "end"),
    [("%Y%m%d%H%M%S", "202403010003", "202403010005"), ("%Y%m%d%H%M", "20240301", "20240302")],
)
def test_fewer_digits_than_the_rows_have_are_no_time(tmp_path: Path, form: str, start: str, end: str) -> None:
    """By strptime, 202403010003 would be a time in a format with seconds, too: 00:00:03."""
    table = frame().assign(time=pd.date_range("2024-03-01", periods=ROWS, freq="min").strftime(form))
    table.to_csv(tmp_path / "own.csv", index=False)
    (tmp_path / "marks.csv").write_text(f"start,end\n{start},{end}\n")
    with pytest.raises(InputError, match=r"marks\.csv: row 1: .* series "):
        load_files(tmp_path / "own.csv", labels="intervals", intervals=str(tmp_path / "marks.csv"))


def test_seconds_since_the_start_of_a_recording_are_no_dates(tmp_path: Path) -> None:
    text = "elapsed_s,v\n" + "".join(f"{20_250_301 + n},{n % 7}.5\n" for n in range(ROWS))
    assert "the times end in 1970" in " ".join(load_text(tmp_path / "own.csv", text).warnings)


@pytest.mark.parametrize("form", ["%d/%m/%Y %H:%M:%S", "%d.%m.%Y %H:%M"])
def test_all_cells_have_the_same_order_of_day_and_month(tmp_path: Path, form: str) -> None:
    table = frame()
    days = pd.date_range("2020-01-10", periods=ROWS, freq="D")  # the first three could be months as well
    table.assign(time=days.strftime(form)).to_csv(tmp_path / "own.csv", index=False)
    (series, _) = load_files(str(tmp_path / "own.csv")).series
    np.testing.assert_array_equal(series.timestamps, days.to_numpy("datetime64[ns]"))


def days_that_could_be_months(tmp_path: Path, *more: str) -> Path:
    """More rows than are looked at first, of March 1 or January 3, and further ones."""
    minutes = pd.date_range("2020-03-01", periods=1200, freq="min").strftime("%d/%m/%Y %H:%M")
    table = pd.DataFrame({"time": [*minutes, *more], "a": np.arange(1200.0 + len(more))})
    table.to_csv(tmp_path / "own.csv", index=False)
    return tmp_path / "own.csv"


def test_a_time_in_another_format_is_reported_by_row(tmp_path: Path) -> None:
    path = days_that_could_be_months(tmp_path, "25/03/2020 10:00", "03/25/2020 10:00")
    message = (
        r"row 1202, column 'time': '03/25/2020 10:00' is not a time of the form %d/%m/%Y %H:%M, as in the first rows"
    )
    with pytest.raises(InputError, match=message):
        load_files(str(path), labels="rules")


@pytest.mark.parametrize(("last", "day", "ambiguous"), [("25/03", 1, False), ("03/25", 3, False), ("05/03", 1, True)])
def test_any_row_can_distinguish_days_from_months(tmp_path: Path, last: str, day: int, ambiguous: bool) -> None:
    path = days_that_could_be_months(tmp_path, f"{last}/2020 10:00")
    loaded = load_files(str(path), labels="rules")
    (series,) = loaded.series
    assert pd.Timestamp(series.timestamps[0]).day == day
    reading = "times are read as %d/%m/%Y %H:%M; they could be %m/%d/%Y %H:%M as well (ISO 8601 is never mistaken)"
    assert (f"{path.name}: {reading}" in loaded.warnings) == ambiguous


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"energy": np.arange(40) ** 1.5, "a": np.sin(np.arange(40))}, "column 'energy' only rises: a counter"),
        ({"time": np.arange(40), "a": np.sin(np.arange(40))}, "the times end in 1970: are they seconds since 1970, or"),
    ],
)
def test_counters_and_times_in_1970_are_remarked_on(tmp_path: Path, table: dict, message: str) -> None:
    pd.DataFrame(table).to_csv(tmp_path / "own.csv", index=False)
    assert sum(message in warning for warning in load_files(str(tmp_path / "own.csv"), labels="rules").warnings) == 1


@pytest.mark.parametrize("form", ["%d.%m.%y", "%m/%d/%Y %I:%M %p", "%d/%m/%y %H:%M", "%d.%m.%Y "])
def test_years_of_two_digits_and_twelve_hours(tmp_path: Path, form: str) -> None:
    days = pd.date_range("2025-01-10", periods=40, freq="D")
    pd.DataFrame({"time": days.strftime(form), "a": np.sin(np.arange(40))}).to_csv(tmp_path / "own.csv", index=False)
    (series,) = load_files(str(tmp_path / "own.csv"), labels="rules").series
    np.testing.assert_array_equal(series.timestamps, days.to_numpy("datetime64[ns]"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("names", "date", "clock"),
    [
        (("Date", "Time"), "%d/%m/%Y", "%H.%M.%S"),  # as in the UCI repository's air quality
        (("Time", "Date"), "%Y-%m-%d", "%H:%M"),
        (("Time", "Day"), "%d/%m/%Y", "%I:%M:%S %p"),
        (("timestamp", "clock"), "%d.%m.%y", "%H:%M:%S"),
        (("Datum", "Zeit"), "%d.%m.%Y", "%H:%M:%S"),
        (("Uhrzeit", "Datum"), "%d.%m.%Y", "%H:%M"),
    ],
)
def test_dates_and_times_in_two_columns(
    tmp_path: Path, suffix: str, names: tuple[str, str], date: str, clock: str
) -> None:
    table = frame()
    times = table.pop("time").dt
    for place, name in enumerate(names):
        table.insert(place, name, times.strftime(clock if name in ("Time", "clock", "Zeit", "Uhrzeit") else date))
    path = tmp_path / f"own.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    check(path)
    (message,) = (warning for warning in load_files(str(path)).warnings if warning.endswith("together"))
    assert all(repr(name) in message for name in names)


def test_dates_and_times_in_parquet(tmp_path: Path) -> None:
    table, times = frame(), frame()["time"]
    for dates in (times.dt.normalize(), times.dt.date):
        table.assign(time=times.dt.time, date=dates).to_parquet(tmp_path / "own.parquet")
        check(tmp_path / "own.parquet")


@pytest.mark.parametrize(
    ("date", "clock", "time"),
    [
        ("2024-01-02", "9:05 AM", "2024-01-02 09:05"),  # no year, day, month
        ("2024/01/02", "11:05PM", "2024-01-02 23:05"),
        ("13.01.24", "09:05:00.123", "2024-01-13 09:05:00.123"),
        ("03/04/2024", "09:05", "2024-04-03 09:05"),  # day first, as everywhere
        ("13/04/2024 ", " 9:05", "2024-04-13 09:05"),
    ],
)
def test_formats_of_dates_and_times(tmp_path: Path, date: str, clock: str, time: str) -> None:
    (tmp_path / "own.csv").write_text(f"date;time;a\n{date};{clock};1.5\n")
    (series,) = load_files(str(tmp_path / "own.csv"), labels="rules").series
    assert series.timestamps.tolist() == [pd.Timestamp(time).value]


@pytest.mark.parametrize(
    ("names", "rows", "time"),
    [
        (("date", "time"), ("2024-01-02,45:30", "2024-01-03,44:10"), "2024-01-02"),  # minutes and seconds
        (("date", "time"), ("13.01.2024,23:45", "13.01.2024,24:00"), "2024-01-13"),
        (("date", "time"), ("13.01.2024,23:45", "14.01.2024,"), "2024-01-13"),
        (("time", "due"), ("10.05.20,2021-12-31", "11.05.20,2021-12-31"), "2020-05-10"),
        (("time", "date"), ("10.05.20,2021-12-31", "11.05.20,2021-12-31"), "2020-05-10"),
        (("datetime", "time"), ("2024-01-02 09,09:00", "2024-01-02 10,10:00"), "2024-01-02 09:00"),
        (("timestamp", "clock"), ("2024-01-02 09:00,06:32:00", "2024-01-02 10:00,06:32:00"), "2024-01-02 09:00"),
    ],
)
def test_unrelated_columns_are_not_joined(
    tmp_path: Path, names: tuple[str, str], rows: tuple[str, str], time: str
) -> None:
    lines = (f"{','.join(names)},a", *(f"{row},{i}.5" for i, row in enumerate(rows)))
    (tmp_path / "own.csv").write_text("\n".join(lines))
    loaded = load_files(str(tmp_path / "own.csv"), labels="rules")
    assert loaded.series[0].timestamps[0] == pd.Timestamp(time).to_datetime64()
    assert any(f"left out: {names[1]} (" in warning for warning in loaded.warnings)


def test_a_named_column_of_dates_is_not_joined(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("date,time,a\n2024-01-02,00:45:30,1.5\n")  # how long something took
    (series,) = load_files(str(tmp_path / "own.csv"), labels="rules", timestamp_column="date").series
    assert series.timestamps[0] == np.datetime64("2024-01-02")


def test_the_column_called_date_belongs_to_the_time(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("calibrated,ip,time,date,a\n2019-01-01,10.0.0.1,09:05,2024-01-02,1.5\n")
    (series,) = load_files(str(tmp_path / "own.csv"), labels="rules").series
    assert series.timestamps[0] == np.datetime64("2024-01-02T09:05")


def test_a_missing_time_of_day_is_reported_by_row(tmp_path: Path) -> None:
    rows = [f"2024-01-02,{i // 60:02d}:{i % 60:02d},{i % 7}.5" for i in range(1200)]
    rows[1100] = "2024-01-02,,1.5"
    (tmp_path / "own.csv").write_text("\n".join(["date,time,a", *rows]))
    message = "row 1101, column 'date' with 'time': nan is not a time; data.timestamp_column=date takes the dates alone"
    with pytest.raises(InputError, match=message):
        load_files(str(tmp_path / "own.csv"), labels="rules")


def test_an_index_of_times_is_a_column(tmp_path: Path) -> None:
    frame().set_index("time").to_parquet(tmp_path / "own.PARQUET")
    check(tmp_path / "own.PARQUET")


def test_text_is_not_a_time(tmp_path: Path) -> None:
    table = frame().drop(columns="time").assign(sensor="T1")
    table.to_csv(tmp_path / "own.csv", index=False)
    assert not len(load_files(str(tmp_path / "own.csv")).series[0].timestamps)


def test_a_named_value_column_is_not_the_time(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=9).astype(str)
    text = "stamp,ts\n" + "".join(f"{day},{20 + i / 10}\n" for i, day in enumerate(days))
    (series,) = load_series(tmp_path / "a.csv", text, value_columns=("ts",))
    assert series.values[1] == 20.1 and str(series.timestamps[0])[:10] == "2024-01-01"
