"""Detectors that read views, several steps a position: the same scores in training, in files and row by row."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, Run, Spear, check_refusal, command, results
from etils import epath

import spear_jax
from spear_jax.data import StepScores
from spear_jax.detector import Column, Detector, Scorer, Stream
from spear_jax.detector.stream import ScoredRows
from spear_jax.evaluation import Readout
from spear_jax.methods import load_method_backbone

ROWS = 420
VIEWED = {
    "data.labels": "column",
    "data.window": "64",
    "data.stride": "32",
    "quantizer.patch": "4",
    "quantizer.reference_steps": "100",
    "quantizer.views": "value,deviation,spread,reference_8,reference_32,past_8,past_32",
}
READ_OUT = {
    "prompt.members": "2",
    "score.smoothing": "0",
    "score.distance_weight": "-1",
    "score.level": "1",
    "controls.head_only": "true",
}


def write_files(folder: Path, files: int = 6) -> Path:
    """Writes oscillations with a jump; some values are missing."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(files):
        values = np.sin(np.arange(ROWS) / (4 + i)) + rng.normal(0, 0.1, ROWS)
        labels = (np.arange(ROWS) >= 200 + 10 * i) & (np.arange(ROWS) < 230 + 10 * i)
        values[labels] += 1.5
        values[rng.integers(0, ROWS, 9)] = np.nan
        pd.DataFrame({"value": values, "label": labels.astype(int)}).to_csv(folder / f"f{i}.csv", index=False)
    return folder


def train(spear: Spear, data: Path, workdir: Path, fields: dict[str, str]) -> Run:
    outcome = spear(*command("files:debug", TINY | VIEWED | {"data.dir": str(data)} | fields, workdir=workdir))
    assert outcome.code == 0, outcome.err
    return Run(workdir, outcome)


