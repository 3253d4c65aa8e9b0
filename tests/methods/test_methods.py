"""Methods that the training loop has no part in, through the same command."""

import shlex
from pathlib import Path

import pandas as pd
import pytest
from conftest import SPLITS, Spear, check_refusal, check_scores, quick_on, results

from spear_jax.methods import registry

pytestmark = pytest.mark.one_python


@pytest.mark.parametrize("method", [*registry.UNSUPERVISED, *registry.SUPERVISED])
def test_a_classical_method_leaves_what_a_trained_one_does(
    method: str, spear: Spear, nasa: Path, tmp_path: Path
) -> None:
    reference, workdir = tmp_path / "lstm", tmp_path / method
    assert spear(*quick_on(nasa, reference, {"method": "lstm"})).code == 0
    outcome = spear(*quick_on(nasa, workdir, {"method": method}))
    assert outcome.code == 0, outcome.err
    content, other = results(workdir), results(reference)
    assert content["method"] == method
    assert content["backbone"] == {}
    assert content["trained"] == []
    assert content["splits"] == other["splits"]
    assert content["controls"] == other["controls"]
    assert content["test"].keys() == other["test"].keys()
    check_scores(workdir)
    for split in SPLITS:
        mine, theirs = (pd.read_parquet(run / "scores" / f"{split}.parquet") for run in (workdir, reference))
        pd.testing.assert_frame_equal(mine[["series", "step", "label"]], theirs[["series", "step", "label"]])
    assert not (workdir / "detector").exists()
    again = spear(*quick_on(nasa, workdir, {"method": method}))
    assert again.code == 0
    assert "this run is done" in again.out


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
