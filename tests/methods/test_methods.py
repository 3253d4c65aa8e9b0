"""Tests the methods outside the training loop, through the same command."""

import inspect
import shlex
from pathlib import Path

import pandas as pd
import pytest
from conftest import SPLITS, Spear, check_refusal, check_scores, quick_on, results, write_nasa

from spear_jax.config import METHODS
from spear_jax.methods.implementations import find_implementation
from spear_jax.methods.supervised import CLASSIFIERS
from spear_jax.methods.unsupervised import DETECTORS

pytestmark = pytest.mark.one_python


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_an_implementation(method: str) -> None:
    assert list(inspect.signature(find_implementation(method)).parameters) == ["config", "dataset", "record"]


@pytest.fixture(scope="module")
def lstm_run(spear: Spear, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a method that is trained in the loop, beside the data in nasa/."""
    folder = tmp_path_factory.mktemp("lstm")
    data = write_nasa(folder / "nasa", {f"A-{i}": [(10, 20), (40, 49), (100, 110), (140, 150)] for i in range(6)})
    assert spear(*quick_on(data, folder / "run", {"method": "lstm"})).code == 0
    return folder / "run"


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, marks=[] if method in ("isolation_forest", "logistic_regression") else [pytest.mark.slow])
        for method in (*DETECTORS, *CLASSIFIERS)
    ],
)
def test_a_classical_method_writes_what_a_trained_one_does(
    method: str, spear: Spear, lstm_run: Path, tmp_path: Path
) -> None:
    arguments = quick_on(lstm_run.parent / "nasa", tmp_path / method, {"method": method})
    outcome, workdir = spear(*arguments), tmp_path / method
    assert outcome.code == 0, outcome.err
    content, trained = results(workdir), results(lstm_run)
    assert content["method"] == method
    assert content["backbone"] == {}
    assert content["trained"] == []
    assert content["splits"] == trained["splits"]
    assert content["controls"] == trained["controls"]
    assert content["test"].keys() == trained["test"].keys()
    check_scores(workdir)
    for split in SPLITS:
        steps, trained_steps = (
            pd.read_parquet(run / "scores" / f"{split}.parquet")[["series", "step", "label"]]
            for run in (workdir, lstm_run)
        )
        pd.testing.assert_frame_equal(steps, trained_steps)
    assert not (workdir / "detector").exists()
    assert "this run is done" in spear(*arguments).out


def test_results_carry_the_command_that_gives_them_again(spear: Spear, nasa: Path, tmp_path: Path) -> None:
    arguments = quick_on(nasa, tmp_path / "first", {"method": "gradient_boosting", "data.labels": "recorded"})
    assert spear(*arguments).code == 0
    command = results(tmp_path / "first")["command"]
    assert command.startswith("python -m spear_jax.main --config=")
    assert "--workdir" not in command
    assert spear(*shlex.split(command)[3:], f"--workdir={tmp_path / 'second'}").code == 0
    assert results(tmp_path / "second")["test"] == results(tmp_path / "first")["test"]


def test_an_unknown_method_is_refused(spear: Spear, nasa: Path, tmp_path: Path) -> None:
    refused = spear(*quick_on(nasa, tmp_path / "run", {"method": "oracle"}))
    check_refusal(refused, "config.method='oracle'", "isolation_forest")
