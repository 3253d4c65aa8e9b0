"""The program as its user meets it: flags, what a run writes, and the same folder again."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import (
    CONFIGS,
    SPLITS,
    SYNTHETIC,
    TINY,
    Run,
    Spear,
    check_log,
    check_refusal,
    check_scores,
    command,
    contents,
    log,
    quick,
    quick_on,
    results,
    write_nasa,
)

from spear_jax import main, storage
from spear_jax.commands import usage
from spear_jax.config import BACKBONES

POINTWISE = {"accuracy", "precision", "recall", "f1", "auroc", "aupr", "base_rate"}
CONTROLS = {"random_scores", "always_normal", "bin_lookup", "rolling_zscore", "head_only"}


# --- Help and flags -----------------------------------------------------


def test_help_shows_every_mode_and_imports_nothing_heavy() -> None:
    heavy = "{'jax', 'flax', 'tensorflow', 'torch', 'transformers', 'pandas'} & set(sys.modules)"
    script = f"import sys; from spear_jax.main import main; print(main(['--help']), {heavy})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    *text, last = done.stdout.splitlines()
    assert last == "0 set()"
    assert done.stderr == ""
    for mode in usage.MODES:
        assert any(line.split()[:1] == [mode] for line in text)
        flag = f"--mode={mode} "
        assert mode == "train" or any("python -m spear_jax.main" in line and flag in line for line in text)
    assert set(BACKBONES) <= set(" ".join(text).replace(",", " ").split())


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--mode=no", "--help"]])
def test_help_comes_first(spear: Spear, arguments: list[str]) -> None:
    outcome = spear(*arguments)
    assert (outcome.code, outcome.err) == (0, "")
    assert "--config.FIELD=VALUE" in outcome.out


QUICKSTART = f"--config={CONFIGS / 'quickstart.py'}:debug"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["--mode=train needs --config", "--help"]),
        ([QUICKSTART], ["--mode=train needs --workdir", "--workdir=runs/first"]),
        ([QUICKSTART, "--workdir"], ["--workdir needs a value"]),
        ([QUICKSTART, "--workdir=x", "--epochs=3"], ["'--epochs=3'", "--config.FIELD"]),
        ([QUICKSTART, "x"], ["unknown argument 'x'", "--workdir"]),
        ([QUICKSTART, "-workdir=x"], ["unknown argument '-workdir=x'"]),
        ([QUICKSTART, "--mode=tune"], ["--mode=tune must be one of", *usage.MODES]),
        ([QUICKSTART, "--mode=evaluate", "--workdir=x"], ["needs --detector"]),
        ([QUICKSTART, "--workdir=x", "--detector=y"], ["--detector only applies to --mode=evaluate"]),
        (["--config=configs/studies/bins.py", "--workdir=x"], ["is not a config", "--mode=study"]),
        ([QUICKSTART, "--mode=study", "--workdir=x"], ["is not a study", "configs/studies/bins.py"]),
        ([QUICKSTART, "--workdir=x", "--distributed=yes"], ["--distributed=yes must be one of auto, on, off"]),
    ],
)
def test_bad_flags(spear: Spear, arguments: list[str], parts: list[str]) -> None:
    check_refusal(spear(*arguments), *parts)
    assert not Path("x").exists()


def test_a_failed_write_names_the_folder(spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.epath.Path, "write_bytes", fail)
    monkeypatch.setattr(Path, "write_bytes", fail)
    outcome = spear(*quick(tmp_path / "run"))
    assert outcome.code == 1
    assert outcome.err.startswith(f"stopped: {tmp_path / 'run'}: [Errno 28] No space left on device; once that is")


def test_flag_and_value_may_be_two_words() -> None:
    flags = main.parse_flags([*QUICKSTART.split("="), "--workdir", "x", "--config.train.epochs", "5"])
    assert (flags.config, flags.workdir) == (QUICKSTART.partition("=")[2], "x")
    assert flags.overrides == {"train.epochs": "5"}


def test_generated_data_need_no_preparation(spear: Spear) -> None:
    outcome = spear(QUICKSTART, "--mode=prepare")
    assert outcome.code == 0
    assert "nothing to prepare" in outcome.out


def test_prepare_reads_the_local_copy(spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPEAR_DATA_DIR", raising=False)
    monkeypatch.setenv("TFDS_DATA_DIR", "gs://nowhere/to/download/to")
    gone = tmp_path / "gone"
    check_refusal(spear(*command("nasa", {"data.dir": gone}, mode="prepare")), gone, "no such")


# --- What a run writes --------------------------------------------------


def test_results_follow_the_contract(finished: Run) -> None:
    content = results(finished.workdir)
    assert content["schema"] == 1
    assert (content["dataset"], content["seed"]) == ("synthetic", 0)
    assert content["backbone"] == {
        "name": "random:tiny",
        "revision": "seed=0",
        "sha256": content["backbone"]["sha256"],
        "dtype": "float32",
        "int8": "none",
        "attention": "bidirectional",
        "pretrained": False,
    }
    assert len(content["backbone"]["sha256"]) == 64
    for split in SPLITS:
        sizes = content["splits"][split]
        assert sizes.keys() == {"series", "windows", "steps", "anomalous_steps"}
        assert content[split].keys() >= POINTWISE
        assert sizes["steps"] == 256 * sizes["series"] == 32 * sizes["windows"]
    assert sum(content["splits"][split]["series"] for split in SPLITS) == 6
    assert content["threshold"].keys() == {"value", "rule", "chosen_on", "from"}
    assert content["threshold"]["rule"] == "best_f1"
    assert content["threshold"]["chosen_on"] == "validation"
    assert content["threshold"]["from"] == "synthetic"
    assert content["controls"].keys() >= CONTROLS
    for control in content["controls"].values():
        assert all(control[split].keys() >= POINTWISE for split in SPLITS)
    assert content["parameters"]["trainable"] == 4 * 32 + 32 + 1
    assert content["parameters"]["prompt_bytes"] == 4 * 4 * 32
    assert content["trained"] == ["head", "prompt"]
    assert content["throughput"]["training_windows_per_second"] > 0
    assert {"loading", "training", "evaluation"} <= content["seconds"].keys()
    assert {"python", "jax", "flax", "device"} <= content["versions"].keys()
    assert "windows" not in content
    per_series = pd.read_parquet(finished.workdir / content["per_series"])
    assert len(per_series) == 6
    assert {"series", "split", "steps"} | POINTWISE <= set(per_series.columns)


def test_run_folder_holds_what_the_contract_names(finished: Run) -> None:
    names = {path.name for path in finished.workdir.iterdir()}
    assert names >= {"config.json", "metrics.jsonl", "checkpoints", "detector", "results.json", "scores", "figures"}
    assert not list(finished.workdir.rglob("*.tmp"))
    config = json.loads((finished.workdir / "config.json").read_text())
    assert config["data"]["synthetic"]["series"] == 6
    assert (finished.workdir / "figures" / "test_series.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (finished.workdir / "detector").iterdir()} == {
        "README.md",
        "detector.json",
        "detector.safetensors",
    }
    check_scores(finished.workdir)
    check_log(finished.workdir, epochs=1)


def test_random_backbone_is_called_random(finished: Run) -> None:
    assert "random:tiny (RANDOM WEIGHTS, float32, bidirectional): frozen" in finished.outcome.out
    assert "random:tiny (RANDOM WEIGHTS, float32), trained: head + prompt" in finished.outcome.out
    assert "pretrained," not in finished.outcome.out
    assert finished.outcome.err == ""


def test_base_rate_is_printed_for_every_split(finished: Run) -> None:
    lines = [line.strip() for line in finished.outcome.out.splitlines()]
    for split in SPLITS:
        rate = results(finished.workdir)[split]["base_rate"]
        before, after = [line for line in lines if line.startswith(f"{split}: ")]
        assert before.endswith(f"base rate {rate:.3f}")
        assert after.endswith(f"base rate {rate:.3f}")


def has_windows(content: dict[str, Any]) -> None:
    assert content["windows"].keys() == set(SPLITS)
    assert all(content["windows"][split].keys() >= POINTWISE for split in SPLITS)


def leaks(content: dict[str, Any]) -> None:
    assert any("data.split='random'" in warning for warning in content["warnings"])


def has_no_prompt(content: dict[str, Any]) -> None:
    assert content["trained"] == ["head"]
    assert content["parameters"]["prompt_bytes"] == 0


def trains_embedding(content: dict[str, Any]) -> None:
    assert content["trained"] == ["embedding", "head", "prompt"]
    assert content["parameters"]["trainable"] == 101 * 32 + 4 * 32 + 32 + 1


def is_bfloat16(content: dict[str, Any]) -> None:
    assert content["backbone"]["dtype"] == "bfloat16"


def is_cut_in_time(content: dict[str, Any]) -> None:
    assert [content["splits"][split]["series"] for split in SPLITS] == [6, 6, 6]


Check = Callable[[dict[str, Any]], None]
# Each choice at least once; several in one run, to save time.
CHOICES: dict[str, tuple[dict[str, object], list[Check]]] = {
    "time, numbers, after [CLS]": (
        {"data.split": "time", "embedding.kind": "numbers", "prompt.position": "after_cls"},
        [is_cut_in_time],
    ),
    "random, spread, suffix": (
        {"data.split": "random", "embedding.kind": "spread", "prompt.position": "suffix"},
        [leaks],
    ),
    "window, consecutive": (
        {"head.kind": "window", "embedding.kind": "consecutive", "embedding.first_row": 100},
        [has_windows],
    ),
    "no prompt, random rows": (
        {"prompt.length": 0, "embedding.kind": "random"},
        [has_no_prompt],
    ),
    "window at [CLS], trained rows, bfloat16": (
        {
            "backbone.dtype": "bfloat16",
            "embedding.kind": "trained",
            "head.kind": "window",
            "head.pooling": "cls",
            "prompt.position": "after_cls",
        },
        [has_windows, trains_embedding, is_bfloat16],
    ),
}


@pytest.mark.parametrize(
    "choice", [*(pytest.param(name, marks=pytest.mark.slow) for name in list(CHOICES)[:-1]), list(CHOICES)[-1]]
)
def test_choice_runs_from_end_to_end(spear: Spear, tmp_path: Path, choice: str) -> None:
    fields, checks = CHOICES[choice]
    outcome = spear(*quick(tmp_path / "run", fields))
    assert (outcome.code, outcome.err) == (0, "")
    content = results(tmp_path / "run")
    for check in checks:
        check(content)
    tables = check_scores(tmp_path / "run")
    if fields.get("data.split") == "random":
        assert outcome.out.count("WARNING: data.split='random': windows of one series") == 2
    else:
        assert "WARNING: data.split" not in outcome.out
        assert content["warnings"] == []
    if "window" in choice:
        for table in tables.values():
            blocks = table["score"].to_numpy().reshape(-1, 32)
            assert np.ptp(blocks, axis=1) == pytest.approx(0)
            assert len(np.unique(blocks)) > 1


def test_tilde_is_the_home_folder(spear: Spear, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("a\n" + "1\n2\n" * 50)
    told = spear("--mode=score", f"--detector={finished.workdir}", "--input=~/t.csv", "--workdir=~/out")
    assert told.code == 0, told.err
    assert (tmp_path / "out" / "alarms.csv").exists() and not (tmp_path / "~").exists()


def test_workdir_may_be_relative(spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = spear(*quick(Path("runs/first")))
    assert (outcome.code, outcome.err) == (0, "")
    assert results(tmp_path / "runs" / "first")["schema"] == 1


@pytest.mark.skipif(
    not (Path(os.environ.get("SPEAR_DATA_DIR", "no")) / "nasa").is_dir(),
    reason="the NASA data are not in $SPEAR_DATA_DIR/nasa",
)
def test_real_telemetry_is_found_without_being_named(spear: Spear, tmp_path: Path) -> None:
    fields = TINY | {"data.limit_series": 6, "data.window": 128, "data.stride": 128}
    outcome = spear(*command("nasa:debug", fields, workdir=tmp_path / "run"))
    assert (outcome.code, outcome.err) == (0, "")
    assert results(tmp_path / "run")["dataset"] == "nasa"
    check_scores(tmp_path / "run")


# --- The same folder again ----------------------------------------------


def test_finished_run_is_reported_and_left_alone(spear: Spear, finished: Run) -> None:
    before = contents(finished.workdir)
    outcome = spear(*quick(finished.workdir, {"controls.head_only": "true"}))
    assert (outcome.code, outcome.err) == (0, "")
    assert f"{finished.workdir}: this run is done" in outcome.out
    assert f"{results(finished.workdir)['test']['auroc']:.3f}" in outcome.out
    assert contents(finished.workdir) == before


def test_more_epochs_continue_the_run(spear: Spear, finished: Run, tmp_path: Path) -> None:
    fields = {"controls.head_only": "true", "train.epochs": 2}
    continued, straight = tmp_path / "continued", tmp_path / "straight"
    shutil.copytree(finished.workdir, continued)
    outcome = spear(*quick(continued, fields))
    assert (outcome.code, outcome.err) == (0, "")
    assert "resuming at step" in outcome.out
    assert "epoch   1/" not in outcome.out
    check_log(continued, epochs=2)
    check_scores(continued)
    assert log(continued)[: len(log(finished.workdir))] == log(finished.workdir)

    assert spear(*quick(straight, fields)).code == 0
    assert log(continued) == log(straight)
    for key in ("threshold", "train", "validation", "test", "controls"):
        assert results(continued)[key] == results(straight)[key]


def test_changed_field_is_named(spear: Spear, finished: Run) -> None:
    before = contents(finished.workdir)
    fields = {"controls.head_only": "true", "train.prompt_learning_rate": 0.5}
    check_refusal(
        spear(*quick(finished.workdir, fields)),
        f"--workdir={finished.workdir}",
        "train.prompt_learning_rate (0.01 there, 0.5 here)",
        "new folder",
    )
    check_refusal(
        spear(*command("nasa:debug", SYNTHETIC, workdir=finished.workdir)),
        "data.name ('synthetic' there, 'nasa' here)",
    )
    assert contents(finished.workdir) == before


def test_data_may_move_between_two_starts(spear: Spear, nasa: Path, tmp_path: Path) -> None:
    assert spear(*quick_on(nasa, tmp_path / "run")).code == 0
    moved = nasa.rename(tmp_path / "moved")
    outcome = spear(*quick_on(moved, tmp_path / "run", {"train.epochs": 2}))
    assert (outcome.code, outcome.err) == (0, "")
    assert "resuming" in outcome.out
    assert results(tmp_path / "run")["training"]["epochs_done"] == 2


# --- Series of one class ------------------------------------------------

ONE_CLASS = {
    "nothing after training": ([(10, 20)], {"validation", "test"}),
    "nothing in test": ([(10, 20), (100, 110)], {"test"}),
    "nothing to learn from": ([(100, 110), (140, 150)], {"train"}),
    "nothing at all": ([], set(SPLITS)),
}


@pytest.mark.parametrize(
    "case",
    ["nothing in test", "nothing at all"]
    + [pytest.param(case, marks=pytest.mark.slow) for case in ("nothing after training", "nothing to learn from")],
)
def test_split_with_one_class_is_reported_and_the_run_completes(spear: Spear, tmp_path: Path, case: str) -> None:
    ranges, bare = ONE_CLASS[case]
    nasa = write_nasa(tmp_path / "nasa", {f"A-{i}": ranges for i in range(6)})
    outcome = spear(*quick_on(nasa, tmp_path / "run"))
    assert (outcome.code, outcome.err) == (0, "")
    content = results(tmp_path / "run")
    for split in SPLITS:
        undefined = [content[split][name] is None for name in ("auroc", "aupr", "recall")]
        assert undefined == [split in bare] * 3
        warning = f"WARNING: {split}: one class only, AUROC and AUPR are undefined"
        assert outcome.out.splitlines().count(warning) == (split in bare)
        assert 0 <= content[split]["accuracy"] <= 1
    assert outcome.out.count("one class only, AUROC") == len(bare)  # controls have the same labels
    quantile = "quantile_0.99 (validation has one class only)"
    if "validation" in bare:
        assert content["threshold"]["rule"] == quantile
        assert f"({quantile}, chosen on validation data of nasa)" in outcome.out
        assert content["training"]["best"]["metric"] == "validation_loss"
        scores = pd.read_parquet(tmp_path / "run" / "scores" / "validation.parquet")["score"]
        assert content["threshold"]["value"] == pytest.approx(scores.quantile(0.99), rel=1e-6)
    else:
        assert content["threshold"]["rule"] == "best_f1"
        assert content["training"]["best"]["metric"] == "validation_aupr"
    check_scores(tmp_path / "run")
    json.loads((tmp_path / "run" / "results.json").read_text(), parse_constant=pytest.fail)
