"""RESULTS.md says what lies in results/, and nothing else lies there."""

import importlib.util
import json
import shlex
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from conftest import REPOSITORY

from spear_jax import main
from spear_jax.config import reading
from spear_jax.studies import runner
from spear_jax.studies.study import load_study


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(REPOSITORY)
    spec = importlib.util.spec_from_file_location("build", REPOSITORY / "results" / "build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_results_say(build: ModuleType, tmp_path: Path) -> None:
    build.check_defaults()
    page = build.PAGE.read_text()
    found = build.SECTION.findall(page)
    assert len(found) > 5
    for _, path, _ in found:
        assert f"<!-- {path} -->\n{build.section(path, tmp_path)}<!-- end -->" in page
    assert {path.name for path in tmp_path.glob("*.png")} == {path.name for path in build.FIGURES.glob("*.png")}


def test_every_result_is_of_the_run_that_its_name_says(build: ModuleType) -> None:
    shown = {
        one.name
        for _, path, _ in build.SECTION.findall(build.PAGE.read_text())
        for one in runner.plan(load_study(path), {})
    }
    for file in build.HERE.glob("*.json"):
        assert file.stem in shown
        content = json.loads(file.read_text())
        if "error" in content:
            continue
        assert content["backbone"].get("pretrained", True) or content["backbone"]["name"].startswith("random:")
        flags = main.parse_flags([*shlex.split(content["command"])[3:], "--workdir=x"])
        if flags.mode != "train" or "train.init_from" in flags.overrides:
            continue
        config = reading.load_config(flags.config)
        for field, text in flags.overrides.items():
            reading.override(config, field, text)
        assert runner.run_name(config) == file.stem


def test_results_of_other_defaults_are_refused(build: ModuleType, tmp_path: Path) -> None:
    build.HERE, study = tmp_path, load_study("configs/studies/bins.py:nasa")
    build.check_defaults()
    build.copy(study, tmp_path)
    build.check_defaults()
    defaults = tmp_path / runner.DEFAULTS
    defaults.write_text(defaults.read_text().replace("train.epochs=40", "train.epochs=41"))
    with pytest.raises(build.InputError, match=r"train\.epochs was 41, is 40"):
        build.check_defaults()


def test_failed_runs_and_single_seeds_stay_on_the_page(build: ModuleType, tmp_path: Path) -> None:
    path = "configs/studies/bins.py:nasa"
    study = load_study(path)
    failed, done, *_ = runner.plan(study, {})
    numbers = json.loads(next(build.HERE.glob("nasa-spear-*.json")).read_text())
    (tmp_path / "runs" / done.name).mkdir(parents=True)
    (tmp_path / "runs" / done.name / "results.json").write_text(json.dumps(numbers))
    table = pd.DataFrame({"run": [failed.name, done.name], "error": ["exit code 1: no space", None]})
    table.to_csv(tmp_path / f"{study.name}.csv")
    build.HERE = tmp_path / "kept"
    build.HERE.mkdir()
    build.copy(study, tmp_path)
    text = build.section(path, tmp_path)
    assert f"- failed: `{failed.name}` (seed 0): exit code 1: no space" in text
    assert "| 50 | 1 of 3 |" in text
    assert "Not measured yet: 50 (seed 2); 100; 200; 500." in text
