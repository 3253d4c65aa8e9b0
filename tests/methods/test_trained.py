"""Tests the baselines that are trained in the loop: LSTM, full fine-tuning, LoRA."""

from pathlib import Path
from typing import Any

import gemma
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Spear, check_log, check_refusal, check_scores, command, quick, quick_on, results
from flax import traverse_util
from ml_collections import ConfigDict

from spear_jax.backbones.pretrained import load_backbone
from spear_jax.commands import memory
from spear_jax.config.arguments import TINY
from spear_jax.config.fields import default_config
from spear_jax.methods import load_method_backbone
from spear_jax.methods.fine_tuning import assemble_fine_tuning
from spear_jax.methods.lstm import assemble_lstm
from spear_jax.model.assemble import assemble_model
from spear_jax.model.placed import PlacedModel, count_parameters
from spear_jax.model.spear import merge
from spear_jax.training.step import make_optimizer, make_train_call

pytestmark = pytest.mark.one_python

T, BINS = 12, 10


def config_of(method: str, **fields: object) -> ConfigDict:
    config = default_config()
    config.method, config.quantizer.bins, config.embedding.kind = method, BINS, "numbers"
    config.update_from_flattened_dict(fields)
    return config


def batch(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "inputs": rng.integers(0, BINS, (3, T)).astype(np.int32),
        "mask": np.arange(T) < np.array([[12], [7], [1]]),
        "targets": (rng.random((3, T)) < 0.3).astype(np.float32),
    }


def logits(model: PlacedModel, bins: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(model.module.apply)(merge(model.trainable, model.frozen), bins, mask))


def trained(config: ConfigDict, model: PlacedModel, steps: int = 3) -> Any:
    optimizer = make_optimizer(config)
    stacked = {name: np.stack([batch(seed)[name] for seed in range(steps)]) for name in batch()}
    trainable = jax.tree.map(jnp.copy, model.trainable)
    call = make_train_call(model.module, optimizer, 1.0)
    return call(trainable, optimizer.init(trainable), model.frozen, stacked, steps)[0]


@pytest.mark.parametrize("method", ["lstm", "lstm_causal"])
def test_an_lstm_reads_no_padding(method: str) -> None:
    model, b = assemble_lstm(config_of(method)), batch()
    padded = logits(model, b["inputs"], b["mask"])
    other = np.where(b["mask"], b["inputs"], (b["inputs"] + 3) % BINS)
    np.testing.assert_array_equal(logits(model, other, b["mask"])[b["mask"]], padded[b["mask"]])
    np.testing.assert_allclose(logits(model, b["inputs"][1:2, :7], b["mask"][1:2, :7]), padded[1:2, :7], atol=1e-6)


def test_a_causal_lstm_sees_the_past_alone() -> None:
    b = batch()
    later = b["inputs"].copy()
    later[:, 8] = (later[:, 8] + 5) % BINS
    all_real = np.ones((3, T), bool)

    def affected_steps(method: str) -> np.ndarray:
        model = assemble_lstm(config_of(method))
        return np.abs(logits(model, b["inputs"], all_real) - logits(model, later, all_real)).max(axis=0) > 0

    assert not affected_steps("lstm_causal")[:8].any()
    assert affected_steps("lstm_causal")[8:].all()
    assert affected_steps("lstm").all()


def test_an_lstm_distinguishes_missing_values_from_all_bins() -> None:
    constant = np.repeat(np.arange(BINS + 1)[:, None], T, axis=1)
    outputs = logits(assemble_lstm(config_of("lstm")), constant, np.ones_like(constant, bool))
    assert len(np.unique(outputs.round(7), axis=0)) == BINS + 1


@pytest.mark.parametrize("name", [TINY, pytest.param("gemma", marks=pytest.mark.slow)])
def test_fine_tuning_starts_from_the_frozen_model_and_trains_every_weight(tmp_path: Path, name: str) -> None:
    config = config_of("fine_tuning")
    backbone = load_backbone(TINY if name == TINY else f"random:{gemma.write(tmp_path / 'gemma')}")
    model, b = assemble_fine_tuning(config, backbone), batch()
    bare = assemble_model(config_of("spear", **{"prompt.length": 0}), backbone)
    np.testing.assert_allclose(logits(model, b["inputs"], b["mask"]), logits(bare, b["inputs"], b["mask"]), atol=1e-6)
    assert set(model.trainable) == {"head", "backbone"}
    assert count_parameters(model.trainable["backbone"]) == count_parameters(backbone.params)
    after = traverse_util.flatten_dict(trained(config, model)["backbone"], sep="/")
    before = traverse_util.flatten_dict(backbone.params, sep="/")
    unchanged = {path for path in before if np.array_equal(before[path], after[path])}
    assert unchanged == set()


