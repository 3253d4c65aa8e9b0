"""Scoring files: the scores do not depend on the chunks, and nothing is left half-written."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from conftest import TINY, Run, Spear, check_refusal, command, contents, quick, results
from etils import epath
from etils.epath import backend
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spear_jax.backbones.pretrained import load_backbone
from spear_jax.data.batches import Examples
from spear_jax.data.scaler import Scaler
from spear_jax.data.series import Series
from spear_jax.data.step_scores import stitch
from spear_jax.data.tables.columns import Columns
from spear_jax.data.tables.file import CHUNK_ROWS, TableFile
from spear_jax.data.tables.table_options import TableOptions
from spear_jax.data.windows import cut_windows
from spear_jax.detector.artifact import Detector
from spear_jax.detector.file_scores import Scoring, list_columns, score_table
from spear_jax.detector.scorer import Column, Scorer
from spear_jax.detector.stream import Stream
from spear_jax.errors import InputError
from spear_jax.evaluation.alarms import AlarmRule, find_alarms
from spear_jax.model.placed import PlacedModel
from spear_jax.report.labels import describe_rule
from spear_jax.report.score_figure import Envelope

pytestmark = pytest.mark.one_python


@pytest.fixture(scope="module")
def scorer(finished: Run) -> Scorer:
    detector = Detector.load(epath.Path(finished.workdir))
    return Scorer.place(detector, load_backbone("random:tiny"), 8)


def write(path: Path, rows: int, columns: int = 2, late: int = 0) -> Path:
    """A table of random walks; the last column has no value in its first `late` rows."""
    rng = np.random.default_rng(rows)
    table = pd.DataFrame(np.cumsum(rng.normal(size=(rows, columns)), axis=0).round(4), columns=list("abc")[:columns])
    table.iloc[:late, -1] = np.nan
    table.insert(0, "time", pd.date_range("2024-01-01", periods=rows, freq="s"))
    table.to_csv(path, index=False)
    return path


def test_scores_are_written_to_a_bucket(
    spear: Spear, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(type(backend.fsspec_backend), "_get_filesystem", lambda self, name: memory)
    table = write(tmp_path / "t.csv", 300)
    outcome = spear(
        "--mode=score", f"--detector={finished.workdir}", f"--input={table}", "--workdir=gs://bucket/scored"
    )
    assert outcome.code == 0, outcome.err
    assert memory.cat("gs://bucket/scored/figures/scores.png").startswith(b"\x89PNG")
    assert memory.exists("gs://bucket/scored/scores.parquet")


def score_all_at_once(scorer: Scorer, file: TableFile, stride: int, overlap: str) -> np.ndarray:
    """Scores all windows of a file at once, without a stream; returns a column per series."""
    values, names = file.read().values, [column.series for column in list_columns(file)]
    recorded = [Series(name, column, np.zeros(len(column), bool)) for name, column in zip(names, values.T, strict=True)]
    windows, detector = cut_windows(recorded, names, 32, stride), scorer.detector
    quantizer = detector.config.quantizer
    scaler = Scaler.fit(
        quantizer.scale,
        recorded,
        [],
        reference_steps=quantizer.reference_steps,
        margin=quantizer.margin,
        typical_width=detector.typical_width,
    )
    examples = Examples(
        bins=detector.quantizer(scaler(windows)),
        views=np.zeros((*windows.real.shape, 0), np.int32),
        mask=windows.real,
        targets=np.zeros(windows.real.shape, np.float32),
        lengths=np.full(len(windows), 32),
    )
    scores = scorer.model.score(examples)
    if overlap == "mean":
        return stitch(windows, scores, recorded).score.reshape(len(names), -1).T
    first = np.full(values.shape, np.nan)
    for start, column, window_scores, real in reversed(
        [*zip(windows.start, windows.series, scores, windows.real, strict=True)]
    ):
        first[start : start + real.sum(), column] = window_scores[real]
    return first


@pytest.mark.parametrize("overlap", ["mean", "first"])
@pytest.mark.parametrize("scale", ["train", "window"])
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 200),
    chunk=st.integers(1, 90),
    stride=st.integers(3, 32),
    late=st.sampled_from((0, 0, 1, 70, 150, 300)),
)
def test_scores_do_not_depend_on_the_chunks(
    scorer: Scorer, tmp_path: Path, scale: str, overlap: str, rows: int, chunk: int, stride: int, late: int
) -> None:
    config = scorer.detector.config.copy_and_resolve_references()
    config.quantizer.scale, config.quantizer.reference_steps = scale, 64
    scorer = dataclasses.replace(scorer, detector=dataclasses.replace(scorer.detector, config=config))
    file = TableFile(
        epath.Path(write(tmp_path / "t.csv", rows, late=late)), "t", TableOptions(Columns(values=("a", "b")))
    )
    expected = score_all_at_once(scorer, file, stride, overlap)
    chunks = file.chunks
    file.chunks = lambda rows=chunk: chunks(chunk)  # type: ignore[method-assign]
    scored = pd.concat(list(score_table(scorer, file, Scoring(stride, overlap))))
    assert len(scored) == 2 * rows
    for i, name in enumerate("ab"):
        series = scored[scored["series"] == f"t/{name}"]
        assert series["step"].tolist() == list(range(rows))
        np.testing.assert_allclose(series["score"], expected[:, i], atol=1e-6)
        np.testing.assert_allclose(series["value"], pd.read_csv(tmp_path / "t.csv")[name])


@pytest.mark.parametrize("how", ["max", "mean"])
def test_columns_are_combined(spear: Spear, finished: Run, tmp_path: Path, how: str) -> None:
    table = write(tmp_path / "t.csv", 100)
    common = ("--mode=score", f"--detector={finished.workdir}", f"--input={table}")
    outcome = spear(*common, f"--workdir={tmp_path / 'apart'}")
    assert outcome.code == 0 and "\n100 rows of 2 series scored, " in outcome.out
    outcome = spear(*common, f"--workdir={tmp_path / 'combined'}", f"--config.data.combine={how}")
    assert outcome.code == 0 and "\n100 rows of 1 series scored, " in outcome.out
    apart = pd.read_parquet(tmp_path / "apart" / "scores.parquet").pivot(index="step", columns="series", values="score")
    combined = pd.read_parquet(tmp_path / "combined" / "scores.parquet")
    assert combined["series"].unique().tolist() == ["t"]
    np.testing.assert_allclose(combined["score"], getattr(apart, how)(axis=1), atol=1e-6)
    assert combined["timestamp"].is_monotonic_increasing


def test_the_batch_size_does_not_change_scores(
    spear: Spear, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write(tmp_path / "t.csv", 400)
    common = ("--mode=score", f"--detector={finished.workdir}", f"--input={table}")
    batch_sizes = []

    score = PlacedModel.score

    def watched(model: PlacedModel, examples: Examples) -> Any:
        batch_sizes.append(model.batch_size)
        return score(model, examples)

    monkeypatch.setattr(PlacedModel, "score", watched)
    assert spear(*common, f"--workdir={tmp_path / 'own'}").code == 0
    assert max(batch_sizes) > 3
    batch_sizes.clear()
    assert spear(*common, f"--workdir={tmp_path / 'other'}", "--config.score.batch_size=3").code == 0
    assert max(batch_sizes) == 3
    own, other = (pd.read_parquet(tmp_path / name / "scores.parquet")["score"] for name in ("own", "other"))
    np.testing.assert_allclose(own, other, atol=1e-6)


def test_remarks_on_files_are_printed(spear: Spear, finished: Run, tmp_path: Path) -> None:
    rows = CHUNK_ROWS + 50
    times = pd.date_range("2024-01-01", periods=rows, freq="s").to_numpy().copy()
    times[CHUNK_ROWS:] += np.timedelta64(60, "s")  # the gap lies between two chunks
    values = np.sin(np.arange(rows))
    values[[7, -1]] = np.inf
    table = pd.DataFrame({"time": times, "a": values, "level": 1.5, "note": "x"})
    table.to_csv(tmp_path / "t.csv", index=False)
    outcome = spear(
        "--mode=score", f"--detector={finished.workdir}", f"--input={tmp_path / 't.csv'}", f"--workdir={tmp_path / 'o'}"
    )
    assert outcome.code == 0
    for remark in (
        "t.csv: columns that are left out: note (text, such as 'x')",
        "t.csv: 2 infinite values (beyond 1e100) are taken as missing",
        "t.csv: column 'level' is constant (1.5)",
        "t.csv: 1 gap, where the usual step is 1 s",
    ):
        assert f"WARNING: {tmp_path}/{remark}" in outcome.out


def test_bad_input_leaves_no_files(spear: Spear, finished: Run, tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", 50)
    out = tmp_path / "out"
    common = ("--mode=score", f"--detector={finished.workdir}", f"--workdir={out}")
    check_refusal(spear(*common), "--mode=score needs --input")
    check_refusal(spear("--mode=score", f"--input={table}", f"--workdir={out}"), "--mode=score needs --detector")
    check_refusal(spear(*common, f"--input={tmp_path / 'no.csv'}"), "no.csv: no such file or folder")
    check_refusal(
        spear(*common, f"--input={table}", "--config=configs/nasa.py"), "--config only applies to --mode=train"
    )
    check_refusal(
        spear(*common, f"--input={table}", "--config.prompt.length=3"),
        "--config.prompt.length cannot be overridden with --mode=score, only data.timestamp_column",
    )
    check_refusal(spear(*common, f"--input={table}", "--config.data.value_columns=c"), "no column 'c'")
    check_refusal(
        spear(*common, f"--input={table}", "--config.data.combine=std"), "config.data.combine='std' must be one of"
    )
    check_refusal(spear(*common, f"--input={table}", "--config.score.batch_size=0"), "config.score.batch_size=0")
    twice = tmp_path / "twice"
    twice.mkdir()
    write(twice / "a.csv", 40)
    pd.read_csv(twice / "a.csv").to_parquet(twice / "a.parquet")
    check_refusal(spear(*common, f"--input={twice}"), "two files are named 'a'")
    (tmp_path / "none.csv").write_text("a,b\n")
    check_refusal(spear(*common, f"--input={tmp_path / 'none.csv'}"), "none.csv: no file has any rows")
    assert not out.exists()
    table.write_text(table.read_text() + "2024-01-02,broken,1\n")
    check_refusal(spear(*common, f"--input={table}"), "t.csv: row 51, column 'a': 'broken' is not a number")
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    before = contents(out)
    write(table, 50)
    check_refusal(spear(*common, f"--input={table}"), "must be a new or empty folder")
    assert contents(out) == before


@pytest.mark.parametrize("live", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_stride_longer_than_the_longest_window_is_refused(spear: Spear, tmp_path: Path, live: bool) -> None:
    assert spear(*quick(tmp_path / "run", {"data.window": 0})).code == 0
    longest = load_backbone("random:tiny").max_positions - 4 - 1
    write(tmp_path / "t.csv", 2 * longest)
    where = ("--input=-",) if live else (f"--input={tmp_path / 't.csv'}", f"--workdir={tmp_path / 'o'}")
    common = ("--mode=score", f"--detector={tmp_path / 'run'}", *where)
    check_refusal(
        spear(*common, f"--config.score.stride={longest + 1}"),
        f"config.score.stride={longest + 1} must be at most {longest}, the steps in the detector's window",
    )
    assert not (tmp_path / "o").exists()
    if not live:
        assert spear(*common, f"--config.score.stride={longest}").code == 0
        assert np.isfinite(pd.read_parquet(tmp_path / "o" / "scores.parquet")["score"]).all()


def test_a_stream_refuses_a_stride_longer_than_its_window(scorer: Scorer) -> None:
    with pytest.raises(InputError, match=r"^config\.score\.stride=33 must be at most 32"):
        Stream(scorer, [Column("t", "a")], stride=33)


def test_a_series_seen_in_training_keeps_its_scale(spear: Spear, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"level": np.linspace(0, 8, 1000) + rng.normal(0, 0.1, 1000), "flow": rng.normal(size=1000)})
    table["label"] = ((table.index % 300) > 280).astype(int)
    table.to_csv(tmp_path / "first.csv", index=False)
    fields = {"backbone.name": "random:tiny", "data.dir": tmp_path / "first.csv", "train.epochs": 1, "data.gap": 0}
    overrides = TINY | {name: str(value) for name, value in fields.items()}
    trained = spear(*command("files", overrides, workdir=tmp_path / "run"))
    assert trained.code == 0, trained.err
    new = table.iloc[608:].rename(columns={"flow": "new"}).reset_index(drop=True)
    new.drop(columns="label").to_csv(tmp_path / "later.csv", index=False)
    common = ("--mode=score", f"--detector={tmp_path / 'run'}")
    where = (f"--input={tmp_path / 'later.csv'}", f"--workdir={tmp_path / 'o'}")
    check_refusal(spear(*common, *where), "columns of the training are missing: flow; found level, new")
    outcome = spear(*common, *where, "--config.data.value_columns=level,new")
    assert outcome.code == 0, outcome.err
    assert "scaled as in training: later/level\nscaled by their own first 256 rows: later/new\n" in outcome.out
    again = spear(*common, f"--input={tmp_path / 'first.csv'}", f"--workdir={tmp_path / 'p'}")
    assert "scaled as in training: first/level first/flow\n" in again.out
    later, first = (pd.read_parquet(tmp_path / name / "scores.parquet") for name in ("o", "p"))
    later = later[later["series"] == "later/level"]
    first = first[(first["series"] == "first/level") & (first["step"] >= 608)]
    # Windows of 32 begin at the same rows, 608 being 19 of them; the last ones end with the file.
    np.testing.assert_allclose(later["score"].to_numpy()[:352], first["score"].to_numpy()[:352], atol=1e-6)


@pytest.mark.figures
def test_alarms_and_figure_are_written(spear: Spear, finished: Run, tmp_path: Path) -> None:
    write(tmp_path / "t.csv", 400)
    common = ("--mode=score", f"--detector={finished.workdir}", f"--input={tmp_path / 't.csv'}")
    overrides = ("--config.alarms.merge_gap=2", "--config.alarms.min_length=3", "--config.score.format=csv")
    outcome = spear(*common, f"--workdir={tmp_path / 'o'}", *overrides)
    assert outcome.code == 0, outcome.err
    assert "(gaps of up to 2 rows closed, alarms of fewer than 3 rows dropped)" in outcome.out
    scores = pd.read_csv(tmp_path / "o" / "scores.csv", parse_dates=["timestamp"])
    alarms = pd.read_csv(tmp_path / "o" / "alarms.csv", parse_dates=["start_time", "end_time", "peak_time"])
    assert len(scores) == 800 and len(alarms) > 0
    above = f"{scores['predicted'].sum()} scores at or above the threshold"
    assert f"400 rows of 2 series scored, {above}" in outcome.out
    assert (tmp_path / "o" / "figures" / "scores.png").stat().st_size > 10_000
    expected = []
    for name, series in scores.groupby("series", sort=False):
        series_alarms = find_alarms(series["score"].to_numpy(), series["predicted"].to_numpy(), AlarmRule(2, 3))
        expected += [(name, alarm.start, alarm.end, alarm.peak) for alarm in series_alarms]
    columns = ["series", "start", "end", "peak"]
    assert list(alarms[columns].itertuples(index=False, name=None)) == expected
    at = scores.set_index(["series", "step"])["timestamp"]
    for end in ("start", "end", "peak"):
        assert alarms[f"{end}_time"].tolist() == [at[pair] for pair in zip(alarms["series"], alarms[end], strict=True)]
    outcome = spear(*common, f"--workdir={tmp_path / 'p'}")
    rule = results(finished.workdir)["alarms"]
    assert f"({describe_rule(rule['merge_gap'], rule['min_length'], 'row')})" in outcome.out


def test_an_envelope_keeps_the_extremes_of_a_long_series() -> None:
    rng = np.random.default_rng(0)
    values, scores = rng.normal(size=50_001), rng.random(50_001)
    times = np.datetime64("2025-01-01", "ns") + np.arange(50_001) * np.timedelta64(1, "m")
    envelope = Envelope()
    for begin in range(0, len(values), 777):
        envelope.add(values[begin : begin + 777], scores[begin : begin + 777], times[begin : begin + 777])
    assert len(envelope.steps) <= 4096
    for i, step in enumerate(envelope.steps):
        here = slice(step, step + envelope.width)
        expected = [values[here].min(), values[here].max(), scores[here].max()]
        np.testing.assert_array_equal(envelope.extremes[i], expected)
        assert envelope.times[i] == times[step]
    assert envelope.dated and np.diff(envelope.x) == pytest.approx(envelope.width / 1440)


def test_an_envelope_without_all_times_counts_rows() -> None:
    envelope, rows = Envelope(), np.arange(3.0)
    envelope.add(rows, rows, np.array(["2025-01-01", "NaT", "2025-01-02"], "datetime64[ns]"))
    assert not envelope.dated and envelope.x.tolist() == [0, 1, 2]


# The peak is that of this program alone: ru_maxrss would begin with what the tests that started it hold.
PEAK = """
import re, sys
from pathlib import Path
from spear_jax.main import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1], file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("live", "few"), [(False, 1_000_000), (True, 100_000)])
def test_twice_as_many_rows_are_scored_in_the_same_memory(finished: Run, tmp_path: Path, live: bool, few: int) -> None:
    def peak(rows: int) -> float:
        """In MiB."""
        table, out, scores = (
            write(tmp_path / f"{rows}.csv", rows, columns=1),
            tmp_path / f"out{rows}",
            tmp_path / "live",
        )
        where = ("--input=-",) if live else (f"--input={table}", f"--workdir={out}")
        with table.open("rb") as sent, scores.open("wb") as got:
            done = subprocess.run(
                [sys.executable, "-c", PEAK, "--mode=score", f"--detector={finished.workdir}", *where],
                stdin=sent,
                stdout=got,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "JAX_PLATFORMS": "cpu"},
            )
        assert done.returncode == 0, done.stderr
        if live:
            assert scores.read_bytes().count(b"\n") == 1 + rows
        else:
            assert f"{rows:,} rows of 1 series scored" in scores.read_text()
            assert pyarrow.parquet.read_metadata(out / "scores.parquet").num_rows == rows
        return int(done.stderr.split()[-1]) / 2**10

    small, large = peak(few), peak(2 * few)
    print(f"peak memory: {small:.0f} MiB for {few:,} rows, {large:.0f} MiB for {2 * few:,}")
    assert large < small + 30
