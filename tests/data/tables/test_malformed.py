"""Own files that cannot be used are refused in one line."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
from own_files import frame, load_files, written

from spear_jax.errors import InputError


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return written(tmp_path / "own.csv")


def rewrite(old: str, new: str) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return damage


ROW_7 = "2024-03-01 00:30:00"


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
        "own.csv: cannot be read as CSV (rows have more fields than there are column names; a cell that contains",
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
        "own.csv: row 18, column 'label': label is 2; allowed: 0 and 1, false and true, no and yes",
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
    "spaces between cells": (
        lambda path: path.write_text("time  v  w\n" + "0.5  1.5  2\n" * 9),
        "own.csv: has spaces between its cells; allowed: a comma",
    ),
    "words in a first row without names": (
        lambda path: path.write_text("".join(f"{n}.5,{n % 4},ok\n" for n in range(9))),
        "own.csv: row 1 is '0.5,0,ok'; expected a header line",
    ),
    "times in a first row without names": (
        lambda path: path.write_text(
            "".join(f"2024-03-0{n},{n}.5,{'start' if n < 2 else 'ok'}\n" for n in range(1, 9))
        ),
        "own.csv: row 1 is '2024-03-01,1.5,start'; expected a header line",
    ),
    "a column per time": (
        lambda path: path.write_text(
            ",".join(["sensor", *(f"2024-03-{day}" for day in range(10, 30))])
            + "\na"
            + ",1.5" * 20
            + "\nb"
            + ",2.5" * 20
        ),
        "own.csv: has a column for each of 20 times; write a row for each time",
    ),
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
        ({"labels": "intervals", "intervals": "nowhere.csv"}, "nowhere.csv: cannot be read"),
    ],
)
def test_missing_columns_are_refused(table: Path, arguments: dict, message: str) -> None:
    with pytest.raises(InputError) as raised:
        load_files(str(table), **arguments)
    assert message in str(raised.value)
