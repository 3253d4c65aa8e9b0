"""Own files: what is recognized, what is remarked on, and what is refused in one line."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Spear, check_refusal, check_scores, command, results
from own_files import load_files

from spear_jax.data.series import Series
from spear_jax.errors import InputError

ROWS = 40


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "time": pd.date_range("2024-03-01", periods=ROWS, freq="5min"),
            "pump": rng.normal(size=ROWS).round(4),
            "flow": rng.normal(5, 1, ROWS).round(4),
            "label": (np.arange(ROWS) % 20 > 16).astype(int),
        }
    )


def written(path: Path, **options: object) -> Path:
    frame().to_csv(path, index=False, **options)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return written(tmp_path / "own.csv")


def check(path: Path, **arguments: object) -> None:
    """The series are those of `frame`, whatever the file's format."""
    loaded = load_files(str(path), **arguments)
    expected = frame()
    stem = path.name.split(".")[0]
    assert [series.name for series in loaded.series] == [f"{stem}/pump", f"{stem}/flow"]
    for series, column in zip(loaded.series, ("pump", "flow"), strict=True):
        np.testing.assert_allclose(series.values, expected[column])
        np.testing.assert_array_equal(series.labels, expected["label"] == 1)
        np.testing.assert_array_equal(series.timestamps, expected["time"].to_numpy("datetime64[ns]"))
        assert series.group == stem  # columns of one file stay together
        assert series.labelled


