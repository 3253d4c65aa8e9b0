"""Checks what other programs rely on: the contract, and detectors and runs of the code before its rearrangement.

tests/artifacts/ was written by commit 1745816, the last one before that, with jax 0.10.2 on a CPU:
stopped_run/ by RESUME below, stopped by SIGTERM in epoch 2 (only its last checkpoint is stored);
finished_results.json and command_line_detector/ by the same command once more, which resumed it;
python_detector/ by `SpearDetector(**ARGUMENTS).fit(telemetry, labels).save(...)`;
expected_scores.csv by `--mode=score` and by `SpearDetector.load(...).decision_function` on telemetry.csv;
evaluated_results.json by EVALUATE.
"""

import inspect
import json
import runpy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import CONFIGS, Spear, check_refusal, command

import spear_jax

ARTIFACTS = Path(__file__).parent / "artifacts"
SMALL = {"data.synthetic.length": 256, "data.synthetic.past": 64}
RESUME = command(
    "quickstart:debug",
    SMALL
    | {
        "data.synthetic.series": 6,
        "data.window": 32,
        "data.stride": 32,
        "prompt.length": 4,
        "quantizer.bins": 50,
        "train.batch_size": 4,
        "train.steps_per_call": 2,
        "train.save_seconds": 0.0,
        "train.epochs": 5,
        "train.early_stopping.patience": 99,
    },
)
EVALUATE = command(
    "quickstart:debug",
    SMALL | {"data.synthetic.series": 4, "data.synthetic.seed": 1},
    mode="evaluate",
    detector=ARTIFACTS / "command_line_detector",
)
ARGUMENTS = {
    "backbone": "random:tiny",
    "prompt_length": 4,
    "bins": 50,
    "window": 32,
    "epochs": 3,
    "batch_size": 8,
    "head": "window",
    "scale": "window",
    "embedding": "random",
    "threshold_rule": "false_positive_rate",
    "combine": "mean",
}

MODES = ("train", "evaluate", "score", "preview", "prepare", "memory", "study", "compare", "export")
FLAGS = ("config", "config.FIELD", "workdir", "mode", "detector", "input", "distributed", "help")
CONFIG_ARGUMENTS = {
    "nasa": ("bert", "minilm", "gemma", "debug"),
    "nab": ("bert", "minilm", "gemma", "debug"),
    "mimic_iv": ("bert", "minilm", "gemma", "debug"),
    "files": ("bert", "minilm", "gemma", "debug"),
    "quickstart": ("frozen", "debug"),
}
DEFAULTS = {
    "seed": 0,
    "data.dir": "",
    "data.limit_series": 0,
    "data.window": 128,
    "data.stride": 128,
    "data.split": "series",
    "data.fractions": (0.6, 0.2, 0.2),
    "data.timestamp_column": "",
    "data.value_columns": "",
    "data.label_column": "",
    "data.intervals": "",
    "data.labels": "recorded",
    "quantizer.bins": 100,
    "quantizer.scale": "train",
    "quantizer.reference_steps": 256,
    "embedding.kind": "numbers",
    "backbone.name": "google-bert/bert-base-uncased",
    "backbone.dtype": "auto",
    "backbone.matmul_precision": "default",
    "prompt.length": 20,
    "prompt.init": "vocabulary",
    "prompt.position": "prefix",
    "head.kind": "step",
    "head.pooling": "mean",
    "train.epochs": 40,
    "train.batch_size": 16,
    "train.steps_per_call": 16,
    "train.prompt_learning_rate": 3e-3,
    "train.head_learning_rate": 1e-3,
    "train.early_stopping.metric": "aupr",
    "train.early_stopping.patience": 8,
    "train.init_from": "",
    "train.parts": "prompt+head",
    "threshold.rule": "best_f1",
    "threshold.reuse": True,
    "tsmote.enabled": False,
}
"""Fields that scripts rely on, as configs/nasa.py:bert has them."""
CHOICES = {
    "data.split": ("series", "time", "random"),
    "data.labels": ("column", "intervals", "rules", "injected"),
    "quantizer.scale": ("train", "series", "window"),
    "embedding.kind": ("numbers", "spread", "consecutive", "random", "ordinal", "trained"),
    "prompt.position": ("prefix", "after_cls", "suffix"),
    "head.kind": ("step", "window"),
    "train.parts": ("prompt+head", "head"),
}
RETIRED = {
    "controls.zscore_steps": "the control's window is a constant, 64",
    "data.synthetic.kinds": "every kind of anomaly is generated",
    "train.decay_to": "learning rates always fall to a tenth",
}
"""Fields that old folders still name, and why they are gone."""
RUN_FILES = (
    "config.json",
    "metrics.jsonl",
    "checkpoints",
    "detector/detector.json",
    "detector/detector.safetensors",
    "results.json",
    "per_series.parquet",
    "scores/train.parquet",
    "scores/validation.parquet",
    "scores/test.parquet",
    "figures",
    "report.html",
)
METRICS = (
    *("accuracy", "precision", "recall", "f1", "auroc", "aupr", "base_rate"),
    *("range_f1", "event_f1", "affiliation_f1", "vus_pr", "vus_roc"),
)
RESULTS = (
    *("schema", "dataset", "seed", "per_series", "confidence_intervals", "seconds", "throughput", "versions"),
    *(f"backbone.{key}" for key in ("name", "revision", "sha256", "dtype", "pretrained")),
    *(
        f"splits.{split}.{key}"
        for split in ("train", "validation", "test")
        for key in ("series", "windows", "steps", "anomalous_steps")
    ),
    *(f"threshold.{key}" for key in ("value", "rule", "chosen_on", "from")),
    *(f"{split}.{metric}" for split in ("train", "validation", "test") for metric in METRICS),
    *(
        f"controls.{control}.test.{metric}"
        for control in ("random_scores", "always_normal", "bin_lookup", "rolling_zscore", "head_only")
        for metric in METRICS
    ),
    *(f"parameters.{key}" for key in ("trainable", "frozen", "prompt_bytes")),
)
DETECTOR_PARAMETERS = {
    "backbone": "sentence-transformers/all-MiniLM-L6-v2",
    "prompt_length": 20,
    "bins": 100,
    "window": 512,
    "stride": 0,
    "epochs": 40,
    "batch_size": 16,
    "prompt_learning_rate": 3e-3,
    "head_learning_rate": 1e-3,
    "scale": "train",
    "embedding": "ordinal",
    "head": "step",
    "threshold_rule": "best_f1",
    "combine": "max",
    "views": "",
    "value_columns": "",
    "series_column": "",
    "decimal_sign": "",
    "missing_values": "",
    "patch": 0,
    "dtype": "float32",
    "seed": 0,
    "verbose": True,
}
DETECTOR_METHODS = {
    "fit": ("series", "labels", "validation", "callback"),
    "decision_function": ("series",),
    "predict": ("series",),
    "fit_predict": ("series", "labels"),
    "intervals": ("series",),
    "save": ("folder",),
    "load": ("folder",),
}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested dicts by dotted name, and the inner dicts too."""
    leaves = {}
    for key, value in tree.items():
        leaves[prefix + key] = value
        if isinstance(value, dict):
            leaves |= flatten(value, f"{prefix}{key}.")
    return leaves


def numbers(results: dict[str, Any]) -> dict[str, Any]:
    """Returns what two runs of one command must share: all but time, memory, versions and the command's paths."""
    varying = ("command", "seconds", "cpu_seconds", "throughput", "memory", "versions", "training")
    return {name: value for name, value in flatten(results).items() if name.partition(".")[0] not in varying}


