"""Own files: formats, columns, numbers and folders, and what is remarked on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from own_files import ROWS, check, frame, load_files, load_series, load_text, roles, written

from spear_jax.errors import InputError

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


def test_labels_of_what_is_normal_are_refused(tmp_path: Path) -> None:
    frame().rename(columns={"label": "isNormal"}).to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(InputError, match="'isNormal': its 1 seems to mean normal"):
        load_files(str(tmp_path / "own.csv"), label_column="isNormal")


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
        ("Fehler;1", "row 12, column 'a': 'Fehler' is not a number; data.missing_values names words"),
        ("1.5;1", "'1.5' is not a number"),
    ],
)
def test_a_cell_that_is_not_a_number_is_an_error(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "own.csv").write_text("a;b\n" + "20,5;1\n" * 11 + f"{row}\n" + "20,5;1\n" * 9)
    with pytest.raises(InputError) as raised:
        load_files(str(tmp_path / "own.csv"), labels="rules")
    assert message in str(raised.value)


@pytest.mark.parametrize("above", ["", "# by a program, in 2024\n"])
@pytest.mark.parametrize("sign", ["#", "# "])
def test_the_header_may_be_a_comment(tmp_path: Path, sign: str, above: str) -> None:
    rows = "".join(f"2024-03-01 08:{n:02d};{n % 7},5;ok\n" for n in range(ROWS))
    loaded = load_text(tmp_path / "own.csv", f"{above}{sign}time;v;status\n{rows}")
    assert roles(loaded) == {"time": "time", "v": "value", "status": "left out"}
    assert loaded.series[0].values[:2].tolist() == [0.5, 1.5] and len(loaded.series[0]) == ROWS


def test_a_series_column_in_a_comment_is_text(tmp_path: Path) -> None:
    rows = "".join(f"0{sensor},{n},{n % 7}.5\n" for n in range(ROWS) for sensor in "12")
    loaded = load_text(tmp_path / "own.csv", f"#sensor,time,v\n{rows}", series_column="sensor")
    assert [series.name for series in loaded.series] == ["01", "02"]


def test_a_delimiter_in_quotes_does_not_divide(tmp_path: Path) -> None:
    table = frame().rename(columns={"pump": "pump, bar, left"})
    table.to_csv(tmp_path / "own.csv", index=False, sep=";")
    assert [series.name for series in load_files(str(tmp_path / "own.csv")).series] == [
        "own/pump, bar, left",
        "own/flow",
    ]


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


def test_a_comma_at_the_end_of_every_row_is_ignored(tmp_path: Path) -> None:
    rows = [f"{1_700_000_000 + 60 * i},{i / 10}" for i in range(99)]
    (plain,) = load_series(tmp_path / "a.csv", "\n".join(["timestamp,value", *rows]))
    (behind,) = load_series(
        tmp_path / "a.csv", ",\n".join(["timestamp,value", *rows]).replace("value,", "value") + ",\n"
    )
    np.testing.assert_array_equal(plain.values, behind.values)
    np.testing.assert_array_equal(plain.timestamps, behind.timestamps)


@pytest.mark.parametrize("padding", range(0, 28, 2))
def test_a_number_cut_at_the_end_of_the_sniffed_bytes_does_not_count(tmp_path: Path, padding: int) -> None:
    rows = "".join(f'2024-01-01 00:00:00,"{1 + i % 9},{i % 900 + 100}"\n' for i in range(3000))
    (series,) = load_series(tmp_path / "a.csv", f"time,count{padding * 'x'}\n{rows}")
    assert series.values[:2].tolist() == [1100, 2101]


def test_columns_of_text_do_not_reveal_the_decimal_sign(tmp_path: Path) -> None:
    (series,) = load_series(tmp_path / "a.csv", 'v,note\n"1,234",x\n"2,345","1,5"\n"3,000",y\n')
    assert series.values.tolist() == [1234, 2345, 3000]


@pytest.mark.parametrize(("late", "value"), [("1,25", 1.25), ("1.250,5", 1250.5), ("1,250.5", 1250.5), ("1.25", 1.25)])
def test_a_late_number_can_reveal_the_decimal_sign(tmp_path: Path, late: str, value: float) -> None:
    first, second = load_series(tmp_path / "a.csv", "a;b\n" + "10;1\n" * 20_000 + f"{late};2\n")
    assert first.values[[0, -1]].tolist() == [10, value] and second.values[-1] == 2


def test_files_of_the_same_name_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"p": [1.0, 2.0]}).to_csv(tmp_path / "m.csv")
    pd.DataFrame({"r": [1.0, 2.0]}).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(InputError, match="two files are named 'm'"):
        load_files(str(tmp_path), labels="injected")


def test_a_link_to_its_own_folder_is_ignored(tmp_path: Path) -> None:
    load_series(tmp_path / "a.csv", "v\n1\n2.5\n")
    (tmp_path / "latest").symlink_to(tmp_path)
    assert [series.name for series in load_files(str(tmp_path), labels="injected").series] == ["a"]
