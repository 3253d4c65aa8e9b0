"""A folder belongs to one run: the same config and, of the user's own files, the same data."""

from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from conftest import CONFIGS, Spear, check_refusal, command, contents, log
from etils import epath

from spear_jax.commands.run_folder import settle_dtype
from spear_jax.config import load_valid_config, to_json

QUICK: dict[str, object] = {
    "data.window": 32,
    "data.stride": 32,
    "data.gap": 0,
    "prompt.length": 4,
    "train.batch_size": 8,
    "score.batch_size": 8,
    "controls.head_only": "false",
}


def write_table(path: Path, seed: int = 0) -> Path:
    values = np.random.default_rng(seed).normal(size=480).round(4)
    pd.DataFrame({"value": values, "label": (np.arange(480) % 40 > 35).astype(int)}).to_csv(path, index=False)
    return path


def train(table: Path, workdir: Path, epochs: int = 1) -> tuple[str, ...]:
    return command("files:debug", QUICK | {"data.dir": table, "train.epochs": epochs}, workdir=workdir)


def test_a_finished_run_on_own_files_is_only_that_of_the_same_data(spear: Spear, tmp_path: Path) -> None:
    run, first, other = tmp_path / "run", write_table(tmp_path / "a.csv"), write_table(tmp_path / "b.csv", seed=1)
    trained = spear(*train(first, run))
    assert trained.code == 0, trained.err
    folder_line = trained.out.splitlines()[-1]
    assert folder_line.startswith(f"{run}: report.html, results.json, per_series.parquet, scores/, figures/, detector/")
    before = contents(run)
    check_refusal(spear(*train(other, run)), f"--workdir={run}: contains a run on other data", "a.csv", "b.csv")
    check_refusal(spear(*train(other, run, epochs=2)), "contains a run on other data")
    assert contents(run) == before

    moved = first.rename(tmp_path / "moved.csv")
    again = spear(*train(moved, run))
    assert again.code == 0 and "this run is done" in again.out
    assert again.out.splitlines()[-1].startswith(f"{run}: report.html")
    assert contents(run) == before
    assert "resuming at step" in spear(*train(moved, run, epochs=2)).out
    assert [line["epoch"] for line in log(run) if line["kind"] == "evaluation"] == [1, 2]


def test_a_file_that_was_changed_in_its_place_is_other_data(spear: Spear, tmp_path: Path) -> None:
    run, table = tmp_path / "run", write_table(tmp_path / "a.csv")
    assert spear(*train(table, run)).code == 0
    before = pd.read_csv(table)
    write_table(table, seed=1)
    check_refusal(spear(*train(table, run)), "with different values)")
    before.assign(label=before["label"][::-1].to_numpy()).to_csv(table, index=False)
    check_refusal(spear(*train(table, run)), "with different labels)")


def test_a_run_of_an_earlier_version_goes_on_with_the_same_path_only(spear: Spear, tmp_path: Path) -> None:
    run, table = tmp_path / "run", write_table(tmp_path / "a.csv")
    assert spear(*train(table, run)).code == 0
    (run / "data.json").unlink()
    assert "this run is done" in spear(*train(table, run)).out
    check_refusal(spear(*train(table.rename(tmp_path / "b.csv"), run)), "contains a run on other data")


@pytest.mark.parametrize("stored", ["", "float32", "bfloat16"])
@pytest.mark.parametrize(("platform", "suits"), [("tpu", "bfloat16"), ("cpu", "float32")])
def test_a_dtype_is_chosen_once_and_kept_on_every_machine(
    platform: str, suits: str, stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_valid_config(str(CONFIGS / "quickstart.py"), {})
    assert config.backbone.dtype == "auto"
    if stored:
        begun = load_valid_config(str(CONFIGS / "quickstart.py"), {"backbone.dtype": stored})
        (tmp_path / "config.json").write_text(to_json(begun))
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    settle_dtype(config, epath.Path(tmp_path))
    assert config.backbone.dtype == (stored or suits)


def test_a_dtype_that_is_named_is_never_replaced(tmp_path: Path) -> None:
    fields = {"backbone.dtype": "bfloat16"}
    config = load_valid_config(str(CONFIGS / "quickstart.py"), fields)
    (tmp_path / "config.json").write_text(to_json(load_valid_config(str(CONFIGS / "quickstart.py"), {})))
    settle_dtype(config, epath.Path(tmp_path))
    assert config.backbone.dtype == "bfloat16"
