"""Runs the examples, with the files and shapes that other projects' harnesses use."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import REPOSITORY, Spear

pytestmark = pytest.mark.one_python


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "examples" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_pyod(spear: Spear, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyod")
    scores = load("with_pyod").main("random:tiny")
    assert list(scores) == ["SPEAR", "IForest", "mean of both"]
    assert {series_scores.shape for series_scores in scores.values()} == {(8 * 1024,)}
    printed = capsys.readouterr().out
    for name in scores:
        assert f"{name} ROC:" in printed


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.filterwarnings("ignore:data.labels")
def test_tsb_ad_finds_the_files_and_shapes_that_it_asks_for(spear: Spear, tmp_path: Path, labelled: bool) -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(400, 2))
    np.save(tmp_path / "data.npy", data)
    if labelled:
        labels = np.zeros(300, int)
        labels[50:60] = labels[250:260] = 1
        np.save(tmp_path / "train_labels.npy", labels)
    arguments = {"backbone": "random:tiny", "window": 16, "prompt_length": 2, "epochs": 1, "verbose": False}
    scores = load("with_tsb_ad").fit(tmp_path, **arguments)
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), scores)
    assert scores.shape == (400,) and np.isfinite(scores).all()
