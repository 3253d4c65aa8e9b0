"""Intervals: rows are anomalous by their own number or time, and what can be read in two ways is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from own_files import load_files

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
