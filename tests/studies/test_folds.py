"""A study with folds tests every series once, and judges all folds together."""

import contextlib
import importlib.util
import io
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pytest
from conftest import CONFIGS, REPOSITORY, SYNTHETIC
from sklearn.metrics import average_precision_score, roc_auc_score

from spear_jax import main
from spear_jax.config import METHODS
from spear_jax.errors import InputError
from spear_jax.evaluation import paired_interval
from spear_jax.studies import (
    FOLD_PROTOCOL,
    POOLED,
    PlannedRun,
    Row,
    Study,
    compare_runs,
    load_study,
    make_table,
    plan,
    read_series,
    read_tables,
    results_of_study,
    run_study,
    seed_results,
    write_series,
    write_table,
)

pytestmark = pytest.mark.one_python

QUICKSTART = f"{CONFIGS / 'quickstart.py'}:debug"
OWN_PAST = CONFIGS / "studies" / "own_past.py"


def folded(rows: dict[str, Row], seeds: Sequence[int] = (0,), folds: int = 3) -> Study:
    reference = next(iter(rows))
    return Study(
        "f", "A title", "A question?", "method", rows, QUICKSTART, SYNTHETIC, seeds, reference=reference, folds=folds
    )


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Runs of a study as calls in this process; returns the list of their commands, which grows."""
    commands: list[list[str]] = []

    def call(command: list[str], *, stdout: IO[bytes], **_: object) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = main.main(command[3:])
        stdout.write(output.getvalue().encode())
        stdout.flush()
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", call)
    return commands


@pytest.mark.figures
@pytest.mark.landing
@pytest.mark.slow
def test_all_folds_are_run_and_pooled(tmp_path: Path, in_place: list[list[str]]) -> None:
    rows = {
        "boosting": Row({"method": "gradient_boosting", "train.normal_windows": 12}),
        "PCA": Row({"method": "sub_pca"}),
        "broken": Row({"backbone.name": "/nowhere"}),
    }
    study = folded(rows)
    page = run_study(study, {}, tmp_path / "s", tmp_path)
    assert len(in_place) == 9
    planned = plan(study, {})
    table, by_series = read_tables(tmp_path / "s")["f"], read_series(tmp_path / "s", "f")
    assert set(read_tables(tmp_path / "s")) == {"f"}  # the table by series is none of a study
    pooled = table[table["split"] == POOLED].set_index("run")
    assert list(pooled.index) == [planned[0].name, planned[3].name]
    for first in (0, 3):
        runs = [run.name for run in planned[first : first + 3]]
        scores = [pd.read_parquet(tmp_path / "s" / "runs" / run / "scores" / "test.parquet") for run in runs]
        tested = [set(frame["series"].astype(str)) for frame in scores]
        assert sum(map(len, tested)) == len(set.union(*tested)) == 6  # each series once
        everything = pd.concat(scores)
        label, score = everything["label"].to_numpy(), everything["score"].to_numpy()
        own = pooled.loc[runs[0]]
        assert own["auroc"] == pytest.approx(roc_auc_score(label, score))
        assert own["aupr"] == pytest.approx(average_precision_score(label, score))
        assert own["recall"] == pytest.approx(everything["predicted"][label].mean())
        assert (own["steps"], own["series"], own["anomalous_steps"]) == (len(label), 6, label.sum())
        by_hand = [
            roc_auc_score(series["label"], series["score"])
            for frame in scores
            for _, series in frame.astype({"series": str}).groupby("series")
        ]
        kept = by_series[by_series["run"].isin(runs)]
        assert sorted(kept["auroc"]) == pytest.approx(sorted(by_hand), abs=1e-6)
        assert own["series_auroc"] == pytest.approx(np.mean(by_hand))
        assert own["vus_pr"] == pytest.approx(kept["vus_pr"].mean(), rel=1e-5)
        split = table[(table["split"] == "test") & (table["control"] == "")].set_index("run")
        assert own["cpu_seconds"] == pytest.approx(split.loc[runs, "cpu_seconds"].sum())
    assert page.count("- failed: broken, seed 0, fold ") == 3
    assert "| broken | 0 of 1 | - |" in page
    assert max(line.count("|") for line in page.splitlines()) <= 9  # eight columns
    assert (tmp_path / "s" / "f.png").stat().st_size > 5000
    assert "gradient boosting" in compare_runs(tmp_path / "s")

    # What is published need not be run again, but an incomplete publication must be, since scores are not in it.
    study = folded({label: rows[label] for label in ("boosting", "PCA")})
    del in_place[:]
    again = run_study(study, {}, tmp_path / "other", tmp_path / "s")
    assert in_place == []
    pd.testing.assert_frame_equal(read_series(tmp_path / "other", "f"), by_series)
    assert (
        again.partition("Cost")[0]
        == page.replace("| broken | 0 of 1 | - | - | - | - | - | - |\n", "").partition("Cost")[0]
    )
    (tmp_path / "s" / "f_series.parquet").unlink()
    run_study(folded({"PCA": rows["PCA"]}), {}, tmp_path / "third", tmp_path / "s")
    assert len(in_place) == 3


def invented(figures: dict[str, list[list[list[float]]]]) -> tuple[Study, list[PlannedRun], pd.DataFrame, pd.DataFrame]:
    """Returns a study, its plan, table and series, given figures[row][seed][fold], a number per series."""
    lengths = (0, 4, 8)
    seeds = range(len(next(iter(figures.values()))))
    study = folded({row: Row({"prompt.length": m}) for row, m in zip(figures, lengths, strict=False)}, seeds, 2)
    planned = plan(study, {})
    rows, series = [], []
    for run in planned:
        own = figures[run.row][run.seed][run.fold]
        shared = {"run": run.name, "seed": run.seed, "control": "", "error": "", "warnings": "", "base_rate": 0.1}
        shared |= {"dataset": "synthetic", "random_weights": False, "method": "spear", "trained_on": "synthetic"}
        shared |= {"command": run.command, "backbone": "random:tiny"}
        metrics = {"auroc": np.mean(own), "aupr": np.mean(own), "vus_pr": np.mean(own)}
        rows += [{**shared, **metrics, "split": split} for split in ("validation", "test")]
        if not run.fold:
            mean = np.mean(np.concatenate(figures[run.row][run.seed]))
            metrics = dict.fromkeys(("auroc", "aupr", "vus_pr", "series_auroc", "series_aupr"), mean)
            rows.append({**shared, **metrics, "split": POOLED})
        series += [
            {"run": run.name, "series": f"{run.fold}-{i}", "steps": 9, "base_rate": 0.1}
            | {"auroc": value, "aupr": value, "vus_pr": value}
            for i, value in enumerate(own)
        ]
    return study, planned, make_table(rows, ""), pd.DataFrame(series)


def test_differences_are_paired_by_series_and_averaged_over_seeds() -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(0.1, 0.9, (2, 2, 6))
    second = first + rng.normal(0.05, 0.02, (2, 2, 6))
    study, planned, table, series = invented({"a": first.tolist(), "b": second.tolist()})
    page = results_of_study(study, planned, table, series)
    mean = (second - first).mean(axis=0)  # over seeds
    ends = paired_interval(mean.reshape(-1))
    assert ends and ends[0] < mean.mean() < ends[1] and ends[0] > 0
    cell = f"{mean.mean():+.3f} [{ends[0]:+.3f}, {ends[1]:+.3f}]"
    seeds = (second - first).mean(axis=(1, 2))
    pooled = f"{seeds.mean():+.3f} ± {seeds.std(ddof=1):.3f}"
    assert f"| b | 12 | {pooled} | {pooled} | {cell} | {cell} | {cell} |" in page
    assert "mean over the 12 series with normal and anomalous steps" in page
    assert "base rate 0.100" in page
    low, high = sorted(second.mean(axis=(0, 2)))
    assert f"| b | {low:.3f} to {high:.3f} |" in page
    results = seed_results(study, planned, table)
    assert results["row"].tolist() == ["a", "a", "b", "b"] and results["seed"].tolist() == [0, 1, 0, 1]
    expected = first.mean(axis=(1, 2)).tolist() + second.mean(axis=(1, 2)).tolist()
    np.testing.assert_allclose(results["validation_aupr"].astype(float), expected)


def test_a_fold_that_says_otherwise_is_named() -> None:
    study, planned, table, series = invented(
        {"a": [[[0.5, 0.5], [0.5, 0.5]]], "b": [[[0.4, 0.4], [0.8, 0.8]]], "c": [[[0.6, 0.6], [0.7, 0.7]]]}
    )
    page = results_of_study(study, planned, table, series)
    assert "- AUPR, pooled: b is above a over all folds (+0.100), but below it on fold 0 (-0.100)" in page
    assert "- VUS-PR by series: b is above a over all folds (+0.100), but below it on fold 0 (-0.100)" in page
    assert "c is above" not in page


def test_a_row_without_all_folds_is_not_pooled() -> None:
    study, planned, table, series = invented({"a": [[[0.5], [0.5]]], "b": [[[0.4], [0.8]]]})
    missing = planned[-1].name  # fold 1 of b
    table = table[(table["run"] != missing) & ~((table["run"] == planned[-2].name) & (table["split"] == POOLED))]
    page = results_of_study(study, planned, make_table(table.to_dict("records"), ""), series[series["run"] != missing])
    assert "| a | 1 | 0.500 |" in page
    assert "| b |" not in page
    assert "- not measured yet: b" in page


def test_a_paired_interval_covers_the_mean_of_other_series() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        ends = paired_interval(rng.normal(0.1, 1, 40))
        assert ends
        covered += ends[0] <= 0.1 <= ends[1]
    assert 0.88 <= covered / 200 <= 0.99
    assert paired_interval(np.array([0.1, np.nan])) is None
    assert paired_interval(np.array([0.1, 0.3, np.nan])) == paired_interval(np.array([0.1, 0.3]))


@pytest.mark.parametrize("data", FOLD_PROTOCOL)
@pytest.mark.parametrize("debug", [pytest.param("", marks=pytest.mark.slow), ",debug"])
def test_the_shipped_study_runs_every_method_on_the_same_folds(
    data: str, debug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    study = load_study(f"{OWN_PAST}:{data}{debug}")
    planned = plan(study, {})
    assert len(planned) == len(study.rows) * len(study.seeds) * 4
    assert {run.config["method"] for run in planned} <= METHODS.keys()
    for run in planned:
        assert (run.config["data.folds"], run.config["data.fold"]) == (4, run.fold)
        assert run.config["data.split"] == "series"
        assert bool(run.config["train.normal_windows"]) == (data in ("nasa81", "nab58"))
        assert ("random:tiny" in run.config["backbone.name"]) == bool(debug)
    # Rows may differ in what a window sees, and in nothing else of their data.
    own = {"data.window", "data.stride"}
    same = [
        {field: run.config[field] for field in run.config.keys() - own if field.startswith("data.")}
        for run in planned[:4]
    ]
    for start in range(0, len(planned), 4):
        others = [{field: run.config[field] for field in same[0]} for run in planned[start : start + 4]]
        assert others == same


def test_a_study_with_folds_refuses_a_single_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    study = load_study(f"{OWN_PAST}")
    assert study.name == "own_past-nasa81"
    with pytest.raises(
        InputError, match=r"config\.data\.fold has no effect on this study, which runs all of its 4 folds"
    ):
        plan(study, {"data.fold": "1"})
    with pytest.raises(InputError, match="nab58, nasa81 exclude each other"):
        load_study(f"{OWN_PAST}:nasa81,nab58")


def test_measured_folds_are_added_with_their_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    spec = importlib.util.spec_from_file_location("build", REPOSITORY / "results" / "build.py")
    assert spec and spec.loader
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    study, planned, table, series = invented({"a": [[[0.5, 0.4], [0.5, 0.6]]], "b": [[[0.4, 0.3], [0.8, 0.7]]]})
    monkeypatch.setattr(build, "load_planned", lambda path: (study, planned))
    (tmp_path / "kept").mkdir()
    for seconds in (1.0, 2.0):
        write_table(tmp_path / "f.parquet", make_table(table.assign(cpu_seconds=seconds).to_dict("records"), ""))
        write_series(tmp_path, "f", "", series.assign(auroc=series["auroc"] / seconds))
        build.add(tmp_path, tmp_path / "kept")
        kept = read_tables(tmp_path / "kept")["f"]
        assert len(kept) == len(table) and (kept["cpu_seconds"] == seconds).all()
        added = read_series(tmp_path / "kept", "f")
        assert added["auroc"].tolist() == (series["auroc"] / seconds).tolist()
