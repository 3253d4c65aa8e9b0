"""Long tables, a row per series and time, are read as a file per series would be: files, live rows and frames."""

import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, Spear, command
from own_files import load_files, roles

from spear_jax import SpearDetector
from spear_jax.errors import InputError

ROWS = 80
MACHINES = ("01", "1", "pump/a")


def machine(number: int) -> pd.DataFrame:
    rng = np.random.default_rng(number)
    return pd.DataFrame(
        {
            "time": pd.date_range("2024-01-01", periods=ROWS, freq=f"{number + 1}min"),
            "pressure": np.cumsum(rng.normal(size=ROWS)).round(3) + 10 * number,
            "flow": rng.normal(size=ROWS).round(3),
            "label": (np.arange(ROWS) % 20 > 16).astype(int),
        }
    )


@pytest.fixture(params=["below", "by time"])
def long(request: pytest.FixtureRequest) -> pd.DataFrame:
    frame = pd.concat([machine(i).assign(machine=name) for i, name in enumerate(MACHINES)], ignore_index=True)
    return frame if request.param == "below" else frame.sort_values("time", kind="stable", ignore_index=True)


@pytest.fixture
def separate(tmp_path: Path) -> Path:
    """A folder with a file for each machine."""
    for i, name in enumerate(MACHINES):
        path = tmp_path / "separate" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        machine(i).to_csv(path, index=False)
    return tmp_path / "separate"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("columns", [["pressure"], ["pressure", "flow"]], ids=["one", "two"])
def test_a_long_file_is_a_folder_of_files(
    tmp_path: Path, long: pd.DataFrame, separate: Path, suffix: str, columns: list[str]
) -> None:
    path = tmp_path / f"long.{suffix}"
    long.to_csv(path, index=False) if suffix == "csv" else long.to_parquet(path)
    expected = {series.name: series for series in load_files(separate, value_columns=columns).series}
    loaded = load_files(path, value_columns=columns, series_column="machine")
    assert {series.name for series in loaded.series} == expected.keys()
    for series in loaded.series:
        other = expected[series.name]
        np.testing.assert_array_equal(series.values, other.values)
        np.testing.assert_array_equal(series.labels, other.labels)
        np.testing.assert_array_equal(series.timestamps, other.timestamps)
        assert (series.group, series.column) == (other.group, other.column)
    assert roles(loaded)["machine"] == "series"
    assert not any("back" in warning or "twice" in warning or "gap" in warning for warning in loaded.warnings)


def test_intervals_name_series_of_a_long_table(tmp_path: Path, long: pd.DataFrame) -> None:
    long.drop(columns="label").to_csv(tmp_path / "long.csv", index=False)
    (tmp_path / "marks.csv").write_text("series,start,end\n01,2024-01-01 00:10,2024-01-01 00:12\npump/a,3,4\n")
    loaded = load_files(
        tmp_path / "long.csv",
        labels="intervals",
        intervals=str(tmp_path / "marks.csv"),
        value_columns=["flow"],
        series_column="machine",
    )
    rows = {series.name: np.flatnonzero(series.labels).tolist() for series in loaded.series}
    # Numbers are rows of the series, whose times lie in our time.
    assert rows == {"01": [10, 11, 12], "1": [], "pump/a": [3, 4]}


def test_a_row_of_no_series_is_refused(tmp_path: Path, long: pd.DataFrame) -> None:
    long.loc[7, "machine"] = None
    long.to_csv(tmp_path / "long.csv", index=False)
    with pytest.raises(InputError, match=r"row 8, column 'machine' \(data.series_column\): names no series"):
        load_files(tmp_path / "long.csv", series_column="machine")


def test_the_refusal_names_the_field(tmp_path: Path) -> None:
    frame = pd.concat([machine(i).assign(machine=f"m{i}") for i in range(2)])
    frame.to_csv(tmp_path / "long.csv", index=False)
    with pytest.raises(InputError, match="series_column=machine reads each as a series"):
        load_files(tmp_path / "long.csv")
    with pytest.raises(InputError, match=r"no column .device. \(data\.series_column\)"):
        load_files(tmp_path / "long.csv", series_column="device")
    two = frame.assign(sensor=np.repeat(["a", "b"], ROWS // 2).tolist() * 2, time=frame["time"].min())
    two.to_csv(tmp_path / "two.csv", index=False)
    with pytest.raises(InputError, match="column 'sensor' tells series apart"):
        load_files(tmp_path / "two.csv", series_column="machine")


@pytest.mark.one_python
@pytest.mark.parametrize("long", ["by time"], indirect=True)
def test_scores_are_those_of_separate_files(
    spear: Spear, tmp_path: Path, long: pd.DataFrame, separate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long.to_csv(tmp_path / "long.csv", index=False)
    fields = TINY | {"train.epochs": 1, "data.dir": tmp_path / "long.csv", "data.series_column": "machine"}
    trained = spear(*command("files:debug", fields, workdir=tmp_path / "run"))
    assert trained.code == 0, trained.err
    score = (
        "--mode=score",
        f"--detector={tmp_path / 'run'}",
        "--config.score.stride=32",
        "--config.score.overlap=first",
    )
    tables = {}
    for name, source, more in (
        ("long", tmp_path / "long.csv", ()),
        ("separate", separate, ("--config.data.series_column=",)),
    ):
        outcome = spear(*score, *more, f"--input={source}", f"--workdir={tmp_path / name}_scores")
        assert outcome.code == 0, outcome.err
        frame = pd.read_parquet(tmp_path / f"{name}_scores" / "scores.parquet")
        tables[name] = frame.sort_values(["series", "step"], ignore_index=True)
    pd.testing.assert_frame_equal(tables["long"], tables["separate"], atol=1e-6)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.FileIO(tmp_path / "long.csv"))))
    live = spear(*score, "--input=-")
    assert live.code == 0, live.err
    frame = pd.read_csv(io.StringIO(live.out), dtype={"series": str}).sort_values(["series", "step"], ignore_index=True)
    assert frame["series"].tolist() == tables["long"]["series"].tolist()
    np.testing.assert_allclose(frame["score"], tables["long"]["score"], atol=1e-5)


@pytest.mark.one_python
@pytest.mark.parametrize("long", ["by time"], indirect=True)
def test_each_row_of_a_long_frame_gets_a_score(long: pd.DataFrame, spear: Spear) -> None:
    detector = SpearDetector(
        "random:tiny", series_column="machine", window=32, prompt_length=4, epochs=1, batch_size=8, verbose=False
    )
    detector.fit(long.drop(columns="label"), long["label"])
    scores = detector.decision_function(long)
    assert scores.shape == (len(long),) and detector.decision_scores_.shape == (len(long),)
    np.testing.assert_allclose(scores, detector.decision_scores_, atol=1e-6)
    for name in MACHINES:
        own = (long["machine"] == name).to_numpy()
        np.testing.assert_allclose(detector.decision_function(long[own]), scores[own], atol=1e-6)
    assert set(detector.intervals(long)["series"]) <= set(MACHINES)
    with pytest.raises(InputError, match=r"no column .machine. \(series_column\)"):
        detector.decision_function(long.drop(columns="machine"))
