"""A fitted head is the optimum of its regression, and reads the same states as the model's own head."""

import dataclasses

import numpy as np
import pytest
from scipy.special import expit

from spear_jax.backbones.pretrained import load_backbone
from spear_jax.config.arguments import TINY
from spear_jax.config.fields import default_config
from spear_jax.data.batches import Examples
from spear_jax.methods.head_only import score_head_only
from spear_jax.model import probing
from spear_jax.model.assemble import assemble_model
from spear_jax.model.placed import PlacedModel
from spear_jax.model.probing import fit_head

T, BINS = 16, 10


def assembled(head: str = "step") -> PlacedModel:
    config = default_config()
    config.backbone.name, config.quantizer.bins, config.data.window = TINY, BINS, T
    config.prompt.length, config.head.kind = 3, head
    return assemble_model(config, load_backbone(TINY)).with_batch_size(16)


def windows(rows: int, head: str = "step", seed: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    bins = rng.integers(0, BINS, (rows, T)).astype(np.int32)
    mask = np.arange(T) < rng.integers(T // 2, T + 1, (rows, 1))
    labels = (bins > 6) & mask & (rng.random((rows, T)) < 0.7)
    if head == "window":
        labels = np.broadcast_to((bins[:, :1] > 5), bins.shape)
    return Examples(
        bins, np.zeros((*bins.shape, 0), np.int32), mask, labels.astype(np.float32), np.full(len(bins), bins.shape[1])
    )


@pytest.mark.parametrize("head", ["step", "window"])
@pytest.mark.parametrize("positive_weight", [1.0, 4.0])
def test_the_fitted_head_is_at_the_optimum(head: str, positive_weight: float) -> None:
    model, train = assembled(head), windows(40, head)
    batches = list(model.features(train))
    fitted = fit_head(model, train, positive_weight=positive_weight, seed=0)
    chosen = np.ones((40, 1), bool) if head == "window" else train.mask
    x = np.concatenate([states[chosen[rows]] for rows, states in batches]).astype(float)
    y = train.targets[:, : chosen.shape[1]][chosen]
    # Gradient of the weighted cross-entropy with half the squared kernel added: logistic regression at C = 1.
    pull = np.where(y > 0, positive_weight, 1.0) * (expit(x @ fitted["kernel"][:, 0] + fitted["bias"]) - y)
    assert np.abs(x.T @ pull + fitted["kernel"][:, 0]).max() < 1e-2
    assert abs(pull.sum()) < 1e-2


def test_the_model_with_a_fitted_head_gives_the_regression_s_scores() -> None:
    model, train = assembled(), windows(40)
    batches = list(model.features(train))
    head = fit_head(model, train, positive_weight=1.0, seed=0)
    scores = model.with_parts({"head": head}).score(train)
    expected = expit(np.concatenate([states for _, states in batches]) @ head["kernel"] + head["bias"])[..., 0]
    np.testing.assert_allclose(scores[train.mask], expected[train.mask], atol=1e-5)


@pytest.mark.parametrize("head", ["step", "window"])
def test_head_only_is_the_same_whether_states_are_kept_or_read_again(
    head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, train = assembled(head), windows(40, head)
    splits = {"train": train, "test": windows(20, head, seed=1)}
    stored = score_head_only(model, train, splits, positive_weight=1.0, seed=0)
    monkeypatch.setattr("spear_jax.methods.head_only.MAX_STATE_BYTES", 0)
    again = score_head_only(model, train, splits, positive_weight=1.0, seed=0)
    for name in splits:
        np.testing.assert_allclose(stored[name], again[name], atol=1e-6)
        assert stored[name].shape == splits[name].bins.shape


def test_more_states_than_fit_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    model, train = assembled(), windows(60)
    full = score_head_only(model, train, {"train": train}, positive_weight=1.0, seed=0)["train"]
    monkeypatch.setattr(probing, "MAX_STATE_BYTES", 8 * model.module.hidden * int(train.mask.sum()) // 2)
    half = score_head_only(model, train, {"train": train}, positive_weight=1.0, seed=0)["train"]
    assert not np.array_equal(full, half)
    assert np.corrcoef(full[train.mask], half[train.mask])[0, 1] > 0.8


def test_one_class_gives_a_head_that_says_so() -> None:
    normal = windows(10)
    normal = dataclasses.replace(normal, targets=np.zeros_like(normal.targets))
    scores = score_head_only(assembled(), normal, {"train": normal}, positive_weight=1.0, seed=0)
    assert scores["train"].max() < 1e-3