@pytest.fixture(
    scope="module",
    params=[pytest.param(False, marks=pytest.mark.slow), True],
    ids=["paper's readout", "chosen readout"],
)
def viewed(spear: Spear, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Run:
    folder = tmp_path_factory.mktemp("viewed")
    fields = {"data.split": "series"} | (READ_OUT if request.param else {})
    return train(spear, write_files(folder / "data"), folder / "run", fields)


def scorer_of(run: Run) -> Scorer:
    detector = Detector.load(epath.Path(run.workdir))
    return Scorer.place(detector, load_method_backbone(detector.config), 8)


@pytest.mark.parametrize("split", ["train", "test"])  # a file that was trained on is not compared with itself
def test_a_file_gets_the_scores_that_it_got_in_the_run(spear: Spear, viewed: Run, tmp_path: Path, split: str) -> None:
    expected = pd.read_parquet(viewed.workdir / "scores" / f"{split}.parquet")
    name = expected["series"].iloc[0]
    file = viewed.workdir.parent / "data" / f"{name.partition('/')[0]}.csv"
    outcome = spear(
        "--mode=score",
        f"--detector={viewed.workdir}",
        f"--input={file}",
        f"--workdir={tmp_path / 'scores'}",
        "--config.score.stride=32",
    )
    assert outcome.code == 0, outcome.err
    scores = pd.read_parquet(tmp_path / "scores" / "scores.parquet")["score"]
    np.testing.assert_allclose(scores, expected[expected["series"] == name]["score"], atol=1e-6)
    assert scores.std() > 0


def stream_rows(
    scorer: Scorer, columns: list[Column], values: np.ndarray, sizes: list[int], stride: int = 16, overlap: str = "mean"
) -> list[ScoredRows]:
    """Returns what a stream gives for rows that arrive in parts of these sizes."""
    stream, times = Stream(scorer, columns, stride=stride, overlap=overlap), np.arange(len(values))
    parts = [
        stream.add(values[begin : begin + size], times[begin : begin + size])
        for begin, size in zip(np.cumsum([0, *sizes[:-1]]), sizes, strict=True)
    ]
    return [*parts, stream.finish()]


def walks(rows: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(rows, 2)).cumsum(axis=0)
    values[rng.integers(0, rows, rows // 15), 0] = np.nan
    return values


@pytest.mark.parametrize("known", [False, True])
def test_rows_get_the_same_scores_however_they_arrive(viewed: Run, known: bool) -> None:
    scorer, values = scorer_of(viewed), walks(300)
    trained = next(iter(scorer.detector.ranges))
    columns = [Column(trained if known else "new", "value"), Column("other", "second")]

    def scores(sizes: list[int]) -> np.ndarray:
        return np.concatenate([rows.scores for rows in stream_rows(scorer, columns, values, sizes)])

    at_once = scores([300])
    assert at_once.shape == values.shape and np.isfinite(at_once).all()
    np.testing.assert_allclose(scores([1] * 300), at_once, atol=1e-6)
    np.testing.assert_allclose(scores([7, 90, 0, 13, 190]), at_once, atol=1e-6)


@pytest.mark.parametrize("viewed", [False], ids=["any readout"], indirect=True)
@pytest.mark.parametrize("overlap", ["first", "mean"])
@pytest.mark.parametrize(("smoothing", "weight"), [(16, 0.0), (9, 2.0), (1, 0.5), (200, 1.0)])
@pytest.mark.parametrize("rows", [300, 40])
def test_a_stream_reads_out_what_the_whole_table_gets(
    viewed: Run, rows: int, smoothing: int, weight: float, overlap: str
) -> None:
    alone, readout = scorer_of(viewed), Readout(smoothing, weight)
    config = readout.write_to(alone.detector.config)
    scorer = dataclasses.replace(alone, detector=dataclasses.replace(alone.detector, config=config))
    values, columns = walks(rows), [Column("new", "value"), Column("other", "second")]
    model = np.concatenate([part.scores for part in stream_rows(alone, columns, values, [rows], 24, overlap)])
    views = scorer.views(columns)
    views.add(values)
    views.finish()
    numbers = views.windows(np.zeros(1, int), rows)[0]
    for sizes in ([rows], [1] * rows, [5, 0, 11, 7, rows - 23]):
        parts = stream_rows(scorer, columns, values, sizes, 24, overlap)
        assert [part.first for part in parts] == np.cumsum([0, *(len(part.scores) for part in parts)])[:-1].tolist()
        assert np.concatenate([part.times for part in parts]).tolist() == list(range(rows))
        np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), values)
        scores = np.concatenate([part.scores for part in parts])
        for column, (own, views_of_column) in enumerate(zip(model.T, numbers, strict=True)):
            steps = StepScores(np.zeros(rows, int), np.arange(rows), values[:, column], np.zeros(rows, bool), own)
            by_kind_and_width = np.nan_to_num(views_of_column[:, 2:]).reshape(rows, 2, 2)
            distances = by_kind_and_width.mean(axis=1).max(axis=1)
            np.testing.assert_allclose(scores[:, column], readout.apply(steps, distances).score, atol=1e-5)


@pytest.mark.parametrize("viewed", [True], ids=["chosen readout"], indirect=True)
def test_a_chosen_readout_is_reported_and_travels_with_the_detector(spear: Spear, viewed: Run, tmp_path: Path) -> None:
    content = results(viewed.workdir)
    readout, aupr = content["readout"], content["readout"]["validation_aupr"]
    assert readout["smoothing"] > 1 and aupr["with"] > aupr["without"]
    assert readout["controls"]["head_only"].keys() == readout.keys() - {"controls"}
    assert f"moving average of {readout['smoothing']} steps" in viewed.outcome.out
    assert f"moving average of {readout['smoothing']} steps" in (viewed.workdir / "report.html").read_text()
    assert f"moving average of {readout['smoothing']} steps" in (viewed.workdir / "detector" / "README.md").read_text()
    assert content["controls"]["model_alone"]["test"]["auroc"] != content["test"]["auroc"]
    # The run keeps the question, the detector the answer.
    assert json.loads((viewed.workdir / "config.json").read_text())["score"]["smoothing"] == 0
    detector = Detector.load(epath.Path(viewed.workdir))
    assert detector.readout == Readout(readout["smoothing"], readout["distance_weight"], 1.0)
    fields = {"data.dir": str(viewed.workdir.parent / "data"), "data.split": "series", "data.stride": "32"}
    arguments = command("files:debug", fields, mode="evaluate", detector=viewed.workdir, workdir=tmp_path / "again")
    outcome = spear(*arguments)
    assert outcome.code == 0, outcome.err
    again = results(tmp_path / "again")
    assert again["test"] == content["test"] and again["readout"]["smoothing"] == readout["smoothing"]
    check_refusal(spear(*arguments, "--config.score.smoothing=4"), "config.score.smoothing comes from the detector")
    score = ("--mode=score", f"--detector={viewed.workdir}", f"--input={fields['data.dir']}")
    check_refusal(
        spear(*score, f"--workdir={tmp_path / 'no'}", "--config.score.distance_weight=1"), "score.distance_weight"
    )
    test = pd.read_parquet(viewed.workdir / "scores" / "test.parquet")
    name = test["series"].iloc[0]
    values = test.loc[test["series"] == name, "value"].to_numpy()
    estimated = spear_jax.SpearDetector.load(str(viewed.workdir)).decision_function(values)
    assert len(estimated) == len(values) and np.isfinite(estimated).all()


def test_a_known_series_is_compared_with_its_reference(viewed: Run) -> None:
    scorer = scorer_of(viewed)
    name = next(iter(scorer.detector.ranges))
    reference = scorer.detector.reference_of(name, "value")
    assert reference is not None and len(reference.known()) == 100
    assert scorer.detector.reference_of("new", "second") is None


def test_the_whole_series_is_for_files_alone(spear: Spear, tmp_path: Path) -> None:
    data = write_files(tmp_path / "data", 3)
    run = train(spear, data, tmp_path / "run", {"data.split": "time", "quantizer.views": "value,whole_8"})
    assert "offline use only" in run.outcome.out
    arguments = ("--mode=score", f"--detector={run.workdir}")
    check_refusal(spear(*arguments, "--input=-"), "whole_8", "live rows")
    outcome = spear(*arguments, f"--input={data / 'f0.csv'}", f"--workdir={tmp_path / 'scores'}")
    assert outcome.code == 0, outcome.err
    assert len(pd.read_parquet(tmp_path / "scores" / "scores.parquet")) == ROWS


def test_memory_is_estimated_with_views_and_patches(spear: Spear) -> None:
    outcome = spear(*command("quickstart:debug", TINY | VIEWED | {"data.labels": "recorded"}, mode="memory"))
    assert outcome.code == 0, outcome.err
    assert "windows of 64 steps" in outcome.out


@pytest.mark.parametrize("method", ["logistic_regression", "gradient_boosting"])
def test_classifiers_read_the_same_views(spear: Spear, viewed: Run, tmp_path: Path, method: str) -> None:
    fields = TINY | VIEWED | {"data.dir": str(viewed.workdir.parent / "data"), "quantizer.patch": "1", "method": method}
    auroc = {}
    for views in ("value", VIEWED["quantizer.views"]):
        workdir = tmp_path / views[:8]
        arguments = command("files:debug", fields | {"quantizer.views": views}, workdir=workdir)
        outcome = spear(*arguments)
        assert outcome.code == 0, outcome.err
        auroc[views] = results(workdir)["validation"]["auroc"]
    assert auroc["value"] != auroc[VIEWED["quantizer.views"]]


@pytest.mark.parametrize(
    "method",
    # A trained method is read out by the same code as SPEAR, whose readout is tested above.
    [pytest.param("lstm", marks=pytest.mark.slow), "gradient_boosting", "nearest_neighbours"],
)
def test_every_method_is_read_out_the_same_way(spear: Spear, tmp_path: Path, method: str) -> None:
    labelled = method != "nearest_neighbours"
    fields = TINY | VIEWED | {"quantizer.patch": "1", "method": method, "score.smoothing": "16"}
    fields |= {"score.distance_weight": "-1"} if labelled else {"quantizer.views": "value"}
    data = write_files(tmp_path / "data", 5)
    run = train(spear, data, tmp_path / "run", fields | {"data.split": "series"})
    content = results(run.workdir)
    assert content["readout"]["smoothing"] == 16
    assert content["readout"]["distance_weight"] == (16 if labelled else 0)  # few anomalies to choose by
    assert content["controls"]["model_alone"]["test"]["auroc"] != content["test"]["auroc"]
    test = pd.read_parquet(run.workdir / "scores" / "test.parquet")["score"]
    assert ((test > 0) & (test < 1)).all() or not labelled


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"quantizer.views": "value,referense_8"}, ("quantizer.views", "'referense_8'", "did you mean reference_8")),
        ({"quantizer.views": "deviation"}, ("must begin with value",)),
        ({"quantizer.views": "value,spread,spread"}, ("name each view once",)),
        ({"embedding.kind": "numbers"}, ("config.embedding.kind='numbers'", "ordinal, random or trained")),
        ({"quantizer.kind": "quantile"}, ("config.quantizer.kind='quantile'", "equal_width")),
        ({"score.distance_weight": "-0.5"}, ("config.score.distance_weight=-0.5", "at least 0, or -1")),
        ({"score.level": "-0.5"}, ("config.score.level=-0.5", "at least 0, or -1")),
        (
            {"score.distance_weight": "2", "quantizer.views": "value,spread"},
            ("config.score.distance_weight=2", "quantizer.views='value,spread'", "past_8"),
        ),
        (
            {
                "method": "nearest_neighbours",
                "quantizer.views": "value",
                "quantizer.patch": "1",
                "score.distance_weight": "1",
            },
            ("config.score.distance_weight=1.0", "no effect"),
        ),
        ({"data.window": "66"}, ("config.data.window=66", "multiple of config.quantizer.patch=4")),
        ({"quantizer.patch": "3"}, ("config.quantizer.patch=3", "1, 2, 4 or 8")),
        ({"tsmote.enabled": "true"}, ("config.tsmote.enabled", "no past")),
        ({"method": "lstm", "quantizer.patch": "1"}, ("config.quantizer.views", "no effect")),
    ],
)
def test_what_views_and_patches_cannot_be_combined_with(
    spear: Spear, tmp_path: Path, fields: dict[str, str], parts: tuple[str, ...]
) -> None:
    arguments = command(
        "quickstart:debug", TINY | VIEWED | {"data.labels": "recorded"} | fields, workdir=tmp_path / "run"
    )
    check_refusal(spear(*arguments), *parts)
    assert not (tmp_path / "run").exists()
