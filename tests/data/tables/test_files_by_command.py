"""Own files through the command line: preview, training, scores and refusals."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Spear, check_refusal, check_scores, command, results
from own_files import frame


def test_scoring_prefers_the_columns_named_in_training(spear: Spear, tmp_path: Path) -> None:
    table = big(tmp_path / "t.csv")
    frame = pd.read_csv(table).rename(columns={"label": "fault"})
    frame.assign(extra=1.5).to_csv(table, index=False)
    named = {"data.dir": table, "data.label_column": "fault", "data.value_columns": "t1,t2"}
    assert spear(*command("files:debug", QUICK | named, workdir=tmp_path / "run")).code == 0
    score = ("--mode=score", f"--detector={tmp_path / 'run'}", f"--input={table}")
    assert spear(*score, f"--workdir={tmp_path / 'o'}").code == 0
    assert set(pd.read_parquet(tmp_path / "o" / "scores.parquet")["series"]) == {"t/t1", "t/t2"}
    frame.drop(columns=["fault", "t2"]).to_csv(tmp_path / "new.csv", index=False)
    outcome = spear(*score[:2], f"--input={tmp_path / 'new.csv'}", f"--workdir={tmp_path / 'n'}")
    check_refusal(outcome, "new.csv: no column 't2' (data.value_columns); found t1")


def test_another_column_in_a_file_of_the_same_name_has_its_own_scale(spear: Spear, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    frame = pd.read_csv(big(tmp_path / "a" / "export.csv"))
    frame[["t1", "label"]].rename(columns={"t1": "pressure"}).to_csv(tmp_path / "a" / "export.csv", index=False)
    (4000 + 9 * frame[["t1"]]).rename(columns={"t1": "temp"}).to_csv(tmp_path / "b" / "export.csv", index=False)
    fields = QUICK | {"data.dir": tmp_path / "a" / "export.csv"}
    assert spear(*command("files:debug", fields, workdir=tmp_path / "run")).code == 0
    score = ("--mode=score", f"--detector={tmp_path / 'run'}")
    for folder, message in (("a", "scaled as in training: export"), ("b", "scaled by their own first")):
        outcome = spear(*score, f"--input={tmp_path / folder / 'export.csv'}", f"--workdir={tmp_path / folder / 'o'}")
        assert message in outcome.out, outcome.err


@pytest.mark.parametrize("where", ["https://example.org/t.csv", "foo://x"])
def test_other_urls_are_refused(spear: Spear, tmp_path: Path, where: str) -> None:
    message = f"{where} must be a local path or begin with gs://"
    score = ("--mode=score", f"--workdir={tmp_path / 'o'}")
    check_refusal(spear(*score, "--detector=run", f"--input={where}"), f"--input={message}")
    check_refusal(spear(*score, f"--detector={where}", "--input=t.csv"), f"--detector={message}")
    check_refusal(spear(*command("files:debug", {"data.dir": where}, mode="preview")), f"config.data.dir={message}")


def test_own_files_need_no_preparation(spear: Spear, tmp_path: Path) -> None:
    outcome = spear(*command("files:debug", {"data.dir": tmp_path}, mode="prepare"))
    assert outcome.code == 0 and "there is nothing to prepare" in outcome.out


def big(path: Path, rows: int = 1600) -> Path:
    rng = np.random.default_rng(1)
    step = np.arange(rows)
    labels = step % 200 > 180
    values = np.sin(step / 6) + rng.normal(0, 0.1, rows) + 2 * labels
    pd.DataFrame({"t1": values, "t2": values[::-1], "label": labels.astype(int)}).to_csv(path, index=False)
    return path


QUICK = {
    "controls.head_only": "false",
    "data.window": "32",
    "data.stride": "32",
    "data.gap": "0",
    "prompt.length": "4",
    "train.batch_size": "8",
    "train.epochs": "1",
    "score.batch_size": "8",
}


def test_own_file_from_preview_to_scores(spear: Spear, tmp_path: Path) -> None:
    table = big(tmp_path / "telemetry.csv")
    shown = spear(*command("files:debug", QUICK | {"data.dir": table}, mode="preview"))
    assert shown.code == 0, shown.err
    assert "2 series, 3,200 steps" in shown.out
    assert "telemetry/t1" in shown.out and "0.0950" in shown.out
    assert "train: 2 series" in shown.out

    run = tmp_path / "run"
    trained = spear(*command("files:debug", QUICK | {"data.dir": table, "data.combine": "max"}, workdir=run))
    assert trained.code == 0, trained.err
    content = results(run)
    assert content["dataset"] == "files"
    tables = pd.read_parquet(run / "scores" / "test.parquet")
    assert len(tables) == 320  # one score per row, not per column
    assert not tables.duplicated(["series", "step"]).any()
    assert tables["series"].unique().tolist() == ["telemetry"] and content["splits"]["test"]["series"] == 1
    assert pd.read_parquet(run / "per_series.parquet")["series"].unique().tolist() == ["telemetry"]
    page = (run / "report.html").read_text()
    assert "Test split: 1 series, 320 steps" in page and "1 of 1 series" in page and "the first column" in page

    score = ("--mode=score", f"--detector={run}", f"--input={table}")
    scored = spear(*score, f"--workdir={tmp_path / 'combined'}")
    assert "1,600 rows of 1 series scored" in scored.out  # as in training
    scored = spear(*score, f"--workdir={tmp_path / 'scored'}", "--config.data.combine=none")
    assert scored.code == 0, scored.err
    assert "1,600 rows of 2 series scored" in scored.out
    loaded = pd.read_parquet(tmp_path / "scored" / "scores.parquet")
    assert list(loaded.columns) == ["series", "step", "timestamp", "value", "score", "predicted"]
    assert loaded.groupby("series").size().to_dict() == {"telemetry/t1": 1600, "telemetry/t2": 1600}


def test_remarks_come_before_a_refused_split(spear: Spear, tmp_path: Path) -> None:
    frame().assign(pump=1.5).to_csv(tmp_path / "own.csv", index=False)
    shown = spear(*command("files:debug", {"data.dir": tmp_path / "own.csv", "data.window": "128"}, mode="preview"))
    assert "column 'pump' is constant (1.5)" in shown.out
    assert shown.code == 2 and shown.err.startswith("error: data.split='time'")


def test_without_labels_the_error_names_the_choices(spear: Spear, tmp_path: Path) -> None:
    table = big(tmp_path / "telemetry.csv")
    pd.read_csv(table).drop(columns="label").to_csv(table, index=False)
    arguments = command("files:debug", QUICK | {"data.dir": table}, workdir=tmp_path / "run")
    check_refusal(spear(*arguments), "no label column", "data.labels=rules", "data.labels=injected", "data.intervals")
    assert not (tmp_path / "run").exists()
    shown = spear(*command("files:debug", QUICK | {"data.dir": table}, mode="preview"))
    assert shown.code == 2 and "no label column" in shown.err and "--config.data.label_column" in shown.err
    assert "3,200 steps" in shown.out and "telemetry/t1" in shown.out and "no labels" in shown.out
    outcome = spear(
        *command("files:debug", QUICK | {"data.dir": table, "data.labels": "rules"}, workdir=tmp_path / "run")
    )
    assert outcome.code == 0, outcome.err
    check_scores(tmp_path / "run")
