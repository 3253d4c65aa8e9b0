"""Frames and arrays in memory: indices of times, names of columns, and what cannot be read."""

import datetime
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from spear_jax.data.tables.arrays import read_labelled
from spear_jax.data.tables.table_options import NO_OPTIONS
from spear_jax.errors import InputError

ROWS = 40
TIMES = pd.date_range("2024-03-01", periods=ROWS, freq="h")
VALUES = np.random.default_rng(0).normal(size=(ROWS, 2)).round(3)
LABELS = (np.arange(ROWS) % 20 > 15).astype(int)

# Each holds the times of `TIMES`, or the hours since the first.
INDICES: dict[str, pd.Index] = {
    "times": TIMES,
    "times with a name": TIMES.rename("at"),
    "text": TIMES.astype(str),
    "objects": pd.Index([datetime.datetime.fromisoformat(text) for text in TIMES.astype(str)], dtype=object),
    "periods": pd.period_range("2024-03-01", periods=ROWS, freq="h"),
    "numbers with a name": pd.Index(TIMES.as_unit("s").astype("int64"), name="timestamp"),
    "time since the start": pd.to_timedelta(np.arange(ROWS), unit="h"),
}


@pytest.mark.parametrize("name", INDICES)
def test_an_index_of_times_is_read(name: str) -> None:
    frame = pd.DataFrame(VALUES, columns=["a", "b"], index=INDICES[name])
    read = read_labelled(frame, LABELS, NO_OPTIONS)
    assert [series.column for series in read.series] == ["a", "b"]
    start = np.datetime64("1970-01-01") if name == "time since the start" else TIMES[0].to_datetime64()
    np.testing.assert_array_equal(read.series[0].timestamps - start, (TIMES - TIMES[0]).to_numpy())
    backwards = read_labelled(frame[::-1], LABELS, NO_OPTIONS)
    assert f"{ROWS - 1} time stamps step back" in " ".join(backwards.remarks)


@pytest.mark.parametrize("index", [pd.RangeIndex(ROWS), pd.Index([f"row {n}" for n in range(ROWS)])])
def test_another_index_has_no_times(index: pd.Index) -> None:
    read = read_labelled(pd.DataFrame(VALUES, columns=["a", "b"], index=index), LABELS, NO_OPTIONS)
    assert not len(read.series[0].timestamps)


def test_an_index_may_be_a_column_too() -> None:
    frame = pd.DataFrame({"time": TIMES, "a": VALUES[:, 0]}).set_index("time", drop=False)
    (series,) = read_labelled(frame, LABELS, NO_OPTIONS).series
    np.testing.assert_array_equal(series.timestamps, TIMES.to_numpy("datetime64[ns]"))


@pytest.mark.parametrize("names", [[("a", "x"), ("a", "label")], [0, "label"]], ids=["two levels", "mixed"])
def test_labels_are_left_out_whatever_names_are(names: list) -> None:
    frame = pd.DataFrame({"x": VALUES[:, 0], "y": np.roll(LABELS, 1)})
    frame.columns = pd.MultiIndex.from_tuples(names) if isinstance(names[0], tuple) else pd.Index(names, dtype=object)
    read = read_labelled(frame, LABELS, NO_OPTIONS)
    assert [series.column for series in read.series] == ["a/x" if isinstance(names[0], tuple) else "0"]
    assert "label (named like labels" in " ".join(read.remarks)


def test_masked_values_are_missing() -> None:
    first, _ = read_labelled(np.ma.masked_array(VALUES, VALUES > 0), LABELS, NO_OPTIONS).series
    np.testing.assert_array_equal(first.values, np.where(VALUES > 0, np.nan, VALUES)[:, 0])


REFUSED: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "two levels of rows": (
        lambda frame: frame.set_index(pd.MultiIndex.from_product([["m1", "m2"], TIMES[: ROWS // 2]])),
        "has an index of several levels; reset_index makes columns of them",
    ),
    "complex numbers": (lambda frame: frame.assign(b=1j), "has complex numbers"),
    "a name twice": (lambda frame: pd.concat([frame, frame], axis=1), "two columns are named 'a'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_frames_that_cannot_be_read_are_refused(name: str) -> None:
    change, message = REFUSED[name]
    with pytest.raises(InputError, match=f"series: {message}"):
        read_labelled(change(pd.DataFrame(VALUES, columns=["a", "b"])), LABELS, NO_OPTIONS)
