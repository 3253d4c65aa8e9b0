"""Detectors that read views, several steps a position: the same scores in training, in files and row by row."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, Run, Spear, check_refusal, command, results
from etils import epath

from spear_jax.detector import Column, Detector, Scorer, Stream
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


@pytest.fixture(scope="module")
def viewed(spear: Spear, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("viewed")
    return train(spear, write_files(folder / "data"), folder / "run", {"data.split": "series"})


def scorer_of(run: Run) -> Scorer:
    detector = Detector.load(epath.Path(run.workdir))
    return Scorer.place(detector, load_method_backbone(detector.config), 8)


def test_a_held_out_file_gets_the_scores_of_the_test_split(spear: Spear, viewed: Run, tmp_path: Path) -> None:
    test = pd.read_parquet(viewed.workdir / "scores" / "test.parquet")
    name = test["series"].iloc[0]
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
    np.testing.assert_allclose(scores, test[test["series"] == name]["score"], atol=1e-6)
    assert scores.std() > 0


@pytest.mark.parametrize("known", [False, True])
def test_rows_get_the_same_scores_however_they_arrive(viewed: Run, known: bool) -> None:
    scorer = scorer_of(viewed)
    rng = np.random.default_rng(1)
    values = rng.normal(size=(300, 2)).cumsum(axis=0)
    values[rng.integers(0, 300, 20), 0] = np.nan
    trained = next(iter(scorer.detector.ranges))
    columns = [Column(trained if known else "new", "value"), Column("other", "second")]
    times = np.zeros(0, np.int64)

    def scores(sizes: list[int]) -> np.ndarray:
        stream = Stream(scorer, columns, stride=16)
        parts = [stream.add(part, times).scores for part in np.split(values, np.cumsum(sizes))]
        return np.concatenate([*parts, stream.finish().scores])

    at_once = scores([300])
    assert at_once.shape == values.shape and np.isfinite(at_once).all()
    np.testing.assert_allclose(scores([1] * 299), at_once, atol=1e-6)
    np.testing.assert_allclose(scores([7, 90, 0, 13, 150]), at_once, atol=1e-6)


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
    ("fields", "parts"),
    [
        ({"quantizer.views": "value,referense_8"}, ("quantizer.views", "'referense_8'", "did you mean reference_8")),
        ({"quantizer.views": "deviation"}, ("must begin with value",)),
        ({"quantizer.views": "value,spread,spread"}, ("name each view once",)),
        ({"embedding.kind": "numbers"}, ("config.embedding.kind='numbers'", "ordinal, random or trained")),
        ({"quantizer.kind": "quantile"}, ("config.quantizer.kind='quantile'", "equal_width")),
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
