"""Files as tools export them: roles of columns, values and times, or the line that says what to do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from own_files import load_files, roles

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
