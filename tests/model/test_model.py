"""The model: the prompt changes nothing it should not, and frozen means frozen."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from spear_jax.backbones.attention import take
from spear_jax.backbones.backbone import Backbone
from spear_jax.backbones.bert import Bert, BertConfig
from spear_jax.backbones.pretrained import load_backbone
from spear_jax.backbones.weights.checkpoint import param_shapes
from spear_jax.config.arguments import TINY
from spear_jax.config.checks import check_length
from spear_jax.config.fields import default_config
from spear_jax.errors import InputError
from spear_jax.model.assemble import assemble_model
from spear_jax.model.placed import count_parameters
from spear_jax.model.spear import Spear, merge
from spear_jax.training.step import loss_sum, make_optimizer, make_train_call

T, BINS = 12, 10


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(TINY)


def tiny_config(**fields: object) -> ConfigDict:
    config = default_config()
    config.backbone.name, config.quantizer.bins, config.data.window = TINY, BINS, T
    config.embedding.kind, config.prompt.length = "numbers", 3
    config.update_from_flattened_dict(fields)
    return config


def logits_of(spear: Spear, variables: dict, bins: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(spear.apply)(variables, bins, mask))


def batch(rows: int = 4, seed: int = 0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        "inputs": jnp.asarray(rng.integers(0, BINS, (rows, T))),
        "mask": jnp.arange(T) < rng.integers(T // 2, T + 1, (rows, 1)),
        "targets": jnp.asarray(rng.random((rows, T)) < 0.3, jnp.float32),
    }


def test_without_a_prompt_the_encoder_is_plain_bert(backbone):
    model = assemble_model(tiny_config(**{"prompt.length": 0}), backbone)
    b = batch()
    ids = np.array([backbone.tokenize(str(n))[0] for n in range(BINS)])[b["inputs"]]
    plain = backbone.encode(backbone.embed(ids), b["mask"])
    states = jax.jit(lambda *inputs: model.module.apply(*inputs, method=Spear.features))(
        merge(model.trainable, model.frozen), b["inputs"], b["mask"]
    )
    np.testing.assert_array_equal(np.asarray(states)[b["mask"]], np.asarray(plain)[b["mask"]])


class Echo(nn.Module):
    """A backbone that returns its embeddings: shows which position a logit is read from."""

    causal: bool = False

    def __call__(self, embeddings, mask, positions=None, selection=None):
        return take(embeddings, selection)


def echo(config: ConfigDict, backbone: Backbone) -> tuple[Spear, dict]:
    model = assemble_model(config, backbone)
    rng = np.random.default_rng(0)
    table = rng.normal(size=(BINS + 1, backbone.hidden_size)).astype(np.float32)
    trainable = {**model.trainable, "embedding": {"table": table}}
    frozen = {name: part for name, part in model.frozen.items() if name == "cls"}
    return model.module.clone(backbone=Echo()), merge(trainable, frozen)


@pytest.mark.parametrize("length", [0, 1, 3])
@pytest.mark.parametrize("position", ["prefix", "after_cls", "suffix"])
def test_each_logit_is_read_at_its_own_step(backbone, position, length):
    spear, variables = echo(tiny_config(**{"prompt.position": position, "prompt.length": length}), backbone)
    b = batch()
    logits = logits_of(spear, variables, b["inputs"], b["mask"])
    params = variables["params"]
    expected = params["embedding"]["table"][b["inputs"]] @ params["head"]["kernel"][:, 0] + params["head"]["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    for shift in {1, length} - {0}:  # the check must be able to see a shift
        assert not np.allclose(np.roll(logits, shift, axis=1), expected, atol=1e-3)


@pytest.mark.parametrize("position", ["prefix", "after_cls", "suffix"])
def test_padding_changes_no_real_logit(backbone, position):
    model = assemble_model(tiny_config(**{"prompt.position": position}), backbone)
    variables = merge(model.trainable, model.frozen)
    b = batch()
    short = logits_of(model.module, variables, b["inputs"], b["mask"])
    longer = logits_of(
        model.module,
        variables,
        np.pad(b["inputs"], ((0, 0), (0, 7)), constant_values=BINS - 1),
        np.pad(b["mask"], ((0, 0), (0, 7))),
    )
    np.testing.assert_allclose(np.where(b["mask"], short, 0), np.where(b["mask"], longer[:, :T], 0), atol=1e-5)


def test_every_real_step_and_the_prompt_reach_a_logit(backbone):
    model = assemble_model(tiny_config(), backbone)
    b = batch()

    def one_logit(trainable, embedding):
        frozen = {**model.frozen, "embedding": embedding}
        return model.module.apply({"params": {**trainable, **frozen}}, b["inputs"][:1], jnp.ones((1, T), bool))[0, 5]

    prompt, table = jax.jit(jax.grad(one_logit, argnums=(0, 1)))(model.trainable, model.frozen["embedding"])
    assert (np.abs(prompt["prompt"]["vectors"]).max(axis=1) > 0).all()
    used = np.unique(b["inputs"][0])
    assert (np.abs(table["table"]).max(axis=1) > 0).nonzero()[0].tolist() == used.tolist()


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_a_window_head_pools_what_it_names(backbone, pooling):
    fields = {"head.kind": "window", "head.pooling": pooling, "prompt.position": "after_cls"}
    spear, variables = echo(tiny_config(**fields), backbone)
    b = batch()
    params = variables["params"]
    steps = params["embedding"]["table"][b["inputs"]]
    lengths = b["mask"].sum(axis=1)
    pooled = {
        "mean": np.stack([row[:n].mean(axis=0) for row, n in zip(steps, lengths, strict=True)]),
        "last": steps[np.arange(4), lengths - 1],
        "cls": np.broadcast_to(params["cls"]["table"][0], (4, backbone.hidden_size)),
    }[pooling]
    logits = logits_of(spear, variables, b["inputs"], b["mask"])
    expected = pooled @ params["head"]["kernel"][:, 0] + params["head"]["bias"]
    np.testing.assert_allclose(logits, np.broadcast_to(expected[:, None], (4, T)), rtol=1e-4, atol=1e-5)


def train_steps(config: ConfigDict, backbone: Backbone, steps: int):
    model = assemble_model(config, backbone)
    optimizer = make_optimizer(config)
    call = make_train_call(model.module, optimizer, 1.0)
    trainable, frozen = jax.tree.map(jnp.copy, (model.trainable, model.frozen))
    stacked = {name: np.stack([batch(seed=i)[name] for i in range(steps)]) for name in batch()}
    trained, _, metrics = call(trainable, optimizer.init(trainable), frozen, stacked, steps)
    return model, frozen, trained, metrics


def test_training_changes_every_trainable_array_and_no_frozen_byte(backbone):
    model, frozen, trained, _ = train_steps(tiny_config(), backbone, 3)
    before, after = jax.tree.leaves(model.frozen), jax.tree.leaves(frozen)
    assert [np.asarray(a).tobytes() for a in before] == [np.asarray(a).tobytes() for a in after]
    assert set(trained) == {"prompt", "head"}
    for old, new in zip(jax.tree.leaves(model.trainable), jax.tree.leaves(trained), strict=True):
        assert not np.array_equal(old, new)


def test_bin_embeddings_train_only_when_the_config_says_so(backbone):
    model, _, trained, _ = train_steps(tiny_config(**{"embedding.kind": "trained"}), backbone, 3)
    assert set(trained) == {"prompt", "head", "embedding"}
    assert "embedding" not in model.frozen
    assert not np.array_equal(model.trainable["embedding"]["table"], trained["embedding"]["table"])


def test_a_call_equals_its_steps_one_by_one(backbone):
    """The fused call against value_and_grad and optax written out."""
    config = tiny_config(**{"train.warmup_steps": 2})
    model, frozen, fused, metrics = train_steps(config, backbone, 3)
    optimizer = make_optimizer(config)
    trainable = model.trainable
    state = optimizer.init(trainable)

    @jax.jit
    def step(trainable, state, one_batch):
        def mean_loss(trainable):
            total, steps = loss_sum(model.module, trainable, frozen, one_batch, 1.0)
            return total / steps

        loss, gradient = jax.value_and_grad(mean_loss)(trainable)
        updates, state = optimizer.update(gradient, state, trainable)
        return optax.apply_updates(trainable, updates), state, loss

    for i in range(3):
        trainable, state, loss = step(trainable, state, batch(seed=i))
        np.testing.assert_allclose(metrics.loss[i], loss, rtol=1e-5)
    for leaf, expected in zip(jax.tree.leaves(fused), jax.tree.leaves(trainable), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=1e-5)


def test_the_loss_is_the_mean_over_real_steps(backbone):
    model = assemble_model(tiny_config(), backbone)
    b = batch()
    total, steps = jax.jit(lambda t, f: loss_sum(model.module, t, f, b, 3.0))(model.trainable, model.frozen)
    logits = logits_of(model.module, merge(model.trainable, model.frozen), b["inputs"], b["mask"])
    p = 1 / (1 + np.exp(-logits))
    terms = -np.where(b["targets"] > 0, 3 * np.log(p), np.log(1 - p))[b["mask"]]
    np.testing.assert_allclose(float(total), terms.sum(), rtol=1e-5)
    assert float(steps) == b["mask"].sum()


BERT_BASE = BertConfig(
    hidden_size=768,
    layers=12,
    heads=12,
    intermediate_size=3072,
    vocabulary_size=30522,
    positions=512,
    type_vocabulary_size=2,
    norm_eps=1e-12,
)


def bert_base_shapes(unroll: int) -> tuple[Spear, dict, dict]:
    """SPEAR around bert-base-uncased's shape: shapes only, nothing is computed."""
    spear = Spear(backbone=Bert(BERT_BASE, unroll=unroll), hidden=768, rows=101, prompt_length=20)

    def shape(*size: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(size, jnp.float32)

    trainable = {
        "prompt": {"vectors": shape(20, 768)},
        "head": {"kernel": shape(768, 1), "bias": shape(1)},
    }
    frozen = {"backbone": param_shapes(Bert(BERT_BASE), 768), "embedding": {"table": shape(101, 768)}}
    return spear, trainable, frozen


def test_trainable_numbers_of_the_paper():
    _, trainable, _ = bert_base_shapes(1)
    assert count_parameters(trainable) == 16_129
    assert 4 * count_parameters(trainable["prompt"]) == 61_440


def test_gradients_exist_for_prompt_and_head_only():
    spear, trainable, frozen = bert_base_shapes(1)
    shapes = {
        "inputs": jax.ShapeDtypeStruct((2, 128), jnp.int32),
        "mask": jax.ShapeDtypeStruct((2, 128), jnp.bool_),
        "targets": jax.ShapeDtypeStruct((2, 128), jnp.float32),
    }
    gradient = jax.eval_shape(jax.grad(lambda t, f, b: loss_sum(spear, t, f, b, 1.0)[0]), trainable, frozen, shapes)
    assert jax.tree.map(lambda g: g.shape, gradient) == {
        "prompt": {"vectors": (20, 768)},
        "head": {"kernel": (768, 1), "bias": (1,)},
    }
    # And should somebody differentiate the frozen tree, nothing comes through.
    tiny = assemble_model(tiny_config(), load_backbone(TINY))
    leaked = jax.jit(jax.grad(lambda f: loss_sum(tiny.module, tiny.trainable, f, batch(), 1.0)[0]))(tiny.frozen)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(leaked))


