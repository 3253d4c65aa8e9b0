"""Detectors by id: pushed to a Hub on this machine and pulled from it."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import hub_server
import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, Outcome, Run, Spear, check_refusal, evaluate, quick, results
from hub_server import COMMIT, TOKEN, Hub
from huggingface_hub import constants
from safetensors.numpy import load_file

import spear_jax
from spear_jax.errors import InputError

pytestmark = [pytest.mark.one_python, pytest.mark.usefixtures("elsewhere")]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder that holds no some/model, an empty cache, no Hub."""
    hub_server.leave(tmp_path, monkeypatch)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def hub(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A Hub that has the finished run's detector, as `hf upload some/model runs/x/detector` puts it there."""
    shutil.copytree(finished.workdir / "detector", tmp_path / "served")
    (tmp_path / "served" / "pytorch_model.bin").write_bytes(b"not wanted")
    with hub_server.serve(tmp_path / "served", monkeypatch) as handler:
        yield handler


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("table") / "t.csv"
    pd.DataFrame({"a": np.sin(np.arange(100) / 5)}).to_csv(file, index=False)
    return file


def score(spear: Spear, detector: Path | str, table: Path, workdir: Path) -> Outcome:
    return spear("--mode=score", f"--detector={detector}", f"--input={table}", f"--workdir={workdir}")


def scores(workdir: Path) -> np.ndarray:
    return pd.read_parquet(workdir / "scores.parquet")["score"].to_numpy()


@pytest.mark.parametrize("name", ["some/model", "some/model@v1", f"some/model@{COMMIT}"])
def test_a_pulled_detector_gives_the_same_scores(
    spear: Spear, finished: Run, hub: type[Hub], table: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score(spear, finished.workdir, table, tmp_path / "own").code == 0
    told = score(spear, name, table, tmp_path / "pulled")
    assert (told.code, told.err) == (0, "")
    assert f"detector {name}: commit {COMMIT} of the Hub" in told.out
    np.testing.assert_array_equal(scores(tmp_path / "pulled"), scores(tmp_path / "own"))
    assert not list((tmp_path / "hub").rglob("pytorch_model.bin"))
    # From then on without the Hub.
    hub_server.place(hub_server.NOWHERE, monkeypatch)
    again = score(spear, f"some/model@{COMMIT}", table, tmp_path / "again")
    assert (again.code, again.err) == (0, "")
    np.testing.assert_array_equal(scores(tmp_path / "again"), scores(tmp_path / "own"))


def test_what_the_documented_command_pushes_gives_the_same_scores(
    spear: Spear, finished: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (written,) = re.findall(
        r"^(hf upload .*?) *(?:#.*)?$", (REPOSITORY / "docs" / "detector.md").read_text(), re.MULTILINE
    )
    program, *words = written.replace("USER/NAME", "some/model").split()
    shutil.copytree(finished.workdir / "detector", Path("runs/telemetry/detector"))
    (tmp_path / "pushed").mkdir()
    with hub_server.serve(tmp_path / "pushed", monkeypatch):
        own = {"HF_ENDPOINT": constants.ENDPOINT, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf")}
        done = subprocess.run(
            [Path(sys.executable).parent / program, *words], env=os.environ | own, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert COMMIT in done.stdout
        left = {path.name: path.read_bytes() for path in Path("runs/telemetry/detector").iterdir()}
        assert {path.name: path.read_bytes() for path in (tmp_path / "pushed").iterdir()} == left
        assert {"README.md", "detector.json", "detector.safetensors"} <= set(left)
        assert score(spear, "some/model", table, tmp_path / "pulled").code == 0
    assert score(spear, finished.workdir, table, tmp_path / "own").code == 0
    np.testing.assert_array_equal(scores(tmp_path / "pulled"), scores(tmp_path / "own"))


@pytest.mark.parametrize("name", ["some/model", "some/model@v1"])
def test_the_estimator_loads_a_detector_by_its_id(
    spear: Spear, finished: Run, hub: type[Hub], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.sin(np.arange(100) / 5)
    own = spear_jax.SpearDetector.load(str(finished.workdir))
    pulled = spear_jax.SpearDetector.load(name)
    assert pulled.get_params() == own.get_params()
    np.testing.assert_array_equal(pulled.decision_function(values), own.decision_function(values))
    with pytest.raises(InputError, match="no/model: no such folder; the Hub"):
        spear_jax.SpearDetector.load("no/model")
    hub_server.place(hub_server.NOWHERE, monkeypatch)
    assert spear_jax.SpearDetector.load(name).threshold_ == own.threshold_


def test_a_pulled_detector_is_evaluated(spear: Spear, finished: Run, hub: type[Hub], tmp_path: Path) -> None:
    arguments = evaluate(Path("some/model"), tmp_path / "run")
    outcome = spear(*arguments)
    assert (outcome.code, outcome.err) == (0, "")
    assert results(tmp_path / "run")["test"] == results(finished.workdir)["test"]
    assert results(tmp_path / "run")["training"]["commit"] == COMMIT


def test_training_starts_from_a_pulled_detector(spear: Spear, finished: Run, hub: type[Hub], tmp_path: Path) -> None:
    fields = {"train.init_from": "some/model", "train.prompt_learning_rate": 0, "train.head_learning_rate": 0}
    outcome = spear(*quick(tmp_path / "run", fields))
    assert (outcome.code, outcome.err) == (0, "")
    found, started = (load_file(w / "detector" / "detector.safetensors") for w in (tmp_path / "run", finished.workdir))
    np.testing.assert_array_equal(found["prompt.vectors"], started["prompt.vectors"])


def test_a_folder_comes_before_the_hub(
    spear: Spear, finished: Run, hub: type[Hub], table: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished.workdir / "detector", Path("some") / "model")
    told = score(spear, "some/model", table, tmp_path / "out")
    assert told.code == 0
    assert "of the Hub" not in told.out
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("no/model", ["no/model: no such folder", "has no readable 'main' of 'no/model'", "RepositoryNotFoundError"]),
        ("some/model@v9", ["has no readable 'v9' of 'some/model'", "RevisionNotFoundError"]),
    ],
)
def test_what_the_hub_does_not_have(
    spear: Spear, hub: type[Hub], table: Path, tmp_path: Path, name: str, parts: list[str]
) -> None:
    check_refusal(score(spear, name, table, tmp_path / "out"), "hf auth login", *parts)
    check_refusal(spear(*evaluate(Path(name), tmp_path / "out")), *parts)
    check_refusal(spear(*quick(tmp_path / "out", {"train.init_from": name})), "config.train.init_from=", *parts)
    assert not (tmp_path / "out").exists()


def test_a_repository_without_a_detector(spear: Spear, hub: type[Hub], table: Path, tmp_path: Path) -> None:
    (hub.folder / "detector.json").unlink()
    check_refusal(score(spear, "some/model", table, tmp_path / "out"), COMMIT, "no detector.json there")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["no network", "HF_HUB_OFFLINE"])
def test_offline(
    spear: Spear, hub: type[Hub], table: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "no network":
        hub_server.place(hub_server.NOWHERE, monkeypatch)
    else:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    begun = time.monotonic()
    outcome = score(spear, "some/model", table, tmp_path / "out")
    check_refusal(outcome, "some/model: no such folder", "cannot be reached (", f"the cache {tmp_path / 'hub'}")
    assert time.monotonic() - begun < 10
    assert not (tmp_path / "out").exists()


def test_offline_with_what_was_pulled_before(
    spear: Spear, hub: type[Hub], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score(spear, "some/model", table, tmp_path / "first").code == 0
    hub_server.place(hub_server.NOWHERE, monkeypatch)
    told = score(spear, "some/model", table, tmp_path / "second")
    assert (told.code, told.err) == (0, "")
    assert COMMIT in told.out
    np.testing.assert_array_equal(scores(tmp_path / "first"), scores(tmp_path / "second"))


def test_an_interrupted_download_leaves_nothing_and_the_next_one_goes_on(
    spear: Spear, finished: Run, hub: type[Hub], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the client's own tries
    hub.cut = True
    outcome = score(spear, "some/model", table, tmp_path / "out")
    check_refusal(
        outcome, "some/model: no such folder; the download of 'some/model' from the Hub", "the same command resumes it"
    )
    assert not (tmp_path / "out").exists()
    hub.cut = False
    assert score(spear, "some/model", table, tmp_path / "out").code == 0
    assert score(spear, finished.workdir, table, tmp_path / "own").code == 0
    np.testing.assert_array_equal(scores(tmp_path / "out"), scores(tmp_path / "own"))
