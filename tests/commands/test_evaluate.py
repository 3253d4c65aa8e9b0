"""A finished detector on other data."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import (
    SPLITS,
    Run,
    Spear,
    check_refusal,
    check_scores,
    command,
    contents,
    evaluate,
    quick,
    results,
)

# --- A detector on other data -------------------------------------------


@pytest.mark.parametrize("form", ["", "detector"])
def test_detector_gives_the_numbers_of_its_run(spear: Spear, finished: Run, tmp_path: Path, form: str) -> None:
    before = contents(finished.workdir)
    outcome = spear(*evaluate(finished.workdir / form, tmp_path / "run"))
    assert (outcome.code, outcome.err) == (0, "")
    assert "RANDOM WEIGHTS" in outcome.out
    there, here = results(finished.workdir), results(tmp_path / "run")
    for key in ("train", "validation", "test", "threshold", "splits", "backbone", "controls"):
        assert here[key] == there[key]
    tables = check_scores(tmp_path / "run")
    for split, table in check_scores(finished.workdir).items():
        pd.testing.assert_frame_equal(tables[split], table)
    assert contents(finished.workdir) == before


def test_checkpoint_gives_the_run_at_that_step(spear: Spear, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert spear(*quick(run, {"train.epochs": 2})).code == 0
    before, there = contents(run), results(run)
    steps = sorted(int(path.name) for path in (run / "checkpoints").iterdir())
    evaluated = {}
    for step in steps:
        outcome = spear(*evaluate(run / "checkpoints" / str(step), tmp_path / str(step)))
        assert (outcome.code, outcome.err) == (0, "")
        evaluated[step] = results(tmp_path / str(step))
        assert evaluated[step]["threshold"] == there["threshold"]
    assert evaluated[there["training"]["best"]["step"]]["test"] == there["test"]
    assert len({str(content["test"]) for content in evaluated.values()}) == len(steps) > 1
    assert contents(run) == before
    missing = spear(*evaluate(run / "checkpoints" / "7", tmp_path / "missing"))
    check_refusal(missing, "checkpoints/7: no such checkpoint; there are " + ", ".join(map(str, steps)))
    shutil.rmtree(run / "checkpoints" / str(steps[0]) / "state")
    check_refusal(spear(*evaluate(run / "checkpoints" / str(steps[0]), tmp_path / "damaged")), str(steps[0]))
    shutil.rmtree(run / "detector")
    check_refusal(spear(*evaluate(run / "checkpoints" / str(steps[-1]), tmp_path / "unfinished")), "no detector/ yet")


@pytest.mark.parametrize("reuse", [True, False])
def test_threshold_is_reused_or_chosen_on_the_new_data(
    spear: Spear, finished: Run, nasa: Path, tmp_path: Path, reuse: bool
) -> None:
    outcome = spear(
        *command(
            "nasa:debug",
            {
                "controls.head_only": "false",
                "data.dir": nasa,
                "data.gap": 0,
                "data.split": "time",
                "data.stride": 32,
                "score.batch_size": 8,
                "threshold.reuse": reuse,
            },
            mode="evaluate",
            detector=finished.workdir,
            workdir=tmp_path / "run",
        )
    )
    assert (outcome.code, outcome.err) == (0, "")
    content = results(tmp_path / "run")
    assert content["dataset"] == "nasa"
    own = results(finished.workdir)["threshold"]["value"]
    assert (content["threshold"]["value"] == own) == reuse
    assert content["threshold"]["from"] == ("synthetic" if reuse else "nasa")
    check_scores(tmp_path / "run")
    assert content["splits"]["test"]["steps"] == 6 * 32


def test_every_step_is_scored_whatever_the_detectors_window(
    spear: Spear, finished: Run, nasa: Path, tmp_path: Path
) -> None:
    fields = {"controls.head_only": "false", "data.dir": nasa, "score.batch_size": 8}
    flags = {"mode": "evaluate", "detector": finished.workdir, "workdir": tmp_path / "run"}
    assert spear(*command("nasa:debug", fields, **flags)).code == 0
    sizes = results(tmp_path / "run")["splits"]
    assert sum(sizes[split]["steps"] for split in SPLITS) == 6 * 160


def test_a_stride_that_leaves_steps_out_is_refused(spear: Spear, finished: Run, nasa: Path, tmp_path: Path) -> None:
    flags = {"mode": "evaluate", "detector": finished.workdir, "workdir": tmp_path / "run"}
    outcome = spear(*command("nasa:debug", {"data.dir": nasa, "data.stride": 64}, **flags))
    check_refusal(outcome, "--config.data.stride=64 must be at most 32", "the detector's window")


@pytest.mark.parametrize(
    "field",
    [
        "quantizer.bins=50",
        "embedding.kind=random",
        "prompt.length=5",
        "head.kind=window",
        "backbone.attention=causal",
        "data.window=48",
        "data.window=16",  # below the config's own stride
        "seed=1",
    ],
)
def test_carried_field_cannot_be_overridden(spear: Spear, finished: Run, tmp_path: Path, field: str) -> None:
    name, _, value = field.partition("=")
    outcome = spear(*evaluate(finished.workdir, tmp_path / "run", {name: value}))
    check_refusal(outcome, f"--config.{name}", "comes from the detector")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("method=lstm", "trains nothing"),
        ("train.epochs=3", "trains nothing"),
        ("threshold.rule=precision", "add --config.threshold.reuse=False"),
        ("prompt.length=3", "comes from the detector"),
    ],
)
def test_field_without_effect_is_refused(field: str, message: str, spear: Spear, finished: Run, tmp_path: Path) -> None:
    outcome = spear(*evaluate(finished.workdir, tmp_path / "run"), f"--config.{field}")
    check_refusal(outcome, field.partition("=")[0], message)
    assert not (tmp_path / "run").exists()


def test_interrupted_evaluation_is_repeated(spear: Spear, finished: Run, tmp_path: Path) -> None:
    arguments = evaluate(finished.workdir, tmp_path / "run")
    assert spear(*arguments).code == 0
    numbers = results(tmp_path / "run")["test"]
    check_refusal(spear(*arguments), "is not empty")
    (tmp_path / "run" / "results.json").unlink()
    check_refusal(spear(*arguments, "--config.threshold.reuse=False"), "is not empty")
    assert spear(*arguments).code == 0
    assert results(tmp_path / "run")["test"] == numbers
    check_refusal(spear(*quick(tmp_path / "run", {"controls.head_only": "true"})), "--workdir=")


def test_point_adjusted_f1_is_optional_and_named_so(spear: Spear, finished: Run, tmp_path: Path) -> None:
    name = "point_adjusted_f1_at_20"
    assert spear(*evaluate(finished.workdir, tmp_path / "run"), "--config.metrics.point_adjusted_k=20").code == 0
    content = results(tmp_path / "run")
    plain = results(finished.workdir)
    assert {key for key in content["test"] if "adjusted" in key} == {name}
    assert not any("adjusted" in key for key in plain["test"])
    assert {key: value for key, value in content["test"].items() if key != name} == plain["test"]
    # Point adjustment flatters: one step (k = 0) or a fifth of them (k = 20) finds an interval.
    evaluated = {20: content}
    for k in (0, 100):
        assert spear(*evaluate(finished.workdir, tmp_path / f"{k}"), f"--config.metrics.point_adjusted_k={k}").code == 0
        evaluated[k] = results(tmp_path / f"{k}")
    numbers = {
        k: np.array(
            [scores["test"][f"point_adjusted_f1_at_{k}"] for scores in (content, *content["controls"].values())], float
        )
        for k, content in evaluated.items()
    }
    assert (numbers[0] >= numbers[20]).all() and (numbers[20] >= numbers[100]).all()
    assert (numbers[0] > numbers[100]).any()
