"""Small inputs that were once read wrongly, see the README beside them: the right value or the refusal."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Outcome, Spear, check_refusal, command, results

from spear_jax import SpearDetector
from spear_jax.errors import InputError

CASES = Path(os.environ.get("SPEAR_DATA_DIR", "/nowhere")).parent / "cases"

pytestmark = [
    pytest.mark.skipif(not CASES.is_dir(), reason="the folder cases is not beside $SPEAR_DATA_DIR"),
    pytest.mark.one_python,
]

SHOWN = {"data.gap": 0, "data.window": 16, "data.stride": 16}
TRAINED = {"data.gap": 0, "data.window": 64, "data.stride": 64, "controls.head_only": "False"}


def preview(spear: Spear, data: str, intervals: str = "", **fields: object) -> Outcome:
    if intervals:
        fields |= {"data.labels": "intervals", "data.intervals": CASES / intervals}
    return spear(*command("files:debug", SHOWN | fields | {"data.dir": CASES / data}, mode="preview"))


PREVIEWS: dict[int, tuple[str, str, dict[str, object], Sequence[str]]] = {
    0: ("rows.csv", "intervals.csv", {}, ["1 series, 240 steps", " 30 anomalous"]),
    1: ("rows_one_late.csv", "intervals.csv", {}, [" 30 anomalous", "1 time stamp steps back"]),
    3: ("rows_every_half_second.csv", "intervals_seconds_whole.csv", {}, [" 18 anomalous", "numbers are times"]),
    4: ("rows.csv", "intervals_with_class.csv", {}, [" 30 anomalous", "anomaly (3)", "normal (4)"]),
    5: ("rows_hourly.csv", "intervals_days.csv", {}, [" 48 anomalous"]),
    6: ("skab_like.csv", "", {}, ["1 series", "left out: changepoint (named like labels"]),
    11: ("trailing_semicolon.csv", "", {}, ["1 series", "left out: Unnamed: 2 (without a name, and empty)"]),
    12: ("time_in_seconds.csv", "", {}, ["1 series", "0.1 s"]),
    13: ("index_that_restarts.csv", "", {}, ["1 series", "left out: Unnamed: 0 (an index)"]),
    14: ("folder_with_incidents", "folder_with_incidents/incidents.csv", {}, ["1 series", " 30 anomalous", "left out"]),
    16: ("dotnet_ticks.csv", "", {}, ["2024-01-01 00:00:00", "60 s", "ticks of .NET"]),
    18: ("legend_semicolon.csv", "", {}, ["1 series, 240 steps", " 30 anomalous"]),
    19: (
        "names_with_commas.csv",
        "",
        {"data.value_columns": '"load{instance=""b"", job=""node""}"'},
        ["1 series", 'left out: load{instance="a", job="node"}'],
    ),
    20: ("comment_lines_first.csv", "", {}, ["1 series, 240 steps", "lines before the header that are left out: 2"]),
}
REFUSALS: dict[int, tuple[str, str, dict[str, object], Sequence[str]]] = {
    2: ("rows_dst.csv", "intervals_dst.csv", {}, ["row 1", "clocks go back", "row numbers"]),
    8: ("german_whole_numbers.csv", "", {}, ["1.002 or 1002", "data.decimal_sign"]),
    9: (
        "quoted_comma_after_64KB.csv.gz",
        "",
        {"data.labels": "injected", "data.value_columns": "value"},
        ["1.250 or 1250", "data.decimal_sign"],
    ),
    21: ("003_UCR_Anomaly_x_100_150_160.txt", "", {}, ["no header line", "UCR"]),
    22: ("rows.csv", "intervals_between_rows.csv", {}, ["row 1", "has no row", "01:00:00 and 2024-01-01 01:01:00"]),
}


@pytest.mark.parametrize("number", PREVIEWS)
def test_a_case_is_read_right(spear: Spear, number: int) -> None:
    data, intervals, fields, words = PREVIEWS[number]
    shown = preview(spear, data, intervals, **fields)
    assert shown.code == 0, shown.err
    assert all(word in shown.out for word in words), shown.out


@pytest.mark.parametrize("number", REFUSALS)
def test_a_case_is_refused(spear: Spear, number: int) -> None:
    data, intervals, fields, words = REFUSALS[number]
    refused = preview(spear, data, intervals, **fields)
    check_refusal(refused, *words)
    assert len(refused.err) <= 400, refused.err


def train(spear: Spear, data: str, workdir: Path, **fields: object) -> Outcome:
    return spear(*command("files:debug", TRAINED | fields | {"data.dir": CASES / data}, workdir=workdir))


def same_results(spear: Spear, root: Path, first: str, second: str, fields: dict[str, object]) -> str:
    """Trains on two files, which must give the same numbers; returns what was said of the first."""
    said = train(spear, first, root / "a", **fields)
    assert said.code == 0 and train(spear, second, root / "b").code == 0
    assert results(root / "a")["test"] == results(root / "b")["test"]
    return said.out


def test_sentinels_are_missing_values(spear: Spear, tmp_path: Path) -> None:
    same_results(spear, tmp_path, "sentinel.csv", "sentinel_empty.csv", {"data.missing_values": "-9999"})
    shown = preview(spear, "sentinel.csv")
    assert "-9999" in shown.out and "data.missing_values" in shown.out


def test_a_run_is_that_of_its_data(spear: Spear, tmp_path: Path) -> None:
    assert train(spear, "first.csv", tmp_path, **{"train.epochs": 2}).code == 0
    for epochs in (2, 3):
        check_refusal(train(spear, "second.csv", tmp_path, **{"train.epochs": epochs}), "a run on other data", "values")


def test_an_empty_column_changes_nothing(spear: Spear, tmp_path: Path) -> None:
    said = same_results(spear, tmp_path, "trailing_semicolon.csv", "no_trailing_semicolon.csv", {})
    assert "Unnamed: 2" in said


def test_a_missing_column_is_named(spear: Spear, tmp_path: Path) -> None:
    fields = {"data.value_columns": "pressure,flow", "data.label_column": "fault"}
    assert train(spear, "train_named.csv", tmp_path / "N", **fields).code == 0
    arguments = ("--mode=score", f"--detector={tmp_path / 'N'}", f"--input={CASES / 'score_without_flow.csv'}")
    check_refusal(spear(*arguments, f"--workdir={tmp_path / 'O'}"), "flow")


def test_a_text_column_that_is_empty_at_first_is_left_out_live(
    spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(spear, "no_trailing_semicolon.csv", tmp_path / "D").code == 0
    live = CASES / "live_comment.csv"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.FileIO(live))))
    told = spear("--mode=score", f"--detector={tmp_path / 'D'}", "--input=-", "--config.score.stride=16")
    assert told.code == 0 and "left out: event" in told.err, told.err
    assert len(told.out.splitlines()) == len(live.read_text().splitlines())


@pytest.fixture
def noise() -> tuple[pd.DataFrame, np.ndarray]:
    labels = (np.arange(240) % 60 > 50).astype(int)
    times = pd.date_range("2024-01-01", periods=240, freq="min")
    return pd.DataFrame({"a": np.random.default_rng(0).normal(size=240)}, index=times), labels


def tiny() -> SpearDetector:
    return SpearDetector("random:tiny", window=16, prompt_length=2, epochs=1, batch_size=8, verbose=False)


def test_labels_in_a_frame_are_left_out(noise: tuple[pd.DataFrame, np.ndarray]) -> None:
    frame, labels = noise
    with pytest.warns(UserWarning, match="left out: label"):
        detector = tiny().fit(frame.assign(label=labels), labels)
    assert detector.feature_names_in_.tolist() == ["a"]


def test_rows_in_no_order_of_time_are_refused(noise: tuple[pd.DataFrame, np.ndarray]) -> None:
    frame, labels = noise
    order = np.random.default_rng(1).permutation(len(frame))
    with pytest.raises(InputError, match="order of time"), pytest.warns(UserWarning, match="step back"):
        tiny().fit(frame.iloc[order], labels[order])


def test_a_pointer_of_git_lfs_is_said(spear: Spear, tmp_path: Path) -> None:
    fields = {"backbone.name": CASES / "lfs_pointer"}
    check_refusal(train(spear, "first.csv", tmp_path / "run", **fields), "Git LFS pointer", "git lfs pull")