@pytest.mark.slow
def test_a_training_step_costs_at_most_2_1_forward_passes():
    """XLA's own count: bert-base-uncased's shape, T = 128, m = 20, layers unrolled, no remat."""
    spear, trainable, frozen = bert_base_shapes(BERT_BASE.layers)
    config = default_config()
    optimizer = make_optimizer(config)
    shapes = {
        "inputs": jax.ShapeDtypeStruct((1, 1, 128), jnp.int32),
        "mask": jax.ShapeDtypeStruct((1, 1, 128), jnp.bool_),
        "targets": jax.ShapeDtypeStruct((1, 1, 128), jnp.float32),
    }
    step = make_train_call(spear, optimizer, 1.0)
    state = jax.eval_shape(optimizer.init, trainable)
    step_flops = step.lower(trainable, state, frozen, shapes, 1).compile().cost_analysis()["flops"]

    def forward(trainable, frozen, bins, mask):
        return spear.apply(merge(trainable, frozen), bins, mask)

    inputs = [jax.ShapeDtypeStruct((1, 128), dtype) for dtype in (jnp.int32, jnp.bool_)]
    forward_flops = jax.jit(forward).lower(trainable, frozen, *inputs).compile().cost_analysis()["flops"]
    # The forward pass alone must be the complete encoder: 24 H^2 per position and layer, and attention.
    assert forward_flops > 148 * 12 * 24 * 768**2
    print(f"training step / forward: {step_flops / forward_flops:.3f}")
    assert step_flops / forward_flops <= 2.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt.length": 512}, r"prompt.length=512 must be at most 510: .* has 512 positions"),
        ({"data.window": 600}, r"data.window=600 must be at most 509: .* 512 positions, of which the prompt takes 3"),
        ({"data.window": 509, "prompt.position": "after_cls"}, r"must be at most 508"),
        ({"embedding.kind": "consecutive"}, r"first_row=1000 .* runs past the 1000 rows"),
        ({"prompt.init": "nowhere.npy"}, r"prompt.init='nowhere.npy': cannot read"),
    ],
)
def test_what_does_not_fit_is_refused(backbone, fields, message):
    config = tiny_config(**fields)
    with pytest.raises(InputError, match=message):
        check_length(config, config.data.window, backbone.max_positions)
        assemble_model(config, backbone)
