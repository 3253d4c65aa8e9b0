"""Intervals: rows are anomalous by their own number or time, and what can be read in two ways is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from own_files import load_files, written

from spear_jax.errors import InputError

ROWS = 240
MINUTES = pd.date_range("2024-01-01", periods=ROWS, freq="min")
HOUR = "start,end\n2024-01-01 01:00,2024-01-01 01:09\n"  # rows 60 to 69


def label(tmp_path: Path, times: Any, intervals: str, **options: Any) -> tuple[np.ndarray, str]:
    """Returns the numbers of the anomalous rows, and what was said."""
    values = np.random.default_rng(0).normal(size=len(times)).round(3)
    pd.DataFrame({"time": times, "value": values}).to_csv(tmp_path / "own.csv", index=False)
    (tmp_path / "marks.csv").write_text(intervals)
    loaded = load_files(tmp_path / "own.csv", labels="intervals", intervals=str(tmp_path / "marks.csv"), **options)
    return np.flatnonzero(loaded.series[0].labels), " ".join(loaded.warnings)


ORDERS = {
    "as recorded": np.arange(ROWS),
    "newest first": np.arange(ROWS)[::-1],
    "one row late": np.r_[0:61, 62:200, 61, 200:ROWS],
    "two blocks": np.r_[120:ROWS, 0:120],
    "shuffled": np.random.default_rng(3).permutation(ROWS),
}


@pytest.mark.parametrize("order", ORDERS)
def test_rows_are_labelled_by_their_own_times(tmp_path: Path, order: str) -> None:
    rows, said = label(tmp_path, MINUTES[ORDERS[order]], HOUR)
    assert sorted(ORDERS[order][rows]) == list(range(60, 70))
    assert ("back" in said) == (order != "as recorded")


@pytest.mark.parametrize("minutes", [30, 60])
def test_an_interval_in_an_hour_that_comes_twice_is_refused(tmp_path: Path, minutes: int) -> None:
    times = MINUTES[:180].append(MINUTES[180 - minutes :])
    with pytest.raises(
        InputError, match=r"row 1: .* twice .clocks go back.; give row numbers, or times with an offset"
    ):
        label(tmp_path, times, "start,end\n2024-01-01 02:20,2024-01-01 02:40\n")
    assert len(label(tmp_path, times, HOUR)[0]) == 10  # it does not touch that hour


@pytest.mark.parametrize(
    ("times", "interval", "rows"),
    [
        (np.arange(ROWS) / 2, "30,34", range(60, 69)),  # seconds
        (np.arange(ROWS) * 10, "300,340", range(30, 35)),
        (1_700_000_000 + 60 * np.arange(ROWS), "1700000300,1700000420", range(5, 8)),
        (1_700_000_000 + 60 * np.arange(ROWS), "5,7", range(5, 8)),  # no such time: rows
        (MINUTES, "5,7", range(5, 8)),
        (MINUTES.tz_localize("UTC"), "1704067500,1704067620", range(5, 8)),
        (np.arange(ROWS) / 2, "30.25,31.2", range(61, 63)),
    ],
)
def test_numbers_follow_the_unit_of_the_times(tmp_path: Path, times: Any, interval: str, rows: range) -> None:
    assert label(tmp_path, times, f"start,end\n{interval}\n")[0].tolist() == list(rows)


@pytest.mark.parametrize(
    ("times", "interval", "message"),
    [
        (np.arange(ROWS) / 2, "130,140", "numbers are times in s, as in the rows, and not row numbers"),
        (np.arange(ROWS) * 60, "30,34", "row numbers are not read beside such times"),
        (MINUTES, "5,2024-01-01 01:00", "is a number and a time; allowed: two row numbers, or two times"),
        (MINUTES, "1704067500,1704067620", "counts from 1970 in UTC, but the rows have no zone"),
        (MINUTES, "2024-01-01 01:00:10,2024-01-01 01:00:50", "the nearest are at 2024-01-01 01:00:00 and .*01:01:00"),
        (MINUTES, "2024-01-01 01:00+02:00,2024-01-01 02:00+02:00", "differ in their offset from UTC"),
        (MINUTES.tz_localize("Europe/Berlin"), "2024-01-01 01:00,2024-01-01 02:00", "differ in their offset from UTC"),
        (MINUTES, "2024-01,2024-01", "is neither a row number nor a time"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(tmp_path: Path, times: Any, interval: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        label(tmp_path, times, f"start,end\n{interval}\n")
    assert len(str(raised.value).split("marks.csv: ")[1]) <= 300


def test_times_with_offsets_agree_whatever_their_zones(tmp_path: Path) -> None:
    berlin = MINUTES.tz_localize("UTC").tz_convert("Europe/Berlin")
    rows, _ = label(tmp_path, berlin, "start,end\n2024-01-01T01:00Z,2023-12-31T20:09-05:00\n")
    assert rows.tolist() == list(range(60, 70))


@pytest.mark.parametrize("end", ["2024-01-05", "5 Jan 2024", "05/01/2024"])
def test_a_date_alone_ends_with_its_day(tmp_path: Path, end: str) -> None:
    hours = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    assert label(tmp_path, hours, f"start,end\n2024-01-04,{end}\n")[0].tolist() == list(range(72, 120))


@pytest.mark.parametrize(
    ("column", "normal", "anomalous"),
    [
        ("class", "normal", "anomaly"),
        ("label", "0", "1"),
        ("Type", "OK", "leak"),
        ("is_anomaly", "False", "True"),
        ("remark", "normal", "valve stuck"),
    ],
)
def test_intervals_of_a_normal_class_do_not_count(tmp_path: Path, column: str, normal: str, anomalous: str) -> None:
    text = f"start,end,{column}\n0,59,{normal}\n60,69,{anomalous}\n70,239,{normal}\n"
    rows, said = label(tmp_path, MINUTES, text)
    assert rows.tolist() == list(range(60, 70))
    assert f"{anomalous.lower()} (1)" in said and f"{normal.lower()} (2)" in said


@pytest.mark.parametrize("named", [True, False])
def test_an_intervals_file_in_the_folder_is_no_series(tmp_path: Path, named: bool) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a", "b"):
        pd.DataFrame({"time": MINUTES, "value": np.sin(np.arange(ROWS))}).to_csv(folder / f"{name}.csv", index=False)
    marks = folder / "marks.csv"
    marks.write_text("series,start,end\na,2024-01-01 01:00,2024-01-01 01:09\nb,3,4\n")
    options = {"labels": "intervals", "intervals": str(marks)} if named else {"labels": "injected"}
    loaded = load_files(folder, **options)
    assert [series.name for series in loaded.series] == ["a", "b"]
    assert any("marks.csv" in warning and "left out" in warning for warning in loaded.warnings)
    with pytest.raises(InputError, match="has intervals"):
        load_files(marks, labels="injected")


@pytest.mark.parametrize("form", ["%Y/%m/%d %H:%M", "%Y%m%dT%H%M", "%d-%b-%Y %H:%M", "%b %d, %Y %H:%M"])
def test_intervals_have_the_form_of_the_rows(tmp_path: Path, form: str) -> None:
    bounds = ",".join(f'"{MINUTES[row].strftime(form)}"' for row in (60, 69))
    rows, _ = label(tmp_path, MINUTES.strftime(form), f"start,end\n{bounds}\n")
    assert rows.tolist() == list(range(60, 70))


@pytest.mark.parametrize("form", ["%Y/%m/%d", "%d.%m.%Y", "%d-%b-%Y"])
def test_a_day_alone_ends_at_midnight_in_any_form(tmp_path: Path, form: str) -> None:
    times = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    texts = times.strftime(f"{form} %H:%M")
    bounds = ",".join(times[row].strftime(form) for row in (48, 72))
    rows, _ = label(tmp_path, texts, f"start,end\n{bounds}\n")
    assert rows.tolist() == list(range(48, 96))


NORMAL_CLASSES = {
    "severity": ("high", "none"),
    "Klasse": ("Fehler", "kein Fehler"),
    "comment": ("pump stopped", "no fault"),
    "what": ("attack 3", "non-attack"),
}


@pytest.mark.parametrize("name", NORMAL_CLASSES)
def test_words_for_no_anomaly_are_known_in_any_column(tmp_path: Path, name: str) -> None:
    bad, good = NORMAL_CLASSES[name]
    text = f"start,end,{name}\n60,69,{bad}\n100,190,{good}\n"
    rows, said = label(tmp_path, MINUTES, text)
    assert rows.tolist() == list(range(60, 70))
    assert bad.lower() in said and good.lower() in said


def test_words_that_come_again_are_said(tmp_path: Path) -> None:
    rows, said = label(tmp_path, MINUTES, "start,end,text\n60,61,leak\n70,71,test\n80,81,test\n")
    assert len(rows) == 6 and "column 'text': intervals of class test (2), leak (1) are anomalies" in said


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return written(tmp_path / "own.csv")


@pytest.mark.parametrize("sign", [",", ";"])
def test_intervals_of_a_column(table: Path, tmp_path: Path, sign: str) -> None:
    (tmp_path / "marks.csv").write_text("series,start,end\nflow,3,5\n".replace(",", sign))
    loaded = load_files(str(table), labels="intervals", intervals=str(tmp_path / "marks.csv")).series
    assert [np.flatnonzero(series.labels).tolist() for series in loaded] == [[], [3, 4, 5]]


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
        ("start,end\n1,2,5\n", "marks.csv: cannot be read as CSV (rows have more fields than there are column names;"),
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
