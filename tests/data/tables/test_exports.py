"""Files as tools export them: roles of columns, values and times, or the line that says what to do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from own_files import load_files, load_text, roles

from spear_jax.config import default_config, missing_values
from spear_jax.data.tables.arrays import read_labelled
from spear_jax.data.tables.table_options import TableOptions
from spear_jax.errors import InputError

ROWS = 48
TIMES = pd.date_range("2024-03-25 08:00", periods=ROWS, freq="min")
VALUES = np.random.default_rng(0).normal(20, 3, ROWS).round(2)
LABELS = (np.arange(ROWS) % 16 > 13).astype(int)


def lines(path: Path, *texts: str) -> Path:
    path.write_text("\n".join(texts) + "\n")
    return path


def german(value: float) -> str:
    return f"{value:.2f}".replace(".", ",")


def rows(form: Callable[[pd.Timestamp, float, int], str]) -> list[str]:
    return [form(*row) for row in zip(TIMES, VALUES.tolist(), LABELS.tolist(), strict=True)]


def write_polars(root: Path) -> Path:
    pl.DataFrame({"at": TIMES, "v": VALUES}).write_parquet(root / "x.parquet")
    return root / "x.parquet"


# Each writes a file and returns it, with the column of times and those of values.
EXPORTS: dict[str, tuple[Callable[[Path], Path], str, list[str]]] = {
    "Grafana": (
        lambda root: lines(
            root / "x.csv",
            'sep=,\n"Time","cpu {host=""a"", mode=""user""}"',
            *rows(lambda t, v, _: f"{t},{v}"),
        ),
        "Time",
        ['cpu {host="a", mode="user"}'],
    ),
    "Grafana, milliseconds": (
        lambda root: lines(root / "x.csv", "Time,value", *rows(lambda t, v, _: f"{t.value // 10**6},{v}")),
        "Time",
        ["value"],
    ),
    "InfluxDB, annotated": (
        lambda root: lines(
            root / "x.csv",
            "#group,false,false,true,true,false,false,true",
            "#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,dateTime:RFC3339,double,string",
            "#default,_result,,,,,,",
            ",result,table,_start,_stop,_time,_value,_field",
            *rows(lambda t, v, _: f",,0,2024-03-25T00:00:00Z,2024-03-26T00:00:00Z,{t.isoformat()}Z,{v},temp"),
        ),
        "_time",
        ["_value"],
    ),
    "InfluxDB, pivoted": (
        lambda root: lines(root / "x.csv", "_time,inside,host", *rows(lambda t, v, _: f"{t.isoformat()}Z,{v},a")),
        "_time",
        ["inside"],
    ),
    "CloudWatch": (
        lambda root: lines(
            root / "x.csv", "Timestamp,CPUUtilization (%)", *rows(lambda t, v, _: f"{t:%Y/%m/%d %H:%M:%S},{v}")
        ),
        "Timestamp",
        ["CPUUtilization (%)"],
    ),
    "TSB-AD": (lambda root: lines(root / "x.csv", "Data,Label", *rows(lambda _, v, y: f"{v},{y}")), "", ["Data"]),
    "Yahoo S5": (
        lambda root: lines(
            root / "x.csv",
            "timestamps,value,anomaly,changepoint,trend",
            *rows(lambda t, v, y: f"{t.value // 10**9},{v},{y},0,{v / 2}"),
        ),
        "timestamps",
        ["value", "trend"],
    ),
    "SKAB": (
        lambda root: lines(
            root / "x.csv", "datetime;Current;anomaly;changepoint", *rows(lambda t, v, y: f"{t};{v};{y}.0;{y}.0")
        ),
        "datetime",
        ["Current"],
    ),
    "SWaT": (
        lambda root: lines(
            root / "x.csv",
            ",P1,,",
            " Timestamp,FIT101, MV101,Normal/Attack",
            *rows(lambda t, v, y: f" {t:%d/%m/%Y %I:%M:%S %p},{v},{2 - y % 2 + int(v)},{('Normal', 'A ttack')[y]}"),
        ),
        "Timestamp",
        ["FIT101", "MV101"],
    ),
    "HAI": (
        lambda root: lines(
            root / "x.csv", "time;P1_B2;attack;attack_P1;attack_P2", *rows(lambda t, v, y: f"{t};{v};{y};{y};0")
        ),
        "time",
        ["P1_B2"],
    ),
    "Home Assistant": (
        lambda root: lines(
            root / "x.csv",
            "entity_id,state,last_changed",
            *rows(lambda t, v, _: f"sensor.temp,{v},{t.isoformat()}.123Z"),
        ),
        "last_changed",
        ["state"],
    ),
    "Excel, German": (
        lambda root: lines(
            root / "x.csv", "sep=;\nDatum;Leistung [kW]", *rows(lambda t, v, _: f"{t:%d.%m.%Y %H:%M};{german(v)}")
        ),
        "Datum",
        ["Leistung [kW]"],
    ),
    "Excel, English": (
        lambda root: lines(root / "x.csv", "Date,Power", *rows(lambda t, v, _: f'{t:%m/%d/%Y %H:%M},"1,{v:06.2f}"')),
        "Date",
        ["Power"],
    ),
    "a logger": (
        lambda root: lines(root / "x.tsv", "Station 4\n\ntime\tT1", *rows(lambda t, v, _: f"{t},250\t{german(v)}")),
        "time",
        ["T1"],
    ),
    "LabVIEW, with two headers above": (
        lambda root: lines(
            root / "x.txt",
            "LabVIEW Measurement\t",
            "Decimal_Separator\t,",
            "***End_of_Header***\t",
            "\t",
            "Channels\t1\t",
            "Time\t10:11:12,5\t",
            "Delta_X\t0,1\t",
            "***End_of_Header***\t\t",
            "X_Value\tVoltage\tComment",
            *(f"{german(number / 4)}\t{german(value)}\t" for number, value in enumerate(VALUES)),
        ),
        "",
        ["Voltage"],
    ),
    "a program in .NET": (
        lambda root: lines(
            root / "x.csv",
            "Ticks;Druck;IsAnomaly",
            *rows(lambda t, v, y: f"{621_355_968_000_000_000 + t.value // 100};{german(v)};{bool(y)}"),
        ),
        "Ticks",
        ["Druck"],
    ),
    "a database in German": (
        lambda root: lines(
            root / "x.csv",
            "Zeitpunkt;Druck;Anomalie",
            *rows(lambda t, v, y: f"{t:%d.%m.%Y %H:%M:%S};{german(v)};{('nein', 'ja')[y]}"),
        ),
        "Zeitpunkt",
        ["Druck"],
    ),
    "pandas": (
        lambda root: (
            pd.DataFrame({"at": TIMES, "v": VALUES}).to_csv(root / "x.csv"),
            root / "x.csv",
        )[1],
        "at",
        ["v"],
    ),
    "polars": (write_polars, "at", ["v"]),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_are_read(tmp_path: Path, name: str) -> None:
    write, time, columns = EXPORTS[name]
    loaded = load_files(write(tmp_path), labels="injected")
    assert [series.column for series in loaded.series] == columns
    scale = 1000 if name == "Excel, English" else 0
    np.testing.assert_allclose(loaded.series[0].values, scale + VALUES)
    if time:
        assert roles(loaded)[time] == "time"
        np.testing.assert_array_equal(
            loaded.series[0].timestamps.astype("datetime64[m]"), TIMES.to_numpy("datetime64[m]")
        )
    if "label" in roles(loaded).values():
        np.testing.assert_array_equal(loaded.series[0].labels, LABELS == 1)


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "a workbook": ("x.xlsx", b"PK\x03\x04", "save the sheet as CSV"),
    "Prometheus": ("x.json", b'{"status": "success"}', "not a CSV or Parquet file"),
    "UCR": ("007_UCR_Anomaly_x_40_50_60.txt", b" 1.0e0  2.0e0  3.0e0  4.0e0 5.0e0\n", "no header line"),
    "SMD": ("machine-1-1.txt", b"0.1,0.2,0.3\n0.2,0.3,0.4\n0.3,0.4,0.5\n", "expected a header line"),
    "Git LFS": ("x.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "CloudWatch, with rows that describe columns": (
        "x.csv",
        b"Full label,CPU i-0a1\nLabel,i-0a1\nRegion,eu\nPeriod,300\n"
        + b"".join(b"2024/03/25 08:%02d:00,%d.5\n" % (n, n) for n in range(9)),
        "rows that describe the columns must be deleted",
    ),
    "a log with commas in its times": (
        "x.csv",
        b"time,latency\n" + b"".join(b"2024-03-25 08:00:%02d,123,%d.5\n" % (n, n) for n in range(9)),
        "a cell that contains the delimiter must be in quotes",
    ),
    "a longer row": (
        "x.csv",
        b"time,v\n1,2.5\n2,3.5\n3,4.5,7\n",
        "a cell that contains the delimiter must be in quotes",
    ),
    "a historian": (
        "x.csv",
        b"Tag,Timestamp,Value\n"
        + b"".join(b"A,2024-03-25 08:%02d,%s\n" % (n, b"Bad" if n == 30 else b"1.5") for n in range(40)),
        "'Bad' is not a number; data.missing_values names words",
    ),
    "Exathlon": ("x.csv", b"t,machine_id,v\n1,a,1.5\n2,a,2.5\n1,b,3.5\n2,b,4.5\n", "tells series apart"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_exports_are_refused_in_a_short_line(tmp_path: Path, name: str) -> None:
    file, content, message = REFUSED[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError) as raised:
        load_files(tmp_path / file, labels="injected")
    assert message in str(raised.value)
    assert len(str(raised.value).replace(str(tmp_path), "")) <= 300


HISTORIAN = "Tag;Timestamp;Value;Quality\n" + "".join(
    f"{tag};2024-03-25 08:{minute:02d};{value};{'Good' if minute % 9 else 'Bad'}\n"
    for minute in range(40)
    for tag, value in (
        ("FIC.PV", f"{minute % 7 + 0.25} kg" if minute % 9 else "Bad"),
        ("TIC.PV", "I/O Timeout" if minute < 25 else f"{minute % 5 + 0.5} kg"),
    )
)


def test_words_stand_for_missing_values(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(HISTORIAN)
    loaded = load_files(
        tmp_path / "x.csv", labels="injected", series_column="Tag", missing_words=("Bad", "I/O Timeout")
    )
    values = {series.name: series.values.tolist() for series in loaded.series}
    nan = np.nan
    assert values.keys() == {"FIC.PV", "TIC.PV"}
    np.testing.assert_array_equal(values["FIC.PV"], [m % 7 + 0.25 if m % 9 else nan for m in range(40)])
    np.testing.assert_array_equal(values["TIC.PV"], [nan] * 25 + [m % 5 + 0.5 for m in range(25, 40)])


def test_words_and_numbers_are_named_together() -> None:
    config = default_config()
    config.data.missing_values = "-9999,Bad,I/O Timeout,--"
    assert missing_values(config.data) == ((-9999,), ("Bad", "I/O Timeout", "--"))
    config.data.missing_values = "-9999;-1"
    with pytest.raises(InputError, match="must be numbers or words, separated by commas"):
        missing_values(config.data)


def test_a_frame_is_read_without_words_for_missing_values() -> None:
    frame = pd.DataFrame({"v": ["1.5", "Bad", "2.5", "3.5"], "w": [1.5, 2.0, 4.0, 3.0]})
    read = read_labelled(frame, None, TableOptions(missing_words=("Bad",)))
    np.testing.assert_array_equal(read.series[0].values, [1.5, np.nan, 2.5, 3.5])


def test_days_since_1900_are_said(tmp_path: Path) -> None:
    text = "Date,v\n" + "".join(f"{45717 + hour / 24:.5f},{hour % 7 + 0.5}\n" for hour in range(40))
    assert "days since 1900, as in Excel" in " ".join(load_text(tmp_path / "x.csv", text).warnings)
    text = "elapsed,v\n" + "".join(f"{second},{second % 7 + 0.5}\n" for second in range(40))
    assert "Excel" not in " ".join(load_text(tmp_path / "x.csv", text).warnings)


def test_a_table_of_a_row_per_sensor_is_judged_by_the_rows_of_one(tmp_path: Path) -> None:
    rows = "".join(f"{n / 4},{sensor},{n % 7 + 0.5}\n" for n in range(40) for sensor in "ab")
    (first, second) = load_text(tmp_path / "x.csv", "X_Value,sensor,v\n" + rows, series_column="sensor").series
    assert (first.name, first.column, second.name) == ("a", "v", "b")
