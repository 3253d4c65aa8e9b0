"""Tests the controls that are configs: an untrained prompt, shuffled labels, and starting from a detector."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Spear, check_refusal, check_scores, quick, quick_on, results
from safetensors.numpy import load_file

from spear_jax.backbones.pretrained import load_backbone
from spear_jax.config.arguments import TINY
from spear_jax.config.fields import default_config
from spear_jax.data.dataset import build_dataset
from spear_jax.data.series import LoadedSeries
from spear_jax.data.sources.synthetic import generate_series
from spear_jax.model.assemble import assemble_model
from spear_jax.storage import content_sha256
from spear_jax.training import loop

pytestmark = pytest.mark.one_python


def tensors(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "detector" / "detector.safetensors")


def test_a_prompt_can_stay_untrained(spear: Spear, nasa: Path, tmp_path: Path) -> None:
    fields = {"train.parts": "head", "prompt.init": "normal"}
    outcome = spear(*quick_on(nasa, tmp_path / "run", fields))
    assert outcome.code == 0, outcome.err
    content = results(tmp_path / "run")
    assert content["trained"] == ["head"]
    assert content["parameters"]["trainable"] == 33
    check_scores(tmp_path / "run")
    config = default_config()
    config.backbone.name, config.prompt.init, config.prompt.length = TINY, "normal", 4
    start = assemble_model(config, load_backbone(TINY)).trainable["prompt"]["vectors"]
    np.testing.assert_array_equal(tensors(tmp_path / "run")["prompt.vectors"], start)
    # The detector works like any other.
    table = tmp_path / "t.csv"
    table.write_text("a\n" + "\n".join(map(str, range(40))))
    scored = spear(
        "--mode=score", f"--detector={tmp_path / 'run'}", f"--input={table}", f"--workdir={tmp_path / 'scored'}"
    )
    assert scored.code == 0, scored.err


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"train.parts": "head"}, marks=pytest.mark.slow),
        {"prompt.length": 0, "head.init": "fitted"},
    ],
)
def test_precomputed_states_change_no_result(
    fields: dict[str, object], spear: Spear, nasa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spear(*quick_on(nasa, tmp_path / "once", {"train.epochs": 2, **fields})).code == 0
    monkeypatch.setattr(loop, "precompute_states", lambda model, dataset: (model, dataset))
    assert spear(*quick_on(nasa, tmp_path / "again", {"train.epochs": 2, **fields})).code == 0
    for name, array in tensors(tmp_path / "again").items():
        np.testing.assert_allclose(tensors(tmp_path / "once")[name], array, atol=2e-5)
    once, again = results(tmp_path / "once"), results(tmp_path / "again")
    assert once["test"]["auroc"] == pytest.approx(again["test"]["auroc"], abs=1e-4)


def test_training_starts_from_a_detector(spear: Spear, nasa: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert spear(*quick_on(nasa, first, {"train.epochs": 2})).code == 0
    fields = {
        "train.init_from": first,
        "train.prompt_learning_rate": 0,
        "train.head_learning_rate": 0,
        "train.weight_decay": 0,
    }
    outcome = spear(*quick_on(nasa, second, fields))
    assert outcome.code == 0, outcome.err
    for name, array in tensors(first).items():
        np.testing.assert_array_equal(tensors(second)[name], array)
    assert results(second)["test"] == results(first)["test"]
    refused = spear(*quick_on(nasa, tmp_path / "third", {"train.init_from": first, "prompt.length": 5}))
    check_refusal(refused, "config.train.init_from", "its prompt has the shapes", "(4, 32)", "(5, 32)")
    refused = spear(*quick(tmp_path / "fourth", {"train.init_from": tmp_path / "nothing"}))
    check_refusal(refused, "config.train.init_from=", "no detector.json there")
    about = json.loads((first / "detector" / "detector.json").read_text())
    about["backbone"]["sha256"] = "0" * 64
    about["sha256"] = content_sha256(about)
    (first / "detector" / "detector.json").write_text(json.dumps(about))
    refused = spear(*quick_on(nasa, tmp_path / "fifth", {"train.init_from": first}))
    check_refusal(refused, "config.train.init_from=", "of sha256 0000")


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [
        ("lstm", "train.init_from", "x"),
        ("gradient_boosting", "train.parts", "head"),
        ("sub_pca", "train.shuffled_labels", True),
        ("isolation_forest", "train.labelled_share", 0.5),
    ],
)
def test_fields_without_effect_on_a_method_are_refused(
    method: str, field: str, value: object, spear: Spear, tmp_path: Path
) -> None:
    refused = spear(*quick(tmp_path / "run", {"method": method, field: value}))
    check_refusal(refused, f"config.{field}={value!r}", f"config.method={method!r}")


def test_a_trained_prompt_gets_a_new_head(spear: Spear, nasa: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert spear(*quick(first, {"train.epochs": 2})).code == 0
    fields = {"train.init_from": first, "train.parts": "head", "head.init": "fitted"}
    assert spear(*quick_on(nasa, second, fields)).code == 0
    assert results(second)["trained"] == ["head"]
    np.testing.assert_array_equal(tensors(second)["prompt.vectors"], tensors(first)["prompt.vectors"])
    plain = tmp_path / "plain"
    start = tmp_path / "start.npy"
    np.save(start, tensors(first)["prompt.vectors"])
    fields = {"prompt.init": start, "train.parts": "head", "head.init": "fitted"}
    assert spear(*quick_on(nasa, plain, fields)).code == 0
    for name, array in tensors(plain).items():
        np.testing.assert_array_equal(tensors(second)[name], array)


def test_few_labels_leave_validation_and_test_unchanged() -> None:
    config = default_config()
    config.data.name, config.data.window, config.data.stride, config.data.gap = "synthetic", 32, 32, 0
    loaded = LoadedSeries("synthetic", generate_series(series=8, length=256, past=64, rate=0.2, seed=3))
    plain = build_dataset(config, loaded)
    config.train.labelled_share = 0.25
    few = build_dataset(config, loaded)
    normal = [~part.training.targets.any(axis=1) for part in (plain, few)]
    assert normal[1].sum() == round(normal[0].sum() / 4)
    rows = {window.tobytes(): row for row, window in enumerate(plain.training.bins)}
    taken = sorted(rows[window.tobytes()] for window in few.training.bins)
    incidents: list[tuple[int, int, int]] = []  # series, first step, step after the last
    windows = plain.windows["train"]
    for number in np.unique(windows.series):
        edges = np.flatnonzero(np.diff(loaded.series[number].labels.astype(int), prepend=0, append=0))
        incidents += [(number, *pair) for pair in edges.reshape(-1, 2).tolist()]

    def windows_of(incident: tuple[int, int, int]) -> set[int]:
        series, begin, end = incident
        inside = (windows.series == series) & (windows.start < end) & (windows.start + 32 > begin)
        return set(np.flatnonzero(inside).tolist())

    learned = [incident for incident in incidents if windows_of(incident) <= set(taken)]
    touched = set().union(*map(windows_of, learned))
    assert {row for row in taken if not normal[0][row]} == touched  # no incident is taken in part
    assert round(len(incidents) / 4) <= len(learned) < len(incidents) / 2
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(few.examples[split].bins, plain.examples[split].bins)
    assert any("25.0% of the training part's incidents" in warning for warning in few.warnings)


@pytest.mark.parametrize("count", [1, 11, 1000])
def test_few_normal_windows_are_spread_evenly_over_the_series(count: int) -> None:
    config = default_config()
    config.data.name, config.data.window, config.data.stride, config.data.gap = "synthetic", 32, 32, 0
    loaded = LoadedSeries("synthetic", generate_series(series=9, length=256, past=64, rate=0.2, seed=3))
    plain = build_dataset(config, loaded)
    config.train.normal_windows = count
    few, again = build_dataset(config, loaded), build_dataset(config, loaded)
    np.testing.assert_array_equal(few.training.bins, again.training.bins)
    anomalous = plain.training.targets.any(axis=1)
    kept = few.training.targets.any(axis=1)
    assert kept.sum() == anomalous.sum()
    assert (~kept).sum() == min(count, (~anomalous).sum())
    sizes = {"kept": (~kept).sum(), "of": (~anomalous).sum(), "training_windows": len(kept)}
    assert few.notes["normal_windows"] == sizes and "normal_windows" not in plain.notes
    series = plain.windows["train"].series
    rows = {window.tobytes(): number for number, window in zip(series, plain.training.bins, strict=True)}
    chosen = [rows[window.tobytes()] for window in few.training.bins[~kept]]
    drawn, available = (np.bincount(numbers, minlength=9) for numbers in (chosen, series[~anomalous]))
    exhausted = drawn == available
    assert drawn[~exhausted].max(initial=0) - drawn[~exhausted].min(initial=count) <= 1
    assert drawn.max() <= drawn[~exhausted].min(initial=1000) + 1
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(few.examples[split].bins, plain.examples[split].bins)
    config.seed, config.train.labelled_share = 1, 0.5  # the share is of the sample
    both = ~build_dataset(config, loaded).training.targets.any(axis=1)
    assert 1 <= both.sum() <= max(count / 2 + 1, 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_labels_come_from_other_training_windows(seed: int) -> None:
    config = default_config()
    config.seed, config.data.name, config.data.window, config.data.stride, config.data.gap = (
        seed,
        "synthetic",
        32,
        32,
        0,
    )
    loaded = LoadedSeries("synthetic", generate_series(series=8, length=256, past=64, rate=0.2, seed=3))
    plain = build_dataset(config, loaded)
    config.train.shuffled_labels = True
    shuffled = build_dataset(config, loaded)
    assert not np.array_equal(shuffled.training.targets, plain.training.targets)
    rows = [sorted(map(bytes, dataset.training.targets.astype(np.uint8))) for dataset in (plain, shuffled)]
    assert rows[0] == rows[1]
    np.testing.assert_array_equal(shuffled.training.bins, plain.training.bins)
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(shuffled.examples[split].targets, plain.examples[split].targets)
    assert any("labels that belong to other windows" in warning for warning in shuffled.warnings)


def test_shuffled_labels_keep_the_base_rate_of_windows_of_several_lengths() -> None:
    config = default_config()
    config.data.name, config.data.window, config.data.stride, config.data.gap = "synthetic", 32, 32, 0
    loaded = LoadedSeries("synthetic", generate_series(series=12, length=120, shortest=20, past=64, rate=0.4, seed=3))
    plain = build_dataset(config, loaded).training
    config.train.shuffled_labels = True
    shuffled = build_dataset(config, loaded).training
    assert len(np.unique(plain.mask.sum(axis=1))) > 2
    assert not np.array_equal(shuffled.targets, plain.targets)
    assert shuffled.targets[plain.mask].sum() == plain.targets[plain.mask].sum() == shuffled.targets.sum()
