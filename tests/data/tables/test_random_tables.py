"""Whatever the form of a table, what is read is what was meant, or doubt is said, or it is refused."""

import csv
import dataclasses
import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_files import load_files

from spear_jax.data.series import LoadedSeries
from spear_jax.errors import InputError

EXAMPLES = int(os.environ.get("SPEAR_EXAMPLES", "500"))
DOUBTS = ("numbers like", "could be", "day first")

TIME_FORMATS = {
    "ISO": "%Y-%m-%d %H:%M:%S",
    "ISO with a T and Z": "%Y-%m-%dT%H:%M:%SZ",
    "with an offset": "%Y-%m-%d %H:%M:%S+00:00",
    "German": "%d.%m.%Y %H:%M:%S",
    "American": "%m/%d/%Y %H:%M:%S",
    "British": "%d/%m/%Y %H:%M",
    "logging": "%Y-%m-%d %H:%M:%S,%f",
    "digits": "%Y%m%d%H%M%S",
}
LABEL_WORDS = {"label": "01", "is_anomaly": ("False", "True"), "Normal/Attack": ("Normal", "Attack"), "anomaly": "01"}


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A table as it was meant, and the text of its files."""

    values: dict[str, np.ndarray]
    times: np.ndarray | None
    labels: np.ndarray
    text: str
    intervals: str


def number(value: float, decimals: int, decimal: str, grouped: bool) -> str:
    text = f"{value:,.{decimals}f}" if grouped else f"{value:.{decimals}f}"
    return text if decimal == "." else text.translate(str.maketrans(",.", ".,"))


@st.composite
def tables(draw: st.DrawFn) -> Drawn:
    rows = draw(st.integers(24, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    start = pd.Timestamp("2024-01-01") + pd.Timedelta(minutes=draw(st.integers(0, 400_000)))
    step = draw(st.sampled_from(("min", "h", "5min", "D", "10s")))
    meant = pd.date_range(start.floor("min"), periods=rows, freq=step)
    order = np.arange(rows)
    match draw(st.sampled_from(("kept", "kept", "newest first", "shuffled", "late"))):
        case "newest first":
            order = order[::-1]
        case "shuffled":
            order = rng.permutation(rows)
        case "late":
            order = np.r_[1 : rows - 3, 0, rows - 3 : rows]
    labels = np.zeros(rows, bool)
    first, length = draw(st.integers(1, rows - 8)), draw(st.integers(1, 6))
    labels[first : first + length] = True

    delimiter, decimal = draw(st.sampled_from(",;\t|")), draw(st.sampled_from(".,"))
    columns: dict[str, list[str]] = {}
    values: dict[str, np.ndarray] = {}
    for name in draw(st.sampled_from((("pressure",), ("flow", "T1"), ("load, left", "b", "c")))):
        scale = 10.0 ** draw(st.integers(-2, 6))
        decimals, grouped = draw(st.integers(0, 4)), draw(st.booleans())
        numbers = np.round(rng.normal(0, scale, rows), decimals) + 0.0
        numbers[:2] = 5, 8  # never constant
        columns[name] = [number(value, decimals, decimal, grouped) for value in numbers[order]]
        values[name] = numbers[order]
    time_form = draw(st.sampled_from((*TIME_FORMATS, "seconds", "milliseconds", "none")))
    times, time_name = None, draw(st.sampled_from(("time", "Timestamp", "Zeit", "when seen")))
    if time_form in TIME_FORMATS:
        if "%S" not in TIME_FORMATS[time_form] and step == "10s":
            meant = pd.date_range(meant[0], periods=rows, freq="min")
        texts = [stamp.strftime(TIME_FORMATS[time_form]) for stamp in meant]
        time_name = "timestamp" if (time_name, time_form) == ("when seen", "digits") else time_name
    elif time_form != "none":
        time_name = "timestamp" if time_name == "when seen" else time_name
        factor = {"seconds": 10**9, "milliseconds": 10**6}[time_form]
        texts = [str(stamp.value // factor) for stamp in meant]
    if time_form != "none":
        columns[time_name] = [texts[i] for i in order]
        times = meant.to_numpy("datetime64[ns]")[order]
    decoys = {
        "change_point": [str(int(label)) for label in labels[order]],
        "anomaly_score": [str(i % 9) for i in range(rows)],
        "Unnamed: 0": [str(i) for i in range(rows)],
        "machine_id": ["7"] * rows,
        "X_Value": [f"{i / 4:.2f}" for i in range(rows)] if decimal == "." else ["x"] * rows,
        "note": ["pump" if i % 5 else "" for i in range(rows)],
        "empty": [""] * rows,
        "still": ["3"] * rows,
    }
    for name in draw(st.lists(st.sampled_from(sorted(decoys)), unique=True, max_size=3)):
        columns[name] = decoys[name]
    intervals = ""
    kind = draw(st.sampled_from(("column", "rows", "times")))
    if kind == "column":
        name = draw(st.sampled_from(sorted(LABEL_WORDS)))
        columns[name] = [LABEL_WORDS[name][int(label)] for label in labels[order]]
    elif kind == "rows" or time_form == "none":
        runs = [str(row) for row in np.flatnonzero(labels[order])]
        intervals = "start,end\n" + "".join(f"{row},{row}\n" for row in runs)
    else:
        bounds = [texts[first], texts[first + length - 1]]
        intervals = "start;end;class\n" + ";".join(bounds) + ";leak\n"
        if draw(st.booleans()):
            intervals += f"{texts[0]};{texts[0]};normal\n"
    names = draw(st.permutations(sorted(columns)))
    titles = draw(st.sampled_from(("", "", "# made by a logger\n# version 3\n")))
    return Drawn(values, times, labels[order], titles + _csv(columns, names, delimiter), intervals)


def _csv(columns: dict[str, list[str]], names: list[str], delimiter: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*(columns[name] for name in names), strict=True))
    return out.getvalue()


def read(folder: Path, drawn: Drawn) -> LoadedSeries | InputError:
    (folder / "own.csv").write_text(drawn.text)
    (folder / "marks.csv").write_text(drawn.intervals)
    try:
        if drawn.intervals:
            return load_files(folder / "own.csv", labels="intervals", intervals=str(folder / "marks.csv"))
        return load_files(folder / "own.csv", labels="column")
    except InputError as error:
        return error


@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(drawn=tables())
def test_what_is_read_is_what_was_meant_or_doubt_is_said(tmp_path: Path, drawn: Drawn) -> None:
    loaded = read(tmp_path, drawn)
    if isinstance(loaded, InputError):
        assert "\n" not in str(loaded) and len(str(loaded).replace(str(tmp_path), "")) <= 400
        return
    if any(doubt in warning for doubt in DOUBTS for warning in loaded.warnings):
        return
    by_column = {series.column: series for series in loaded.series}
    assert by_column.keys() == drawn.values.keys()
    for name, series in by_column.items():
        np.testing.assert_allclose(series.values, drawn.values[name], rtol=1e-12)
        np.testing.assert_array_equal(series.labels, drawn.labels)
        if drawn.times is not None:
            np.testing.assert_array_equal(series.timestamps, drawn.times)