FORMATS: dict[str, Callable[[Path], Path]] = {
    "comma": lambda root: written(root / "own.csv"),
    "semicolon": lambda root: written(root / "own.csv", sep=";"),
    "semicolon, decimal comma": lambda root: written(root / "own.csv", sep=";", decimal=","),
    "tab": lambda root: written(root / "own.tsv", sep="\t"),
    "gzip": lambda root: written(root / "own.csv.gz"),
    "bzip2": lambda root: written(root / "own.csv.bz2"),
    "xz": lambda root: written(root / "own.txt.xz"),
    "with a byte order mark": lambda root: written(root / "own.csv", encoding="utf-8-sig"),
    "time zone": lambda root: written(root / "own.csv", date_format="%Y-%m-%dT%H:%M:%S+00:00"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(tmp_path: Path, name: str) -> None:
    check(FORMATS[name](tmp_path))


def test_parquet(tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "own.parquet")
    check(tmp_path / "own.parquet")


@pytest.mark.parametrize(("unit", "divisor"), [("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1)])
def test_times_as_numbers(tmp_path: Path, unit: str, divisor: int) -> None:
    table = frame()
    table["time"] = table["time"].astype("datetime64[ns]").astype("int64") // divisor
    table.to_csv(tmp_path / "own.csv", index=False)
    check(tmp_path / "own.csv")


def test_columns_are_named_by_the_user(tmp_path: Path) -> None:
    table = frame().rename(columns={"time": "when seen", "label": "bad", "pump": "1"}).assign(note="x")
    table.to_csv(tmp_path / "own.csv", index=False)
    loaded = load_files(
        str(tmp_path / "own.csv"), timestamp_column="when seen", value_columns=("flow",), label_column="bad"
    )
    (series,) = loaded.series
    assert series.name == "own"  # a single column needs no name of its own
    assert series.labels.sum() == frame()["label"].sum()
    assert str(series.timestamps[1]).startswith("2024-03-01T00:05")
    loaded = load_files(str(tmp_path / "own.csv"), label_column="bad")
    assert [series.name for series in loaded.series] == ["own/1", "own/flow"]  # the time was found, the text left out
    assert "columns that are left out: note (text, such as 'x')" in loaded.warnings[0]


def test_a_second_label_is_never_a_value(tmp_path: Path) -> None:
    frame().assign(anomaly=frame()["label"]).to_csv(tmp_path / "own.csv", index=False)
    check(tmp_path / "own.csv")
    with pytest.raises(InputError, match=r"'label' is in data\.value_columns and data\.label_column"):
        load_files(str(tmp_path / "own.csv"), value_columns=("label",), label_column="label")


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
    ("text", "expected", "message"),
    [
        ("a;b\n999;50,1\n1.001;50,2\n1.002.003,5;50,3", [999, 1001, 1002003.5], ""),  # b tells the decimal sign
        ("a;b\n1,001;50.1\n999;50.2\n1,500.5;50.3", [1001, 999, 1500.5], ""),
        ("a;b\n1,001;1\n1,002;2", [1.001, 1.002], "numbers like 1,001 are read with a decimal comma, not as thousands"),
        (
            'a,b\n"1,001",1\n"1,002",2',
            [1001, 1002],
            "numbers like 1,001 are read as thousands, not with a decimal comma",
        ),
        ('a,b\n"50,1",1\n"0,25",2', [50.1, 0.25], ""),
        ("a;b\n" + "0;1\n" * 30 + "19,95;2", [0] * 30 + [19.95], ""),  # far behind the first rows
        ("a,b\n1e3,1\n-.5,2\n,3", [1000, -0.5, np.nan], ""),
        (" a , b\n1, 2\n3, 4", [1, 3], ""),
        ("a,b\n1e300,1\n-1e308,2\n5,3", [np.nan, np.nan, 5], "2 infinite values (beyond 1e100) are taken as missing"),
    ],
)
def test_all_numbers_have_the_same_decimal_sign(tmp_path: Path, text: str, expected: list[float], message: str) -> None:
    path = tmp_path / "own.csv"
    path.write_text(text + "\n")
    loaded = load_files(str(path), labels="rules")
    np.testing.assert_allclose(loaded.series[0].values, expected)
    doubts = [warning for warning in loaded.warnings if "numbers like" in warning or "infinite" in warning]
    assert doubts == ([f"{path.name}: {message}"] if message else [])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Fehler;1", "row 12, column 'a': 'Fehler' is not a number (the decimal sign is ',')"),
        ("1.5;1", "'1.5' is not a number"),
    ],
)
def test_a_cell_that_is_not_a_number_is_an_error(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "own.csv").write_text("a;b\n" + "20,5;1\n" * 11 + f"{row}\n" + "20,5;1\n" * 9)
    with pytest.raises(InputError) as raised:
        load_files(str(tmp_path / "own.csv"), labels="rules")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"energy": np.arange(40) * 7, "a": np.sin(np.arange(40))}, "column 'energy' only rises, by whole numbers"),
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
    ],
)
def test_dates_and_times_in_two_columns(
    tmp_path: Path, suffix: str, names: tuple[str, str], date: str, clock: str
) -> None:
    table = frame()
    times = table.pop("time").dt
    for place, name in enumerate(names):
        table.insert(place, name, times.strftime(clock if name in ("Time", "clock") else date))
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


@pytest.mark.parametrize("sign", [",", ";"])
def test_intervals_of_a_column(table: Path, tmp_path: Path, sign: str) -> None:
    (tmp_path / "marks.csv").write_text("series,start,end\nflow,3,5\n".replace(",", sign))
    loaded = load_files(str(table), labels="intervals", intervals=str(tmp_path / "marks.csv")).series
    assert [np.flatnonzero(series.labels).tolist() for series in loaded] == [[], [3, 4, 5]]


def test_a_delimiter_in_quotes_does_not_divide(tmp_path: Path) -> None:
    table = frame().rename(columns={"pump": "pump, bar, left"})
    table.to_csv(tmp_path / "own.csv", index=False, sep=";")
    assert [series.name for series in load_files(str(tmp_path / "own.csv")).series] == [
        "own/pump, bar, left",
        "own/flow",
    ]


def test_an_index_of_times_is_a_column(tmp_path: Path) -> None:
    frame().set_index("time").to_parquet(tmp_path / "own.PARQUET")
    check(tmp_path / "own.PARQUET")


