"""The card beside a detector: what the Hub reads of it, and that its numbers are those of the run."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from conftest import Run, Spear, quick, results
from etils import epath

from spear_jax.backbones.pretrained import load_backbone
from spear_jax.data.sources.mimic_iv.mimic_iv_parser import AGREEMENT
from spear_jax.detector.artifact import Detector


def card(folder: Path) -> str:
    return (folder / "README.md").read_text()


def metadata(folder: Path) -> Any:
    """As the Hub's own client reads it."""
    return huggingface_hub.ModelCard(card(folder)).data


def saved(finished: Run, folder: Path, **fields: Any) -> Path:
    """The finished run's detector with other fields."""
    detector = dataclasses.replace(Detector.load(epath.Path(finished.workdir)), **fields)
    detector.save(epath.Path(folder))
    return folder


def test_the_numbers_are_those_of_the_run(finished: Run) -> None:
    content, text = results(finished.workdir), card(finished.workdir / "detector")
    data = metadata(finished.workdir / "detector")
    assert data.library_name == "spear_jax"
    assert {"anomaly-detection", "time-series"} <= set(data.tags)
    assert "license" not in data.to_dict()
    found = {result.metric_name: result.metric_value for result in data.eval_results}
    assert found["AUROC"] == pytest.approx(content["test"]["auroc"], abs=1e-6)
    assert found["AUPR"] == pytest.approx(content["test"]["aupr"], abs=1e-6)
    assert {result.dataset_split for result in data.eval_results} == {"test"}
    rows = dict(re.findall(r"^\| ([^|]+) \| ([-\d.]+) \|", text, re.MULTILINE))
    assert rows["SPEAR"] == f"{content['test']['auroc']:.3f}"
    for name, label in (("random_scores", "random scores"), ("head_only", "head only (m = 0)")):
        assert rows[label] == f"{content['controls'][name]['test']['auroc']:.3f}"
    assert set(rows) == {
        "SPEAR",
        "random scores",
        "always normal",
        "bin lookup",
        "rolling z-score",
        "head only (m = 0)",
    }
    for said in (content["backbone"]["sha256"], f"{content['threshold']['value']:.4g}", "jax ", "arXiv 2510.03962"):
        assert said in text


def test_what_is_not_known_is_not_said(finished: Run, tmp_path: Path) -> None:
    data = metadata(saved(finished, tmp_path / "bare", test={}))
    assert data.eval_results is None
    assert "Numbers" not in card(tmp_path / "bare")
    assert data.base_model is None and "datasets" not in data.to_dict()


def test_the_base_model_is_named_where_the_hub_has_it(finished: Run, tmp_path: Path) -> None:
    about = Detector.load(epath.Path(finished.workdir)).backbone | {"pretrained": True}
    pinned = about | {"name": "google-bert/bert-base-uncased@main", "revision": "0" * 40}
    assert metadata(saved(finished, tmp_path / "hub", backbone=pinned)).base_model == "google-bert/bert-base-uncased"
    here = about | {"name": "/home/somebody/models/bert", "revision": "local"}
    assert metadata(saved(finished, tmp_path / "local", backbone=here)).base_model is None
    assert "/home/somebody" not in card(tmp_path / "local")
    for folder in (tmp_path / "hub", tmp_path / "local"):
        assert "RANDOM WEIGHTS" not in card(folder)


def test_warnings_travel(spear: Spear, finished: Run, tmp_path: Path) -> None:
    assert "RANDOM WEIGHTS" in card(finished.workdir / "detector")
    detector = Detector.load(
        epath.Path(saved(finished, tmp_path / "mimic", warnings=(AGREEMENT,), trained_on="mimic_iv"))
    )
    assert f"- {AGREEMENT}" in card(tmp_path / "mimic")
    assert "credentialed" in card(tmp_path / "mimic").split("## Use")[0]
    assert detector.remarks(load_backbone("random:tiny")) == [f"the detector: {AGREEMENT}"]
    assert spear(*quick(tmp_path / "run", {"data.labels": "rules"})).code == 0
    assert "made by the context rules" in card(tmp_path / "run" / "detector")


def test_its_python_runs(finished: Run) -> None:
    folder = finished.workdir / "detector"
    program = card(folder).split("```python")[1].split("```")[0].replace('"DETECTOR"', repr(str(folder)))
    names: dict[str, Any] = {"series": np.tile([0.0, 1.0, 0.5, 2.0], 40)}
    exec(program, names)
    assert len(names["scores"]) == 160


def test_its_command_runs(spear: Spear, finished: Run, tmp_path: Path) -> None:
    folder = finished.workdir / "detector"
    (tmp_path / "telemetry.csv").write_text("a\n" + "\n".join(map(str, range(50))))
    command = card(folder).split("```bash")[1].split("```")[0].split("spear_jax.main")[1]
    given = command.replace("DETECTOR", str(folder)).replace("telemetry.csv", str(tmp_path / "telemetry.csv"))
    told = spear(*given.replace("=scored", f"={tmp_path / 'scored'}").split())
    assert (told.code, told.err) == (0, "")
    assert (tmp_path / "scored" / "scores.parquet").exists()