@pytest.mark.parametrize("name", [TINY, pytest.param("gemma", marks=pytest.mark.slow)])
@pytest.mark.parametrize("int8", ["none", pytest.param("channel", marks=pytest.mark.slow)])
def test_lora_starts_from_the_frozen_model_and_trains_its_additions_alone(tmp_path: Path, name: str, int8: str) -> None:
    config = config_of("lora", **{"lora.rank": 2})
    backbone = load_backbone(TINY if name == TINY else f"random:{gemma.write(tmp_path / 'gemma')}", int8=int8)
    model, b = assemble_fine_tuning(config, backbone), batch()
    bare = assemble_model(config_of("spear", **{"prompt.length": 0}), backbone)
    np.testing.assert_allclose(logits(model, b["inputs"], b["mask"]), logits(bare, b["inputs"], b["mask"]), atol=1e-6)
    additions = traverse_util.flatten_dict(model.trainable["backbone"], sep="/")
    assert {path.rpartition("/")[2] for path in additions} == {"lora_a", "lora_b"}
    assert {path.split("/")[1] for path in additions} == {"query", "value"}
    layers, hidden = backbone.config.layers, backbone.hidden_size
    widths = {"query": hidden, "value": hidden if name == TINY else 8}
    assert count_parameters(model.trainable["backbone"]) == layers * sum(
        2 * (hidden + width) for width in widths.values()
    )
    after = traverse_util.flatten_dict(trained(config, model)["backbone"], sep="/")
    assert all(not np.array_equal(after[path], leaf) for path, leaf in additions.items())


def test_lora_is_the_low_rank_product() -> None:
    """Compares with the same matrices multiplied into the kernels."""
    config = config_of("lora", **{"lora.rank": 3})
    backbone = load_backbone(TINY)
    model, b = assemble_fine_tuning(config, backbone), batch()
    rng = np.random.default_rng(0)
    tree = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) * 0.1, model.trainable["backbone"])
    with_additions = model.with_parts({"backbone": tree})
    kernels = traverse_util.flatten_dict(backbone.params)
    for path, a in traverse_util.flatten_dict(tree).items():
        if path[-1] == "lora_a":
            product = jnp.matmul(a, traverse_util.flatten_dict(tree)[(*path[:-1], "lora_b")])
            kernels[(*path[:-1], "kernel")] = kernels[(*path[:-1], "kernel")] + np.asarray(product)
    bare = assemble_model(config_of("spear", **{"prompt.length": 0}), backbone)
    merged = bare.with_parts({"head": model.trainable["head"], "backbone": traverse_util.unflatten_dict(kernels)})
    np.testing.assert_allclose(
        logits(with_additions, b["inputs"], b["mask"]), logits(merged, b["inputs"], b["mask"]), atol=1e-5
    )


@pytest.mark.parametrize(
    "method", ["lora", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lstm", "lstm_causal", "fine_tuning"))]
)
def test_a_run_goes_from_data_to_results(spear: Spear, nasa: Path, tmp_path: Path, method: str) -> None:
    run = tmp_path / "run"
    assert spear(*quick_on(nasa, run, {"method": method})).code == 0
    outcome = spear(*quick_on(nasa, run, {"method": method, "train.epochs": 2}))
    assert outcome.code == 0, outcome.err
    assert "resuming at step" in outcome.out
    check_log(run, epochs=2)
    check_scores(run)
    content = results(run)
    assert content["method"] == method
    assert ("backbone" in content["trained"]) == (method in ("fine_tuning", "lora"))
    assert (content["backbone"] == {}) == method.startswith("lstm")
    assert not (run / "detector").exists()
    # AdamW has two moments of every trained number, beside some counters.
    moments = 2 * 4 * content["parameters"]["trainable"]
    assert moments <= content["memory"]["optimizer_bytes"] < moments + 200
    assert content["memory"]["peak_bytes"] > content["memory"]["optimizer_bytes"]
    assert content["throughput"]["training_windows_per_second"] > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "svm"}, "config.method='svm' must be one of spear, lstm"),
        ({"method": "lstm", "head.kind": "window"}, "config.head.kind='window' must be step with config.method='lstm'"),
        (
            {"method": "fine_tuning", "backbone.int8": "channel"},
            "config.backbone.int8='channel' must be none",
        ),
        ({"method": "lora", "lora.rank": 0}, "config.lora.rank=0"),
    ],
)
def test_unsupported_combinations_are_refused(
    spear: Spear, tmp_path: Path, fields: dict[str, str], message: str
) -> None:
    check_refusal(spear(*quick(tmp_path / "run", fields)), message)


def test_another_data_set_needs_a_detector(spear: Spear, nasa: Path, tmp_path: Path) -> None:
    assert spear(*quick_on(nasa, tmp_path / "run", {"method": "gradient_boosting"})).code == 0
    outcome = spear(
        *command("quickstart:debug", mode="evaluate", detector=tmp_path / "run", workdir=tmp_path / "other")
    )
    check_refusal(outcome, "no detector.json there")


@pytest.mark.parametrize("method", ["spear", "lora", pytest.param("fine_tuning", marks=pytest.mark.slow)])
def test_memory_is_estimated_for_what_is_trained(method: str) -> None:
    config = config_of(method, **{"backbone.name": TINY, "data.window": T})
    assemble = assemble_model if method == "spear" else assemble_fine_tuning
    model = assemble(config, load_method_backbone(config))
    trainable = memory.estimate_memory(config).trainable
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), trainable) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), model.trainable
    )


def test_memory_of_other_methods_is_refused(spear: Spear) -> None:
    outcome = spear(*command("nasa:debug", {"method": "lstm"}, mode="memory"))
    check_refusal(outcome, "config.method='lstm'", "spear, fine_tuning, lora")
