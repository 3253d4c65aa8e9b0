"""A model on its devices: its parts are replaced by name, and every computation follows its precision."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spear_jax.backbones.pretrained import load_backbone
from spear_jax.config.arguments import TINY
from spear_jax.config.fields import default_config
from spear_jax.data.batches import Examples
from spear_jax.model import placed
from spear_jax.model.assemble import assemble_model
from spear_jax.model.placed import PlacedModel

T, BINS = 8, 10


@pytest.fixture(scope="module")
def model() -> PlacedModel:
    config = default_config()
    config.quantizer.bins, config.prompt.length = BINS, 3
    return assemble_model(config, load_backbone(TINY)).with_batch_size(4)


@pytest.fixture(scope="module")
def windows() -> Examples:
    rng = np.random.default_rng(0)
    mask = np.arange(T) < np.array([[8], [5], [8], [3], [8], [2]])
    bins = rng.integers(0, BINS, mask.shape).astype(np.int32)
    return Examples(
        bins, np.zeros((*bins.shape, 0), np.int32), mask, np.zeros(mask.shape, np.float32), mask.sum(axis=1)
    )


def test_scores_do_not_depend_on_the_batch_size(model: PlacedModel, windows: Examples) -> None:
    scores, alone = model.score(windows), model.with_batch_size(1).score(windows)
    np.testing.assert_allclose(scores[windows.mask], alone[windows.mask], atol=1e-6)


def test_parts_are_replaced_in_the_tree_that_holds_them(model: PlacedModel, windows: Examples) -> None:
    head = {"kernel": np.zeros((32, 1), np.float32), "bias": np.full(1, 100, np.float32)}
    table = {"table": np.zeros((BINS + 1, 32), np.float32)}
    other = model.with_parts({"head": head, "embedding": table})
    assert set(other.trainable) == set(model.trainable) == {"prompt", "head"}
    np.testing.assert_array_equal(other.trainable["head"]["bias"], head["bias"])
    np.testing.assert_array_equal(other.frozen["embedding"]["table"], table["table"])
    assert other.score(windows)[windows.mask].min() == 1
    assert model.score(windows)[windows.mask].max() < 1


def test_without_its_prompt_nothing_is_trainable_and_scores_differ(model: PlacedModel, windows: Examples) -> None:
    bare = model.without_prompt()
    assert bare.trainable == {}
    assert np.abs(bare.score(windows) - model.score(windows)).max() > 1e-4
    prompt = {"vectors": np.zeros((3, 32), np.float32)}
    np.testing.assert_array_equal(
        bare.score(windows), model.with_parts({"prompt": prompt}).without_prompt().score(windows)
    )


def test_every_computation_follows_the_precision(
    model: PlacedModel, windows: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    precisions = []

    def compute(function: object, *inputs: object) -> jax.Array:
        precisions.append(jax.config.jax_default_matmul_precision)
        return jnp.zeros((4, T) if function is placed.score_batch else (4, T, T))

    monkeypatch.setattr(placed, "apply_batch", compute)
    model = dataclasses.replace(model, matmul_precision="highest")
    model.score(windows)
    list(model.features(windows))
    model.attention(windows, 0)
    assert precisions == ["highest"] * 5  # two batches are scored, two read, and one window is inspected
    assert jax.config.jax_default_matmul_precision is None