def test_text_is_not_a_time(tmp_path: Path) -> None:
    table = frame().drop(columns="time").assign(sensor="T1")
    table.to_csv(tmp_path / "own.csv", index=False)
    assert not len(load_files(str(tmp_path / "own.csv")).series[0].timestamps)


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "all" / "deep").mkdir(parents=True)
    written(tmp_path / "all" / "b.csv")
    written(tmp_path / "all" / "deep" / "a.csv.gz")
    (tmp_path / "all" / "README.md").write_text("no data")
    (tmp_path / "all" / ".hidden.csv").write_text("")
    loaded = load_files(str(tmp_path / "all"))
    assert [series.name for series in loaded.series] == ["b/pump", "b/flow", "deep/a/pump", "deep/a/flow"]


def test_remarks(tmp_path: Path) -> None:
    table = frame().assign(still=3.0, nothing=np.nan)
    table.loc[3, "pump"], table.loc[4, "pump"] = np.inf, np.nan
    table.loc[8, "time"] = table.loc[7, "time"]
    table.loc[20, "time"] -= pd.Timedelta("1h")
    table.loc[30:, "time"] += pd.Timedelta(days=1)
    table.to_csv(tmp_path / "own.csv", index=False)
    loaded = load_files(str(tmp_path / "own.csv"))
    message = " ".join(loaded.warnings)
    for remark in (
        "1 infinite value (beyond 1e100) is taken as missing",
        "column 'still' is constant (3): left out",
        "columns that are left out: nothing (empty)",
        "1 time stamp comes twice",
        "1 time stamp steps back",
        "gaps, where the usual step is 300 s",
    ):
        assert remark in message
    assert np.isnan(loaded.series[0].values[[3, 4]]).all()


@pytest.mark.parametrize("order", ["time", "sensor"])
@pytest.mark.parametrize("name", ["sensor", "machine_id"])
def test_several_series_below_one_another_are_refused(tmp_path: Path, order: str, name: str) -> None:
    table = frame()[["time", "pump", "label"]].assign(sensor=3)
    both = pd.concat([table, table.assign(sensor=4)]).sort_values(order).rename(columns={"sensor": name})
    both.to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(InputError, match=f"column '{name}' tells series apart .3, 4."):
        load_files(str(tmp_path / "own.csv"))
    both.drop(columns="time").to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(InputError, match=f"column '{name}' tells series apart"):
        load_files(str(tmp_path / "own.csv"))


