"""RESULTS.md says what lies in results/, and nothing else lies there."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from conftest import REPOSITORY

from spear_jax import config as configs
from spear_jax import main, studies


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
        for one in studies.plan(studies.load(path), {})
    }
    for file in build.HERE.glob("*.json"):
        assert file.stem in shown
        content = json.loads(file.read_text())
        assert content["backbone"].get("pretrained", True) or content["backbone"]["name"].startswith("random:")
        flags = main.parse([*content["command"].split()[3:], "--workdir=x"])
        if flags.mode != "train" or "train.init_from" in flags.overrides:
            continue
        config = configs.load_config(flags.config)
        for field, text in flags.overrides.items():
            configs.override(config, field, text)
        assert studies.run_name(config) == file.stem


def test_results_of_other_defaults_are_refused(build: ModuleType, tmp_path: Path) -> None:
    build.DEFAULTS = tmp_path / "defaults.txt"
    build.check_defaults()
    build.copy([], tmp_path)
    build.check_defaults()
    build.DEFAULTS.write_text(build.DEFAULTS.read_text().replace("train.epochs=40", "train.epochs=41"))
    with pytest.raises(build.InputError, match=r"train\.epochs was 41, is 40"):
        build.check_defaults()
