"""Units beside numbers, and in a row of their own, are left off and said, or the line is refused."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from own_files import load_text

from spear_jax.data.tables.arrays import read_array
from spear_jax.data.tables.columns import Columns
from spear_jax.data.tables.live import LiveTable
from spear_jax.data.tables.table_options import TableOptions
from spear_jax.errors import InputError

ROWS = 30


def table(header: str, row: Callable[[int], str]) -> str:
    return "\n".join([header, *map(row, range(ROWS))]) + "\n"


def read_live(text: str, *trained: str) -> tuple[list[str], np.ndarray, list[str]]:
    """Reads a table as live rows; returns the columns of values, the values, and what is said."""
    said: list[str] = []

    class Pieces(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 1, 7))

    (path := Path("live.csv")).write_text(text)
    live = LiveTable(Pieces(path), said.append, TableOptions(usual=Columns(values=trained), labelled=False))
    values = np.concatenate([rows.values for rows in live.chunks()])
    assert not live.error
    return list(live.columns.values), values, said


MEASURED: dict[str, tuple[str, str]] = {
    "percent": (
        table("time,load,lat", lambda i: f"2024-01-01 00:{i:02d},{i % 7}.5 %,{i % 5}ms"),
        "% (load), ms (lat)",
    ),
    "German": (table("time;load;lat", lambda i: f"2024-01-01 00:{i:02d};{i % 7},5%;{i % 5}ms"), "% (load), ms (lat)"),
    "fractions": (table("load,lat", lambda i: f"{i % 7}.5 km/h,{i % 5} °C"), "km/h (load), °C (lat)"),
    "tab": (table("load\tlat", lambda i: f"{i % 7},5 m³/s\t{i % 5} µm"), "m³/s (load), µm (lat)"),
}


@pytest.mark.parametrize("name", MEASURED)
def test_units_are_left_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    text, units = MEASURED[name]
    meant = np.stack([np.arange(ROWS) % 7 + 0.5, np.arange(ROWS) % 5], axis=1)
    loaded = load_text(tmp_path / "own.csv", text)
    assert [series.column for series in loaded.series] == ["load", "lat"]
    np.testing.assert_array_equal(np.stack([series.values for series in loaded.series], axis=1), meant)
    assert f"units that are left off: {units}" in " ".join(loaded.warnings)
    columns, values, said = read_live(text)
    assert columns == ["load", "lat"] and units in " ".join(said)
    np.testing.assert_array_equal(values, meant)
    delimiter = next(sign for sign in ";\t," if sign in text)
    frame = read_array(pd.read_csv(tmp_path / "own.csv", sep=delimiter), "series", TableOptions())
    np.testing.assert_array_equal(frame.values, meant)


def test_cells_in_several_units_are_left_out_or_refused(tmp_path: Path) -> None:
    text = table("load,lat", lambda i: f"{i % 7},{i % 5} {'ms' if i < 20 else 's'}")
    loaded = load_text(tmp_path / "own.csv", text)
    assert [series.column for series in loaded.series] == ["load"] and "lat (text, such as '0 ms')" in loaded.warnings[
        0
    ]
    with pytest.raises(InputError, match="row 1, column 'lat': '0 ms' is not a number"):
        load_text(tmp_path / "own.csv", text, value_columns=("lat",))
    late = "load,lat\n" + "".join(f"{i % 7},{i % 5} {'ms' if i < 1200 else 's'}\n" for i in range(1300))
    with pytest.raises(InputError, match="row 1201, column 'lat': '0 s' is not in 'ms'"):
        load_text(tmp_path / "own.csv", late)


def test_codes_are_no_numbers(tmp_path: Path) -> None:
    loaded = load_text(tmp_path / "own.csv", table("load,code", lambda i: f"{i % 7},{i % 9}{'AB'[i % 2]}"))
    assert [series.column for series in loaded.series] == ["load"]


UNIT_ROWS = {
    "some": (",bar,l/s", "bar, l/s"),
    "all": ("UTC,bar,l/s", "UTC, bar, l/s"),
    "in brackets": (",[bar],[l / s]", "[bar], [l / s]"),
}


@pytest.mark.parametrize("name", UNIT_ROWS)
def test_a_row_of_units_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    line, units = UNIT_ROWS[name]
    text = table(f"time,pressure,flow\n{line}", lambda i: f"2024-01-01 00:{i:02d},{i % 7}.5,{i % 5}")
    loaded = load_text(tmp_path / "own.csv", "# logger 4\n\n" + text)
    assert [series.values.tolist() for series in loaded.series] == [
        [i % 7 + 0.5 for i in range(ROWS)],
        [i % 5 for i in range(ROWS)],
    ]
    assert f"the row of units below the header is left out ({units})" in " ".join(loaded.warnings)
    _, values, said = read_live(text)
    assert values.tolist() == [[i % 7 + 0.5, i % 5] for i in range(ROWS)] and units in " ".join(said)


@pytest.mark.parametrize("first", ["NaN,n/a", ",", "null,null"])
def test_a_row_without_values_is_no_row_of_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    monkeypatch.chdir(tmp_path)
    text = table(f"pressure,flow\n{first}", lambda i: f"{i % 7}.5,{i % 5}")
    assert [len(series) for series in load_text(tmp_path / "own.csv", text).series] == [ROWS + 1] * 2
    assert len(read_live(text, "pressure", "flow")[1]) == ROWS + 1


def test_a_first_row_of_words_is_refused(tmp_path: Path) -> None:
    text = table("pressure,state\nfailed,RUN", lambda i: f"{i % 7}.5,RUN")
    with pytest.raises(InputError, match="row 1, column 'pressure': 'failed' is not a number"):
        load_text(tmp_path / "own.csv", text)