def test_an_id_may_change_while_time_goes_on(tmp_path: Path) -> None:
    frame().assign(operator_id=np.arange(ROWS) // 20).to_csv(tmp_path / "own.csv", index=False)
    check(tmp_path / "own.csv")


def test_an_empty_file_among_others_is_left_out(tmp_path: Path) -> None:
    written(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("time,pump,flow,label\n")
    loaded = load_files(str(tmp_path))
    assert {series.group for series in loaded.series} == {"a"}
    assert loaded.warnings == (f"{tmp_path.name}/b.csv: no rows: left out",)


def test_intervals(table: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks.txt"
    marks.write_text("start,end\n3,5\n2024-03-01 01:00,2024-03-01 01:12\n")
    for series in load_files(str(table), labels="intervals", intervals=str(marks)).series:
        assert np.flatnonzero(series.labels).tolist() == [3, 4, 5, 12, 13, 14]  # 01:12 lies between two rows


@pytest.mark.parametrize(
    ("begin", "end", "rows", "ambiguous"),
    [
        ("01/02/2024 00:00", "02/13/2024 00:00", (1, 43), False),  # the end tells that the month is first
        ("05/02/2024 00:00", "06/02/2024 00:00", (35, 36), False),  # outside the series, with the month first
        ("01/02/2024 00:00", "02/02/2024 00:00", (31, 32), True),
        ("2024-01-05", "7 Jan 2024", (4, 6), False),
    ],
)
def test_intervals_have_the_same_order_of_day_and_month(
    tmp_path: Path, begin: str, end: str, rows: tuple[int, int], ambiguous: bool
) -> None:
    table = pd.DataFrame({"time": pd.date_range("2024-01-01", periods=60, freq="D"), "a": np.arange(60.0)})
    table.to_csv(tmp_path / "own.csv", index=False)
    (tmp_path / "marks.csv").write_text(f"start,end\n{begin},{end}\n")
    loaded = load_files(str(tmp_path / "own.csv"), labels="intervals", intervals=str(tmp_path / "marks.csv"))
    assert np.flatnonzero(loaded.series[0].labels)[[0, -1]].tolist() == list(rows)
    assert any("dates are read day first" in message for message in loaded.warnings) == ambiguous


def test_intervals_of_several_series(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    written(tmp_path / "data" / "a.csv")
    written(tmp_path / "data" / "b.csv")
    marks = tmp_path / "marks.csv"
    marks.write_text("series,start,end\na,1,2\nb/flow,4,4\n")
    loaded = {
        series.name: series
        for series in load_files(str(tmp_path / "data"), labels="intervals", intervals=str(marks)).series
    }
    assert {name: np.flatnonzero(series.labels).tolist() for name, series in loaded.items()} == {
        "a/pump": [1, 2],
        "a/flow": [1, 2],
        "b/pump": [],
        "b/flow": [4],
    }


def rewrite(old: str, new: str) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return damage


def compressed(opener: Callable, keep: float = 0.5) -> Callable[[Path], Path]:
    def damage(path: Path) -> Path:
        suffix = {gzip.open: ".gz", bz2.open: ".bz2", lzma.open: ".xz"}[opener]
        damaged = path.with_name(path.name + suffix)
        with opener(damaged, "wb") as file:
            file.write(path.read_bytes())
        damaged.write_bytes(damaged.read_bytes()[: int(damaged.stat().st_size * keep)])
        path.unlink()
        return damaged

    return damage


def parquet(path: Path) -> Path:
    damaged = path.with_suffix(".parquet")
    frame().to_parquet(damaged)
    damaged.write_bytes(damaged.read_bytes()[:-20])
    return damaged


ROW_7 = "2024-03-01 00:30:00"
MALFORMED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda path: path.unlink(), "own.csv: no such file or folder"),
    "an empty file": (
        lambda path: path.write_text(""),
        "own.csv: is empty; expected a CSV with a header line",
    ),
    "blank lines": (lambda path: path.write_text("\n\n"), "own.csv: is empty"),
    "binary": (lambda path: path.write_bytes(b"\x00\x01\x02" * 50), "own.csv: is neither a CSV nor named .parquet"),
    "latin 1": (lambda path: path.write_bytes("time,größe\n1,2\n".encode("latin-1")), "own.csv: is not text in UTF-8"),
    "no header": (
        lambda path: path.write_text("1,2,3\n4,5,6\n"),
        "own.csv: row 1 is '1,2,3'; expected a header line",
    ),
    "no header but a time": (
        lambda path: path.write_text("2024-01-01,2,3\n2024-01-02,5,6\n"),
        "own.csv: row 1 is '2024-01-01,2,3'; expected a header line",
    ),
    "a field too many in every row": (
        lambda path: path.write_text("timestamp,value\n" + "".join(f"{60 * i},{i / 10},7\n" for i in range(99))),
        "own.csv: cannot be read as CSV (rows have more fields than there are column names)",
    ),
    "a byte order mark alone": (lambda path: path.write_bytes(b"\xef\xbb\xbf"), "own.csv: is empty"),
    "a link to nothing": (
        lambda path: (path.unlink(), path.symlink_to(path.with_name("gone.csv")), path.parent)[2],
        "own.csv: cannot be read",
    ),
    "a time beyond the calendar": (
        rewrite(ROW_7, "9999-12-31 00:00:00"),
        "row 7, column 'time': '9999-12-31 00:00:00' is no",
    ),
    "two columns of one name": (rewrite("flow", "pump"), "own.csv: two columns are named 'pump'"),
    "longer row": (rewrite(ROW_7, ROW_7 + ",1,2,3"), "own.csv: cannot be read as CSV"),
    "a word among numbers": (
        lambda path: path.write_text(path.read_text().replace(ROW_7 + ",", ROW_7 + ",high")),
        "own.csv: row 7, column 'pump': 'high",
    ),
    "no time": (rewrite(ROW_7, "half past"), "own.csv: row 7, column 'time': 'half past' is not a time"),
    "a missing time": (rewrite(ROW_7, ""), "own.csv: row 7, column 'time': nan is not a time"),
    "label 2": (
        lambda path: path.write_text(path.read_text().replace(",1\n", ",2\n", 1)),
        "own.csv: row 18, column 'label': label is 2; allowed: 0 and 1",
    ),
    "a missing label": (
        lambda path: path.write_text(path.read_text().replace(",1\n", ",\n", 1)),
        "column 'label': label is nan; allowed: 0 and 1",
    ),
    "nothing but text": (
        lambda path: path.write_text("name,place\na,b\n"),
        "own.csv: no column of values; name (text, such as 'a'); place (text, such as 'b'); data.value_columns can",
    ),
    "no label": (rewrite("label", "other"), "own.csv: no label column; found pump, flow, other; name one with"),
    "no rows": (lambda path: path.write_text("time,pump,label\n"), "own.csv: no file has any rows"),
    "half a gzip": (compressed(gzip.open), "own.csv.gz: cannot be read"),
    "half a bzip2": (compressed(bz2.open), "own.csv.bz2: cannot be read"),
    "half an xz": (compressed(lzma.open), "own.csv.xz: cannot be read"),
    "not a gzip": (lambda path: path.rename(path.with_name("own.csv.gz")), "own.csv.gz: cannot be read"),
    "half a parquet": (parquet, "own.parquet: cannot be read as Parquet"),
    "a spreadsheet": (
        lambda path: path.rename(path.with_name("own.xlsx")),
        "own.xlsx: is a workbook; save the sheet as CSV UTF-8",
    ),
    "compressed Parquet": (
        lambda path: path.rename(path.with_name("own.parquet.gz")),
        "own.parquet.gz: not a CSV or Parquet file by its name; allowed: .csv, .tsv, .txt, compressed (.gz, .bz2, .xz)",
    ),
    "an empty folder": (lambda path: (path.unlink(), path.mkdir()), "own.csv: contains no CSV or Parquet file"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files_are_refused_in_one_line(table: Path, case: str) -> None:
    damage, message = MALFORMED[case]
    path = damage(table)
    with pytest.raises(InputError) as raised:
        load_files(str(path if isinstance(path, Path) else table))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timestamp_column": "when"}, "no column 'when' (data.timestamp_column); found time, pump, flow, label"),
        ({"value_columns": ("pump", "head")}, "no column 'head' (data.value_columns); found time, pump"),
        ({"label_column": "bad"}, "no column 'bad' (data.label_column); found"),
        ({"labels": "intervals"}, "config.data.intervals is empty"),
        ({"labels": "intervals", "intervals": "nowhere.csv"}, "nowhere.csv: cannot be read as CSV"),
    ],
)
def test_missing_columns_are_refused(table: Path, arguments: dict, message: str) -> None:
    with pytest.raises(InputError) as raised:
        load_files(str(table), **arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("begin,end\n1,2\n", "marks.csv: no column 'start'; found begin, end"),
        (
            "start,end\n5,4\n",
            "marks.csv: row 1: '5' to '4' is not an interval in series 'own/pump', which has rows 0 to 39",
        ),
        ("start,end\n1,2\n30,40\n", "marks.csv: row 2: '30' to '40' is not an interval"),
        ("start,end\n-1,2\n", "marks.csv: row 1: '-1' to '2' is not an interval"),
        ("start,end\n2023-01-01,2024-03-01 01:00\n", "row 1: '2023-01-01' to '2024-03-01 01:00' is not an interval"),
        ("start,end\nsoon,later\n", "marks.csv: row 1, column 'start': 'soon' is neither a row number nor a time"),
        ("start,end\n--5,6\n", "marks.csv: row 1, column 'start': '--5' is neither a row number nor a time"),
        ("start,end\n²,6\n", "marks.csv: row 1, column 'start': '²' is neither a row number nor a time"),
        ("start,end\n13/02/2024,02/13/2024\n", "has the month first and '13/02/2024' the day first; use one order"),
        ("series,start,end\nb,1,2\n", "marks.csv: row 1: no series is named 'b'; there are own/pump, own/flow"),
        ("", "marks.csv: cannot be read as CSV"),
        ("start,end\n1,2,5\n", "marks.csv: cannot be read as CSV (rows have more fields than there are column names)"),
        ("start,end,start\n1,2,1\n", "marks.csv: two columns are named 'start'"),
    ],
)
def test_impossible_intervals_are_refused(table: Path, tmp_path: Path, text: str, message: str) -> None:
    marks = tmp_path / "marks.csv"
    marks.write_text(text)
    with pytest.raises(InputError) as raised:
        load_files(str(table), labels="intervals", intervals=str(marks))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def load(path: Path, text: str, **named: Any) -> list[Series]:
    path.write_text(text)
    return load_files(str(path), labels="injected", **named).series


def test_a_comma_at_the_end_of_every_row_is_ignored(tmp_path: Path) -> None:
    rows = [f"{1_700_000_000 + 60 * i},{i / 10}" for i in range(99)]
    (plain,) = load(tmp_path / "a.csv", "\n".join(["timestamp,value", *rows]))
    (behind,) = load(tmp_path / "a.csv", ",\n".join(["timestamp,value", *rows]).replace("value,", "value") + ",\n")
    np.testing.assert_array_equal(plain.values, behind.values)
    np.testing.assert_array_equal(plain.timestamps, behind.timestamps)


@pytest.mark.parametrize("padding", range(0, 28, 2))
def test_a_number_cut_at_the_end_of_the_sniffed_bytes_does_not_count(tmp_path: Path, padding: int) -> None:
    rows = "".join(f'2024-01-01 00:00:00,"{1 + i % 9},{i % 900 + 100}"\n' for i in range(3000))
    (series,) = load(tmp_path / "a.csv", f"time,count{padding * 'x'}\n{rows}")
    assert series.values[:2].tolist() == [1100, 2101]


def test_columns_of_text_do_not_reveal_the_decimal_sign(tmp_path: Path) -> None:
    (series,) = load(tmp_path / "a.csv", 'v,note\n"1,234",x\n"2,345","1,5"\n"3,000",y\n')
    assert series.values.tolist() == [1234, 2345, 3000]


@pytest.mark.parametrize(("late", "value"), [("1,25", 1.25), ("1.250,5", 1250.5), ("1,250.5", 1250.5), ("1.25", 1.25)])
def test_a_late_number_can_reveal_the_decimal_sign(tmp_path: Path, late: str, value: float) -> None:
    first, second = load(tmp_path / "a.csv", "a;b\n" + "10;1\n" * 20_000 + f"{late};2\n")
    assert first.values[[0, -1]].tolist() == [10, value] and second.values[-1] == 2


def test_a_named_value_column_is_not_the_time(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=9).astype(str)
    text = "stamp,ts\n" + "".join(f"{day},{20 + i / 10}\n" for i, day in enumerate(days))
    (series,) = load(tmp_path / "a.csv", text, value_columns=("ts",))
    assert series.values[1] == 20.1 and str(series.timestamps[0])[:10] == "2024-01-01"


def test_files_of_the_same_name_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"p": [1.0, 2.0]}).to_csv(tmp_path / "m.csv")
    pd.DataFrame({"r": [1.0, 2.0]}).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(InputError, match="two files are named 'm'"):
        load_files(str(tmp_path), labels="injected")


