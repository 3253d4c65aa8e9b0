"""Several prompts at once: each trains as it would alone, and scores are the mean of their logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.special import expit, logit

from spear_jax.backbones.backbone import Backbone
from spear_jax.backbones.pretrained import load_backbone
from spear_jax.config import TINY, validate
from spear_jax.config.fields import default_config
from spear_jax.data import Examples
from spear_jax.errors import InputError
from spear_jax.model import PlacedModel, assemble_model, check_exchange, fit_head, fit_heads
from spear_jax.training import make_optimizer, make_train_call

T, BINS, MEMBERS, STEPS = 12, 10, 3, 3


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(TINY)


def tiny_config(**fields: object) -> ConfigDict:
    config = default_config()
    config.backbone.name, config.quantizer.bins, config.data.window = TINY, BINS, T
    config.embedding.kind, config.prompt.length, config.prompt.members = "numbers", 3, MEMBERS
    config.train.clip_norm = 1e-3  # clips every gradient
    config.update_from_flattened_dict(fields)
    return config


def windows(rows: int = 6) -> Examples:
    rng = np.random.default_rng(0)
    lengths = rng.integers(T // 2, T + 1, rows)
    return Examples(
        bins=rng.integers(0, BINS, (rows, T)),
        views=np.zeros((rows, T, 0), int),
        mask=np.arange(T) < lengths[:, None],
        targets=(rng.random((rows, T)) < 0.3).astype(np.float32),
        lengths=lengths,
    )


def train(config: ConfigDict, model: PlacedModel) -> tuple[PlacedModel, np.ndarray]:
    """Takes optimizer steps on one batch; returns the model and the losses."""
    optimizer = make_optimizer(config)
    trainable = jax.tree.map(jnp.copy, model.trainable)
    batches = jax.tree.map(lambda array: np.stack([array] * STEPS), windows().take(np.arange(6), T))
    call = make_train_call(model.module, optimizer, 1.0)
    trained, _, metrics = call(trainable, optimizer.init(trainable), model.frozen, batches, STEPS)
    return model.with_parts(trained), np.asarray(metrics.loss)


FIELDS = [
    {},
    {"train.parts": "head", "prompt.init": "normal"},
    {"prompt.length": 0},
    {"embedding.kind": "trained"},
    {"head.kind": "window"},
]


@pytest.mark.parametrize("fields", FIELDS)
def test_each_member_trains_as_it_does_alone_and_their_logits_are_averaged(backbone, fields):
    config = tiny_config(**fields)
    model = assemble_model(config, backbone)
    trained, losses = train(config, model)
    config.prompt.members = 1
    alone, alone_losses = zip(*(train(config, model.member(number)) for number in range(MEMBERS)), strict=True)
    assert trained.members == MEMBERS and alone[0].members == 1
    for number, one in enumerate(alone):
        for leaf, expected in zip(
            *map(jax.tree.leaves, (trained.member(number).trainable, one.trainable)), strict=True
        ):
            np.testing.assert_allclose(leaf, expected, atol=1e-6)
    np.testing.assert_allclose(losses, np.mean(alone_losses, axis=0), rtol=1e-5)
    examples = windows()
    single = [one.score(examples) for one in alone]
    expected = expit(np.mean([logit(scores) for scores in single], axis=0))
    np.testing.assert_allclose(trained.score(examples)[examples.mask], expected[examples.mask], atol=1e-6)
    assert np.ptp(single, axis=0).max() > 1e-4  # members differ


def test_the_first_member_begins_as_a_single_prompt_does(backbone):
    alone = assemble_model(tiny_config(**{"prompt.members": 1}), backbone).trainable
    first = assemble_model(tiny_config(), backbone).member(0).trainable
    assert jax.tree.all(jax.tree.map(np.array_equal, alone, first))


def test_each_head_is_fitted_behind_its_own_prompt(backbone):
    model = assemble_model(tiny_config(), backbone)
    heads = fit_heads(model, windows(), positive_weight=1.0, seed=0)
    for number in range(MEMBERS):
        expected = fit_head(model.member(number), windows(), positive_weight=1.0, seed=0)
        assert all(np.array_equal(heads[name][number], expected[name]) for name in expected)
    assert not np.array_equal(heads["kernel"][0], heads["kernel"][1])


def test_members_that_would_be_equal_and_an_exchange_with_peft_are_refused():
    for init in ("words", "prompt.npy", "./adapter"):
        with pytest.raises(InputError, match=f"prompt.members=3 must be 1 with config.prompt.init='{init}'"):
            validate(tiny_config(**{"prompt.init": init, "data.stride": T}))
    bare = {"prompt.length": 0, "prompt.init": "vocabulary", "data.stride": T}
    with pytest.raises(InputError, match=r"prompt.members=3 must be 1 with .*prompt.length=0"):
        validate(tiny_config(**bare, **{"head.init": "fitted"}))
    validate(tiny_config(**bare, **{"head.init": "normal"}))  # heads start apart
    with pytest.raises(InputError, match="PEFT has one prompt"):
        check_exchange(tiny_config(), "the detector")
