"""A file and a frame with the same table: the same columns, values, remarks and refusals, decoys included.

The readers are compared first, then a whole run of the command line and `SpearDetector.fit`.
"""

import os
import re
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Spear, command
from etils import epath

from spear_jax import SpearDetector
from spear_jax.data.series import Series
from spear_jax.data.sources.files import load_files
from spear_jax.data.tables.arrays import read_labelled
from spear_jax.data.tables.csv_format import CsvFormat
from spear_jax.data.tables.file import TableFile
from spear_jax.data.tables.table_options import TableOptions
from spear_jax.detector import Detector
from spear_jax.errors import InputError

CASES = Path(os.environ.get("SPEAR_DATA_DIR", "/nowhere")).parent / "cases"
FILES = sorted(path.name for path in CASES.glob("*.csv") if not path.name.startswith("intervals"))

pytestmark = pytest.mark.skipif(not FILES, reason="the folder cases is not beside $SPEAR_DATA_DIR")

# In an ordinary run: one file with labels, without, with extreme values, and each that is refused in a way of its own.
SAMPLE = ("skab_like.csv", "sentinel.csv", "german_whole_numbers.csv", "rows_one_late.csv")
RUN = {"data.window": 16, "data.stride": 16, "prompt.length": 2, "train.batch_size": 8, "train.epochs": 1}

DECOYS = ("attack_P1", "changepoint", "anomaly_score", "Unnamed: 9", "machine_id", "nothing", "place", "valve")


def read_frame(path: Path) -> pd.DataFrame:
    """Reads a file as a user would, who knows its delimiter and the lines before its header."""
    with path.open("rb") as file:
        frames = list(CsvFormat.sniff(path.read_bytes()).read(file, 10**6))
    return frames[0]


def with_decoys(frame: pd.DataFrame) -> pd.DataFrame:
    """Adds columns that hold the answer, an index, an id, text or nothing."""
    rng, rows = np.random.default_rng(0), len(frame)
    labels = [frame[name].astype(float).astype(int) for name in ("label", "anomaly") if name in frame]
    label = [*labels, pd.Series(np.arange(rows) % 9)][0]
    columns = [label % 2, label, rng.normal(size=rows), np.arange(rows), 7, None, "hall"]
    return frame.assign(**dict(zip(DECOYS, [*columns, *(1 - own for own in labels)], strict=False)))


def said(remarks: list[str]) -> set[str]:
    """Returns remarks without the names of files and frames, and the columns that are left out one by one."""
    texts = set()
    for remark in remarks:
        text = re.sub(r"^(own\.csv|series): ", "", remark.replace("data.", ""))
        text = re.sub(r"series '(own|0)(/\w+)?'", "series", text)
        if text.startswith("columns that are left out: "):
            parts = text.removeprefix("columns that are left out: ").split("; ")
            for names, _, reason in (part.partition(" (") for part in parts):
                texts |= {f"{name}: {reason}" for name in names.split(", ")}
        else:
            texts.add(text)
    return texts


def outcome(series: list[Series], remarks: list[str]) -> tuple[dict[str, list[float]], set[str]]:
    return {item.column: item.values.tolist() for item in series}, said(remarks)


def write_own(tmp_path: Path, name: str, *, decoys: bool) -> pd.DataFrame:
    """Writes a case as own.csv, with or without decoys, and returns it as a frame."""
    frame = read_frame(CASES / name)
    frame = with_decoys(frame) if decoys else frame
    frame.to_csv(tmp_path / "own.csv", index=False, sep="\t")
    return read_frame(tmp_path / "own.csv")


@pytest.mark.parametrize("decoys", [False, True], ids=["as it is", "with decoys"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_and_a_frame_are_read_alike(tmp_path: Path, name: str, decoys: bool) -> None:
    frame, label = write_own(tmp_path, name, decoys=decoys), ""
    try:
        label = TableFile(epath.Path(tmp_path / "own.csv"), "own").columns.label
        loaded = load_files(str(tmp_path / "own.csv"), labels="column" if label else "injected")
        file = outcome(loaded.series, list(loaded.warnings))
    except InputError as error:
        with pytest.raises(InputError) as raised:
            read_labelled(frame, None, TableOptions())
        assert str(error).partition("own.csv: ")[2] == str(raised.value).partition("series: ")[2]
        return
    read = read_labelled(frame, frame[label].astype(float).to_numpy() if label else None, TableOptions())
    columns, remarks = outcome(read.series, read.remarks)
    assert columns.keys() == file[0].keys() and not columns.keys() & set(DECOYS)
    for column, values in columns.items():
        np.testing.assert_array_equal(values, file[0][column])
    # Only the frame has labels beside it.
    assert {text for text in remarks if not text.startswith(f"{label}: ")} == file[1]


def about_data(warnings: list[str]) -> set[str]:
    """Returns those warnings that are about the table, not about the splits, which a run and a fit draw differently."""
    return said([text for text in warnings if re.match(r"own\.csv: |series: |series '(own|0)(/|')", text)])


@pytest.mark.parametrize(
    "name",
    [name if name in SAMPLE else pytest.param(name, marks=[pytest.mark.slow, pytest.mark.landing]) for name in FILES],
)
def test_a_run_and_a_fit_agree(spear: Spear, tmp_path: Path, name: str) -> None:
    frame, label = write_own(tmp_path, name, decoys=True), ""
    with suppress(InputError):
        label = TableFile(epath.Path(tmp_path / "own.csv"), "own").columns.label
    fields = RUN | {"data.dir": tmp_path / "own.csv", "data.labels": "column" if label else "injected", "data.gap": 0}
    run = spear(*command("files:debug", fields | {"controls.head_only": "False"}, workdir=tmp_path / "run"))
    detector = SpearDetector(
        "random:tiny", window=16, stride=16, prompt_length=2, batch_size=8, epochs=1, verbose=False
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            detector.fit(frame, frame[label].astype(float).to_numpy() if label else None)
        except InputError as error:
            refused = run.err.strip().replace("data.", "")
            assert run.code == 2 and refused.rpartition("own.csv: ")[2] == str(error).partition("series: ")[2]
            return
    assert run.code == 0, run.err
    trained = Detector.load(epath.Path(tmp_path / "run"))
    assert trained.trained_columns == detector.detector_.trained_columns
    assert not set(trained.trained_columns) & set(DECOYS)
    labels = f"{label}: "  # only the frame has them beside it
    fitted = {text for text in about_data([str(item.message) for item in caught]) if not text.startswith(labels)}
    assert fitted and fitted == about_data(list(trained.warnings))