def test_a_link_to_its_own_folder_is_ignored(tmp_path: Path) -> None:
    load(tmp_path / "a.csv", "v\n1\n2.5\n")
    (tmp_path / "latest").symlink_to(tmp_path)
    assert [series.name for series in load_files(str(tmp_path), labels="injected").series] == ["a"]


# Through the command line


def test_scoring_prefers_the_columns_named_in_training(spear: Spear, tmp_path: Path) -> None:
    table = big(tmp_path / "t.csv")
    frame = pd.read_csv(table).rename(columns={"label": "fault"})
    frame.assign(extra=1.5).to_csv(table, index=False)
    named = {"data.dir": table, "data.label_column": "fault", "data.value_columns": "t1,t2"}
    assert spear(*command("files:debug", QUICK | named, workdir=tmp_path / "run")).code == 0
    score = ("--mode=score", f"--detector={tmp_path / 'run'}", f"--input={table}")
    assert spear(*score, f"--workdir={tmp_path / 'o'}").code == 0
    assert set(pd.read_parquet(tmp_path / "o" / "scores.parquet")["series"]) == {"t/t1", "t/t2"}
    frame.drop(columns=["fault", "t2"]).to_csv(tmp_path / "new.csv", index=False)
    outcome = spear(*score[:2], f"--input={tmp_path / 'new.csv'}", f"--workdir={tmp_path / 'n'}")
    check_refusal(outcome, "new.csv: no column 't2' (data.value_columns); found t1")


