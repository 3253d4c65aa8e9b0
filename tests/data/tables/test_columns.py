"""Columns that hold the answer, the time, an index or nothing are no inputs, in files and frames alike."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Spear, check_refusal, command
from etils import epath
from own_files import load_files, load_text, roles

from spear_jax.data.tables.arrays import read_array, read_labelled
from spear_jax.data.tables.columns import Columns
from spear_jax.data.tables.file import TableFile
from spear_jax.data.tables.live import LiveTable
from spear_jax.data.tables.table_options import TableOptions
from spear_jax.errors import InputError

ROWS = 60
LABELS = (np.arange(ROWS) % 20 > 15).astype(int)
NOISE = np.random.default_rng(0).normal(size=ROWS).round(3)
STEPS = np.arange(ROWS)

# By name and content, columns that are no values, and the reason that is given.
DECOYS: dict[str, tuple[Any, str]] = {
    "attack_P1": (LABELS, "named like labels"),
    "changepoint": (LABELS, "named like labels"),
    "change point": (NOISE, "named like labels"),
    "isOutlier": (LABELS, "named like labels"),
    "anomaly_score": (NOISE, "named like labels"),
    "qualityFlag": (STEPS % 3, "named like labels"),
    "fault": (STEPS % 4, "named like labels"),
    "y_predicted": (NOISE, "named like labels"),
    "Time [s]": (STEPS / 10, ""),
    "elapsed_ms": (STEPS * 250, ""),
    "Unnamed: 0": (STEPS % 30, "an index"),
    "row_number": (STEPS % 7, "an index"),
    "machine_id": (np.full(ROWS, 4), "an id"),
    "sensorId": (np.full(ROWS, 1), "an id"),
    "unit_nr": (np.full(ROWS, 2), "an id"),
    "place": (["hall"] * ROWS, "text, such as 'hall'"),
    "nothing": ([None] * ROWS, "empty"),
    "still": (np.full(ROWS, 2.5), "constant"),
    "n": (STEPS + 17, "counts the rows"),
    "stamp": (1_700_000_000 + 60 * STEPS, "like times since 1970: data.timestamp_column"),
    "X_Value": (STEPS / 3, "rises by equal steps, as times do: data.timestamp_column"),
    "t": ((STEPS / 3).round(3), "rises by equal steps"),
    "Anomalie_2": (STEPS % 2, "named like labels"),
    "Störung": (STEPS % 3, "named like labels"),
    "error": (STEPS % 5, "named like labels"),
    "warning": (STEPS % 2, "named like labels"),
    "is_normal": (1 - np.roll(LABELS, 1), "named like labels"),
    "y_hat": (NOISE, "named like labels"),
    "gt": (np.roll(LABELS, 1), "named like labels"),
    "RUL": (STEPS[::-1] // 7, "named like labels"),
    "Nr.": (STEPS % 7, "an index"),
    "lfd. Nr.": (STEPS % 9, "an index"),
    "shot": (STEPS % 30 + 1, "counts the rows"),
    "valve": (1 - LABELS, "its values are those of the labels"),
}


def table(name: str) -> pd.DataFrame:
    return pd.DataFrame({name: DECOYS[name][0], "pressure": NOISE, "flow": NOISE[::-1], "label": LABELS})


def read_frame(frame: pd.DataFrame, **named: Any) -> tuple[list[str], list[str]]:
    """Returns the columns of values, and what is said."""
    options = TableOptions(Columns(**named))
    read = read_labelled(frame, frame["label"].to_numpy(), options)
    return [series.column for series in read.series], read.remarks


@pytest.mark.parametrize("name", DECOYS)
def test_a_column_that_is_no_value_is_left_out_until_it_is_named(tmp_path: Path, name: str) -> None:
    frame, why = table(name), DECOYS[name][1]
    frame.to_csv(tmp_path / "own.csv", index=False)
    frame.to_parquet(tmp_path / "own.parquet", index=False)
    for path in (tmp_path / "own.csv", tmp_path / "own.parquet"):
        loaded = load_files(path)
        assert [series.column for series in loaded.series] == ["pressure", "flow"]
        assert why in " ".join(loaded.warnings)
    columns, remarks = read_frame(frame)
    assert columns == ["pressure", "flow"] and why in " ".join(remarks)
    if frame[name].dtype.kind not in "fi":
        return
    loaded = load_files(tmp_path / "own.csv", value_columns=(name,))
    assert [series.column for series in loaded.series] == [name]
    assert read_frame(frame, values=(name,))[0] == [name]


@pytest.mark.parametrize("name", ["flow_rate", "state", "angle", "class_a_voltage", "fault_current", "id_fan_speed"])
def test_a_sensor_is_a_value(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({name: NOISE, "label": LABELS})
    frame.to_csv(tmp_path / "own.csv", index=False)
    assert [series.column for series in load_files(tmp_path / "own.csv").series] == [name]
    assert read_frame(frame)[0] == [name]


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("_start", "_stop", "_time"), ("2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z", None)),
        (("begin", "when"), ("2024-01-01 00:00:00", None)),
        (("Date", "measured"), ("2024-01-01", None)),
    ],
)
def test_a_date_that_never_changes_is_not_the_time(
    tmp_path: Path, names: tuple[str, ...], values: tuple[str | None, ...]
) -> None:
    times = pd.date_range("2024-01-01", periods=ROWS, freq="min")
    columns = {name: value or times.astype(str) for name, value in zip(names, values, strict=True)}
    frame = pd.DataFrame(columns | {"value": NOISE, "label": LABELS})
    frame.to_csv(tmp_path / "own.csv", index=False)
    loaded = load_files(tmp_path / "own.csv")
    assert roles(loaded)[names[-1]] == "time"
    assert (loaded.series[0].timestamps == times.to_numpy()).all()


@pytest.mark.parametrize(
    ("numbers", "first", "said"),
    [
        (638396640000000000 + 600_000_000 * STEPS, "2024-01-01", "ticks of .NET"),
        (1_704_067_200 + 60 * STEPS, "2024-01-01", ""),
        (3_786_912_000 + 60 * STEPS, "2090-01-01", "times lie in the future"),
        (133_485_408_000_000_000 + 600_000_000 * STEPS, "1974-03", "times lie long ago"),
        (STEPS * 0.5, "1970-01-01", "the times end in 1970"),
    ],
)
def test_the_epoch_of_times_is_right_or_said(tmp_path: Path, numbers: Any, first: str, said: str) -> None:
    pd.DataFrame({"timestamp": numbers, "value": NOISE}).to_csv(tmp_path / "own.csv", index=False)
    loaded = load_files(tmp_path / "own.csv", labels="injected")
    assert str(loaded.series[0].timestamps[0]).startswith(first)
    assert said in " ".join(loaded.warnings)


@pytest.mark.parametrize("name", ["Time", "ts", "date"])
def test_a_column_named_like_times_that_does_not_rise_is_left_out(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({name: (NOISE * 100).round(), "value": NOISE, "label": LABELS})
    frame.to_csv(tmp_path / "own.csv", index=False)
    loaded = load_files(tmp_path / "own.csv")
    assert roles(loaded)[name] == "left out" and "does not rise" in " ".join(loaded.warnings)
    assert not len(loaded.series[0].timestamps) and read_frame(frame)[0] == ["value"]


def test_times_with_and_without_an_offset_are_refused_together(tmp_path: Path) -> None:
    text = "time,value\n" + "".join(f"2024-01-01T00:{i:02d}:00{'Z' if i == 9 else ''},{i % 7}.5\n" for i in range(20))
    with pytest.raises(InputError, match="some times have an offset from UTC"):
        load_text(tmp_path / "own.csv", text)


def test_a_text_column_may_begin_far_behind_the_first_rows(tmp_path: Path) -> None:
    rows = [f"{i % 7}.5,{'pump tripped' if i == 1500 else ''}" for i in range(2000)]
    loaded = load_text(tmp_path / "own.csv", "\n".join(["value,event", *rows]))
    assert [series.column for series in loaded.series] == ["value"]
    late = [f"{i % 7}.5,{i % 5 if i > 1500 else ''}" for i in range(2000)]
    loaded = load_text(tmp_path / "own.csv", "\n".join(["value,flow", *late]))
    assert [series.column for series in loaded.series] == ["value", "flow"]


def test_names_with_commas_can_be_named(tmp_path: Path) -> None:
    names = ['load{instance="a", job="node"}', "p, bar", "q"]
    frame = pd.DataFrame({name: NOISE + i for i, name in enumerate(names)})
    frame.to_csv(tmp_path / "own.csv", index=False)
    for text in ('"load{instance=""a"", job=""node""}","p, bar"', 'load{instance="a", job="node"},p, bar'):
        from spear_jax.config import split_names

        loaded = load_files(tmp_path / "own.csv", labels="injected", value_columns=split_names(text))
        assert [series.column for series in loaded.series] == names[:2]


def test_an_array_with_its_labels_is_refused() -> None:
    with pytest.raises(InputError, match="its values are those of the labels"):
        read_labelled(np.stack([NOISE, LABELS], axis=1), LABELS, TableOptions())


def test_missing_columns_of_the_training_are_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": NOISE, "b": NOISE[::-1], "still": 2.5, "other": NOISE + 1})
    trained = Columns(values=("a", "b"))

    def read(frame: pd.DataFrame, **named: Any) -> list[list[str]]:
        options = TableOptions(Columns(**named), usual=trained, labelled=False)
        frame.to_csv(tmp_path / "own.csv", index=False)
        file = TableFile(epath.Path(tmp_path / "own.csv"), "own", options)
        live = LiveTable(io.FileIO(tmp_path / "own.csv"), print, options)
        arrays = read_array(frame, "series", options)
        return [list(columns) for columns in (file.columns.values, live.columns.values, arrays.columns)]

    assert read(frame) == [["a", "b"]] * 3
    partly = frame.rename(columns={"b": "c"})
    for reader in (read, lambda frame: read_array(frame, "series", TableOptions(usual=trained))):
        with pytest.raises(InputError, match=r"training are missing: b; .*data\.value_columns"):
            reader(partly)
    assert read(partly, values=("a",)) == [["a"]] * 3
    foreign = frame[["other"]]
    assert read(foreign) == [["other"]] * 3
    assert (
        "no column of the training is here (a, b)" in read_array(foreign, "x", TableOptions(usual=trained)).remarks[0]
    )


def test_renamed_columns_in_a_list_are_refused(spear: Spear) -> None:
    from spear_jax import SpearDetector

    frames = [pd.DataFrame({"a": NOISE, "b": NOISE[::-1]}) for _ in range(3)]
    detector = SpearDetector("random:tiny", window=16, prompt_length=2, epochs=1, batch_size=8, verbose=False)
    detector.fit(frames, [LABELS] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.decision_function(frames)
    with pytest.raises(InputError, match=r"training are missing: b; .*value_columns"):
        detector.decision_function([frames[0].rename(columns={"b": "c"})])


def test_values_outside_the_trained_range_are_said(spear: Spear, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"value": rng.normal(size=400).round(3), "label": np.arange(400) % 40 > 35})
    frame.astype({"label": int}).to_csv(tmp_path / "own.csv", index=False)
    quick = {"data.window": 16, "data.stride": 16, "data.gap": 0, "train.epochs": 1, "controls.head_only": "False"}
    fields = quick | {"data.dir": tmp_path / "own.csv"}
    assert spear(*command("files:debug", fields, workdir=tmp_path / "run")).code == 0
    score = ("--mode=score", f"--detector={tmp_path / 'run'}")
    same = spear(*score, f"--input={tmp_path / 'own.csv'}", f"--workdir={tmp_path / 'same'}")
    assert same.code == 0 and "outside the range" not in same.out + same.err
    (frame[["value"]] + 50).to_csv(tmp_path / "other.csv", index=False)
    other = spear(*score, f"--input={tmp_path / 'other.csv'}", f"--workdir={tmp_path / 'other'}")
    assert "100% of the values of 'other' so far lie far outside the range by which they are scaled, -" in other.out, (
        other.err
    )
    (tmp_path / "without.csv").write_text("flow\n1.5\n")
    named = ("--config.data.value_columns=value", f"--input={tmp_path / 'without.csv'}", f"--workdir={tmp_path / 'no'}")
    check_refusal(spear(*score, *named), "no column 'value'")