def assert_same_numbers(results: dict[str, Any], stored: str) -> None:
    expected = numbers(json.loads((ARTIFACTS / stored).read_text()))
    actual = numbers(results)
    assert expected.keys() <= actual.keys()
    for name, value in expected.items():
        if isinstance(value, float) and actual[name] is not None:
            assert actual[name] == pytest.approx(value, abs=1e-5), name
        elif not isinstance(value, dict):
            assert actual[name] == value, name


@pytest.fixture(scope="module")
def resumed(spear: Spear, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored run, resumed here; not to be written to."""
    workdir = tmp_path_factory.mktemp("resumed") / "run"
    shutil.copytree(ARTIFACTS / "stopped_run", workdir)
    outcome = spear(*RESUME, f"--workdir={workdir}")
    assert outcome.code == 0, outcome.err
    assert "resuming at step 14, epoch 2" in outcome.out
    return workdir


def load_results(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "results.json").read_text())


def test_a_stored_run_resumes_to_the_same_numbers(resumed: Path) -> None:
    assert_same_numbers(load_results(resumed), "finished_results.json")
    stored = (ARTIFACTS / "stopped_run" / "metrics.jsonl").read_text()
    assert (resumed / "metrics.jsonl").read_text().startswith(stored)


@pytest.mark.parametrize("name", ["command_line_detector", "python_detector"])
def test_a_stored_detector_scores_a_file_as_before(spear: Spear, tmp_path: Path, name: str) -> None:
    outcome = spear(
        "--mode=score",
        f"--detector={ARTIFACTS / name}",
        f"--input={ARTIFACTS / 'telemetry.csv'}",
        f"--workdir={tmp_path / 'scored'}",
    )
    assert outcome.code == 0, outcome.err
    scores = pd.read_parquet(tmp_path / "scored" / "scores.parquet")
    expected = pd.read_csv(ARTIFACTS / "expected_scores.csv")
    columns = [column for column in expected if column.startswith(f"{name}/")]
    assert {f"{name}/{series}" for series in scores["series"].unique()} == set(columns)
    for column in columns:
        of_series = scores[scores["series"] == column.partition("/")[2]]
        np.testing.assert_allclose(of_series["score"], expected[column], rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:the detector")
@pytest.mark.parametrize("name", ["command_line_detector", "python_detector", "checkpoint"])
def test_a_stored_detector_scores_a_frame_as_before(tmp_path: Path, name: str) -> None:
    folder = ARTIFACTS / name
    if name == "checkpoint":
        shutil.copytree(ARTIFACTS / "stopped_run", tmp_path / "run")
        shutil.copytree(ARTIFACTS / "command_line_detector", tmp_path / "run" / "detector")
        folder = tmp_path / "run" / "checkpoints" / "14"
    detector = spear_jax.SpearDetector.load(str(folder))
    telemetry = pd.read_csv(ARTIFACTS / "telemetry.csv", parse_dates=["time"]).drop(columns="label")
    expected = pd.read_csv(ARTIFACTS / "expected_scores.csv")[f"{name} in Python"]
    np.testing.assert_allclose(detector.decision_function(telemetry), expected, rtol=0, atol=1e-6)
    if name == "python_detector":
        assert detector.get_params().items() >= ARGUMENTS.items()


def test_a_stored_detector_is_evaluated_as_before(spear: Spear, tmp_path: Path) -> None:
    outcome = spear(*EVALUATE, f"--workdir={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.err
    assert_same_numbers(load_results(tmp_path / "run"), "evaluated_results.json")


def test_every_file_of_a_run_is_there(resumed: Path) -> None:
    assert [name for name in RUN_FILES if not (resumed / name).exists()] == []


def test_every_key_of_results_json_is_there(resumed: Path) -> None:
    assert set(RESULTS) - flatten(load_results(resumed)).keys() == set()


def test_every_field_of_a_stored_config_is_there_or_retired(resumed: Path) -> None:
    stored = flatten(json.loads((ARTIFACTS / "stopped_run" / "config.json").read_text()))
    resolved = flatten(json.loads((resumed / "config.json").read_text()))
    assert stored.keys() - resolved.keys() == RETIRED.keys()
    assert {name: resolved[name] for name in stored if name in resolved and not isinstance(stored[name], dict)} == {
        name: value for name, value in stored.items() if name in resolved and not isinstance(value, dict)
    }


def test_every_field_of_the_contract_has_its_default() -> None:
    config = flatten(runpy.run_path(str(CONFIGS / "nasa.py"))["get_config"]("bert").to_dict())
    assert {name: config.get(name) for name in DEFAULTS} == DEFAULTS


def test_every_field_of_the_contract_can_be_overridden(spear: Spear) -> None:
    fields = DEFAULTS | {"backbone.name": "random:tiny", "train.init_from": ""}
    outcome = spear(*command("quickstart:debug", fields, mode="preview"))
    assert outcome.code == 0, outcome.err


def test_every_choice_of_the_contract_is_allowed(spear: Spear, tmp_path: Path) -> None:
    for field, choices in CHOICES.items():
        arguments = command("quickstart:debug", {field: "nonsense"}, workdir=tmp_path / "run")
        check_refusal(spear(*arguments), f"config.{field}", "nonsense", *choices)


def test_every_argument_of_a_config_is_allowed(spear: Spear, tmp_path: Path) -> None:
    for name, arguments in CONFIG_ARGUMENTS.items():
        assert (CONFIGS / f"{name}.py").is_file()
        check_refusal(spear(*command(f"{name}:nonsense", workdir=tmp_path / "run")), "nonsense", *arguments)


def test_help_names_every_mode_and_flag(spear: Spear) -> None:
    outcome = spear("--help")
    assert (outcome.code, outcome.err) == (0, "")
    for mode in MODES:
        assert f"\n  {mode} " in outcome.out
    for flag in FLAGS:
        assert f"--{flag}" in outcome.out


def test_every_python_name_of_the_contract_is_there() -> None:
    assert set(spear_jax.__all__) >= {"SpearDetector", "load_backbone"}
    assert list(inspect.signature(spear_jax.load_backbone).parameters)[:2] == ["name_or_folder", "dtype"]
    detector = spear_jax.SpearDetector
    parameters = inspect.signature(detector).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == DETECTOR_PARAMETERS
    assert [name for name, parameter in parameters.items() if parameter.kind is not parameter.KEYWORD_ONLY] == [
        "backbone"
    ]
    for method, expected in DETECTOR_METHODS.items():
        names = tuple(name for name in inspect.signature(getattr(detector, method)).parameters if name != "self")
        assert names == expected
    backbone = spear_jax.load_backbone("random:tiny")
    assert backbone.hidden_size > 0 and backbone.max_positions > 0
    assert tuple(inspect.signature(backbone.embed).parameters) == ("token_ids",)
    assert tuple(inspect.signature(backbone.encode).parameters)[:2] == ("embeddings", "mask")