def test_another_column_in_a_file_of_the_same_name_has_its_own_scale(spear: Spear, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    frame = pd.read_csv(big(tmp_path / "a" / "export.csv"))
    frame[["t1", "label"]].rename(columns={"t1": "pressure"}).to_csv(tmp_path / "a" / "export.csv", index=False)
    (4000 + 9 * frame[["t1"]]).rename(columns={"t1": "temp"}).to_csv(tmp_path / "b" / "export.csv", index=False)
    fields = QUICK | {"data.dir": tmp_path / "a" / "export.csv"}
    assert spear(*command("files:debug", fields, workdir=tmp_path / "run")).code == 0
    score = ("--mode=score", f"--detector={tmp_path / 'run'}")
    for folder, message in (("a", "scaled as in training: export"), ("b", "scaled by their own first")):
        outcome = spear(*score, f"--input={tmp_path / folder / 'export.csv'}", f"--workdir={tmp_path / folder / 'o'}")
        assert message in outcome.out, outcome.err


@pytest.mark.parametrize("where", ["https://example.org/t.csv", "foo://x"])
def test_other_urls_are_refused(spear: Spear, tmp_path: Path, where: str) -> None:
    message = f"{where} must be a local path or begin with gs://"
    score = ("--mode=score", f"--workdir={tmp_path / 'o'}")
    check_refusal(spear(*score, "--detector=run", f"--input={where}"), f"--input={message}")
    check_refusal(spear(*score, f"--detector={where}", "--input=t.csv"), f"--detector={message}")
    check_refusal(spear(*command("files:debug", {"data.dir": where}, mode="preview")), f"config.data.dir={message}")


def test_own_files_need_no_preparation(spear: Spear, tmp_path: Path) -> None:
    outcome = spear(*command("files:debug", {"data.dir": tmp_path}, mode="prepare"))
    assert outcome.code == 0 and "there is nothing to prepare" in outcome.out


def big(path: Path, rows: int = 1600) -> Path:
    rng = np.random.default_rng(1)
    step = np.arange(rows)
    labels = step % 200 > 180
    values = np.sin(step / 6) + rng.normal(0, 0.1, rows) + 2 * labels
    pd.DataFrame({"t1": values, "t2": values[::-1], "label": labels.astype(int)}).to_csv(path, index=False)
    return path


QUICK = {
    "controls.head_only": "false",
    "data.window": "32",
    "data.stride": "32",
    "data.gap": "0",
    "prompt.length": "4",
    "train.batch_size": "8",
    "train.epochs": "1",
    "score.batch_size": "8",
}


def test_own_file_from_preview_to_scores(spear: Spear, tmp_path: Path) -> None:
    table = big(tmp_path / "telemetry.csv")
    shown = spear(*command("files:debug", QUICK | {"data.dir": table}, mode="preview"))
    assert shown.code == 0, shown.err
    assert "2 series, 3,200 steps" in shown.out
    assert "telemetry/t1" in shown.out and "0.0950" in shown.out
    assert "train: 2 series" in shown.out

    run = tmp_path / "run"
    trained = spear(*command("files:debug", QUICK | {"data.dir": table, "data.combine": "max"}, workdir=run))
    assert trained.code == 0, trained.err
    content = results(run)
    assert content["dataset"] == "files"
    tables = pd.read_parquet(run / "scores" / "test.parquet")
    assert len(tables) == 320  # one score per row, not per column
    assert not tables.duplicated(["series", "step"]).any()
    assert tables["series"].unique().tolist() == ["telemetry"] and content["splits"]["test"]["series"] == 1
    assert pd.read_parquet(run / "per_series.parquet")["series"].unique().tolist() == ["telemetry"]
    page = (run / "report.html").read_text()
    assert "Test split: 1 series, 320 steps" in page and "1 of 1 series" in page and "the first column" in page

    score = ("--mode=score", f"--detector={run}", f"--input={table}")
    scored = spear(*score, f"--workdir={tmp_path / 'combined'}")
    assert "1,600 rows of 1 series scored" in scored.out  # as in training
    scored = spear(*score, f"--workdir={tmp_path / 'scored'}", "--config.data.combine=none")
    assert scored.code == 0, scored.err
    assert "1,600 rows of 2 series scored" in scored.out
    loaded = pd.read_parquet(tmp_path / "scored" / "scores.parquet")
    assert list(loaded.columns) == ["series", "step", "timestamp", "value", "score", "predicted"]
    assert loaded.groupby("series").size().to_dict() == {"telemetry/t1": 1600, "telemetry/t2": 1600}


def test_remarks_come_before_a_refused_split(spear: Spear, tmp_path: Path) -> None:
    frame().assign(pump=1.5).to_csv(tmp_path / "own.csv", index=False)
    shown = spear(*command("files:debug", {"data.dir": tmp_path / "own.csv", "data.window": "128"}, mode="preview"))
    assert "column 'pump' is constant (1.5)" in shown.out
    assert shown.code == 2 and shown.err.startswith("error: data.split='time'")


def test_without_labels_the_error_names_the_choices(spear: Spear, tmp_path: Path) -> None:
    table = big(tmp_path / "telemetry.csv")
    pd.read_csv(table).drop(columns="label").to_csv(table, index=False)
    arguments = command("files:debug", QUICK | {"data.dir": table}, workdir=tmp_path / "run")
    check_refusal(spear(*arguments), "no label column", "data.labels=rules", "data.labels=injected", "data.intervals")
    assert not (tmp_path / "run").exists()
    shown = spear(*command("files:debug", QUICK | {"data.dir": table}, mode="preview"))
    assert shown.code == 2 and "no label column" in shown.err and "--config.data.label_column" in shown.err
    assert "3,200 steps" in shown.out and "telemetry/t1" in shown.out and "no labels" in shown.out
    outcome = spear(
        *command("files:debug", QUICK | {"data.dir": table, "data.labels": "rules"}, workdir=tmp_path / "run")
    )
    assert outcome.code == 0, outcome.err
    check_scores(tmp_path / "run")
