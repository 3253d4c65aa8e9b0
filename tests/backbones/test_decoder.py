"""Decoders and other families: parity with transformers (golden files; live if torch is installed), and prompts."""

import dataclasses
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from spear_jax.backbones.pretrained import load_backbone
from spear_jax.backbones.weights.config_json import Fields
from spear_jax.backbones.weights.decoder_config import DecoderConfig, Rotary
from spear_jax.errors import InputError

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-4  # largest absolute difference to torch in float32

SMALL = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 60,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

# name -> (class of the config and of the model in transformers, fields in addition to SMALL)
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {"head_dim": 8}),
    "gemma-one-key": (
        "GemmaConfig",
        "GemmaForCausalLM",
        {"head_dim": 16, "num_key_value_heads": 1, "num_hidden_layers": 1, "attention_bias": True},
    ),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 12, "num_hidden_layers": 4},
    ),
    "gemma2-tight-caps": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {"head_dim": 6, "sliding_window": 3, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {"head_dim": 8, "sliding_window": 4, "num_hidden_layers": 7, "query_pre_attn_scalar": 8},
    ),
    "gemma3-scaled": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {
            "head_dim": 8,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention", "full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
            },
        },
    ),
    "gemma3-both-ways": (
        "Gemma3TextConfig",
        "Gemma3TextModel",
        {"head_dim": 8, "sliding_window": 6, "use_bidirectional_attention": True},
    ),
    "llama": ("LlamaConfig", "LlamaForCausalLM", {"tie_word_embeddings": False}),
    "llama3": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {
            "head_dim": 10,
            "rope_parameters": LLAMA3,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {"tie_word_embeddings": False}),
    "qwen2-sliding": (
        "Qwen2Config",
        "Qwen2ForCausalLM",
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "tie_word_embeddings": True},
    ),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {"head_dim": 8, "tie_word_embeddings": True}),
    "qwen3-biased": (
        "Qwen3Config",
        "Qwen3ForCausalLM",
        {"head_dim": 12, "attention_bias": True, "num_key_value_heads": 4, "rms_norm_eps": 1e-5},
    ),
    "modernbert": (
        "ModernBertConfig",
        "ModernBertForMaskedLM",
        {"local_attention": 6, "num_hidden_layers": 5, "num_key_value_heads": None},
    ),
    "modernbert-biased": (
        "ModernBertConfig",
        "ModernBertModel",
        {
            "local_attention": 4,
            "norm_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "global_attn_every_n_layers": 2,
            "num_key_value_heads": None,
        },
    ),
    "roberta": ("RobertaConfig", "RobertaModel", {"pad_token_id": 1, "type_vocab_size": 1}),
    "roberta-masked": (
        "RobertaConfig",
        "RobertaForMaskedLM",
        {"pad_token_id": 1, "num_hidden_layers": 1, "layer_norm_eps": 1e-5},
    ),
    "distilbert": (
        "DistilBertConfig",
        "DistilBertModel",
        {"dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 50},
    ),
    "distilbert-masked": (
        "DistilBertConfig",
        "DistilBertForMaskedLM",
        {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 20},
    ),
}
LENGTHS = [19, 7]


def inputs() -> tuple[np.ndarray, np.ndarray]:
    mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    ids = np.random.default_rng(7).integers(3, 60, mask.shape)
    return ids, mask


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draws a parameter, seeded by its name: no norm is the identity, no bias is 0, and logits reach the soft caps."""
    return (0.05 + 0.3 * np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)).astype(np.float32)


def write_checkpoint(name: str, folder: Path, **saving: Any) -> Any:
    """Writes a small random checkpoint with save_pretrained; returns the torch model."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config_class, model_class, fields = CASES[name]
    fields = {key: value for key, value in (SMALL | fields).items() if value is not None}
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**fields)).eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(drawn(path, tuple(parameter.shape))))
    model.save_pretrained(folder, **saving)
    return model


def torch_hidden(model: Any, mask: np.ndarray, **inputs: np.ndarray) -> np.ndarray:
    import torch

    tensors = {key: torch.tensor(value) for key, value in inputs.items()}
    bare = getattr(model, model.base_model_prefix, model)
    with torch.no_grad():
        return bare(attention_mask=torch.tensor(mask).long(), **tensors).last_hidden_state.numpy()


def largest_difference(actual: Any, expected: np.ndarray, mask: np.ndarray) -> float:
    return float(np.abs(np.asarray(actual, np.float32) - expected)[mask].max())


# --- Parity -------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_hidden_states_match_torch(name: str, tmp_path: Path) -> None:
    model = write_checkpoint(name, tmp_path)
    backbone = load_backbone(str(tmp_path))
    ids, mask = inputs()
    hidden = backbone.encode(backbone.embed(ids), mask)
    assert np.abs(np.asarray(hidden)).max() > 0.1
    assert largest_difference(hidden, torch_hidden(model, mask, input_ids=ids), mask) <= TOLERANCE
    full = np.ones_like(mask)
    hidden = backbone.encode(backbone.embed(ids), full)
    assert largest_difference(hidden, torch_hidden(model, full, input_ids=ids), full) <= TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_a_prompt_in_front_gives_the_hidden_states_of_torch(name: str, tmp_path: Path) -> None:
    model = write_checkpoint(name, tmp_path)
    backbone = load_backbone(str(tmp_path))
    ids, mask = inputs()
    prompt = np.random.default_rng(3).standard_normal((2, 5, backbone.hidden_size)).astype(np.float32)
    embeddings = np.concatenate([prompt, backbone.embed(ids)], axis=1)
    mask = np.concatenate([np.ones((2, 5), bool), mask], axis=1)
    expected = torch_hidden(model, mask, inputs_embeds=embeddings)
    assert largest_difference(backbone.encode(embeddings, mask), expected, mask) <= TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, tmp_path: Path) -> None:
    """Without torch: shapes, config.json and hidden states are stored, weights follow from their names."""
    golden = np.load(GOLDEN / "families.npz")
    about = json.loads(str(golden["about"]))[name]
    (tmp_path / "config.json").write_text(json.dumps(about["config"]))
    tensors = {stored: drawn(path, tuple(shape)) for stored, path, shape in about["tensors"]}
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    backbone = load_backbone(str(tmp_path))
    ids, mask = inputs()
    hidden = backbone.encode(backbone.embed(ids), mask)
    assert largest_difference(hidden, golden[name], mask) <= TOLERANCE


def decoder_config(content: dict[str, Any], source: str = "config.json") -> DecoderConfig:
    return DecoderConfig.from_fields(Fields.parse(content, source))


def spelled_as_in_4(config: dict[str, Any]) -> dict[str, Any]:
    """Respells a config.json as transformers 4.x wrote it."""
    config = dict(config)
    rope = config.pop("rope_parameters")
    kinds = config.pop("layer_types", None)
    if "full_attention" in rope:
        full, local = rope["full_attention"], rope["sliding_attention"]["rope_theta"]
        names = {"modernbert": ("global_rope_theta", "local_rope_theta")}
        base, local_base = names.get(config["model_type"], ("rope_theta", "rope_local_base_freq"))
        config[local_base] = local
        if config["model_type"] == "modernbert":
            config["global_attn_every_n_layers"] = kinds[1:].index("full_attention") + 1
        elif kinds == ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(len(kinds))]:
            config["sliding_window_pattern"] = 6
        else:
            config["layer_types"] = kinds
    else:
        full, base = rope, "rope_theta"
    config[base] = full["rope_theta"]
    scaling = {key: value for key, value in full.items() if key != "rope_theta"}
    config["rope_scaling"] = None if full["rope_type"] == "default" else scaling
    return config


@pytest.mark.parametrize("name", [name for name in CASES if "bert" not in name or "modern" in name])
def test_both_spellings_of_config_json_mean_the_same(name: str) -> None:
    about = json.loads(str(np.load(GOLDEN / "families.npz")["about"]))[name]
    assert "rope_parameters" in about["config"]
    old = spelled_as_in_4(about["config"])
    assert "rope_parameters" not in old
    assert decoder_config(old) == decoder_config(about["config"])


@pytest.mark.parametrize("name", ["gemma", "gemma2-tight-caps", "gemma3", "llama", "llama3", "qwen2", "qwen3"])
def test_token_logits_match_torch(name: str, tmp_path: Path) -> None:
    """Tied and untied tables, with and without a cap."""
    torch = pytest.importorskip("torch")
    model = write_checkpoint(name, tmp_path)
    backbone = load_backbone(str(tmp_path))
    ids, mask = inputs()
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long()).logits.numpy()
    wanted = np.array([3, 59, 17])
    actual = backbone.vocabulary.logits(backbone.encode(backbone.embed(ids), mask), wanted)
    assert largest_difference(actual, expected[..., wanted], mask) <= 10 * TOLERANCE  # sums of 24 such states


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    write_checkpoint("gemma2", tmp_path / "one")
    write_checkpoint("gemma2", tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    single, sharded = load_backbone(str(tmp_path / "one")), load_backbone(str(tmp_path / "many"))
    jax.tree.map(np.testing.assert_array_equal, single.params, sharded.params)
    np.testing.assert_array_equal(single.word_rows(np.arange(60)), sharded.word_rows(np.arange(60)))


@pytest.mark.parametrize("spelling", ["today", "4.x"])
def test_the_text_model_is_taken_out_of_a_multimodal_checkpoint(tmp_path: Path, spelling: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    text = transformers.Gemma3TextConfig(**(SMALL | CASES["gemma3"][2]))
    vision = transformers.SiglipVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4
    )
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.05, std=0.3)
    model.save_pretrained(tmp_path)
    if spelling == "4.x":
        tensors = {
            name.replace("model.language_model.", "language_model.model.").replace("model.vision", "vision"): tensor
            for name, tensor in safetensors.numpy.load_file(tmp_path / "model.safetensors").items()
        }
        assert any(name.startswith("language_model.model.") for name in tensors)
        safetensors.numpy.save_file(
            {name.replace("model.multi_modal", "multi_modal"): tensor for name, tensor in tensors.items()},
            tmp_path / "model.safetensors",
        )
    backbone = load_backbone(str(tmp_path))
    ids, mask = inputs()
    hidden = backbone.encode(backbone.embed(ids), mask)
    expected = torch_hidden(model.model.language_model, mask, input_ids=ids)
    assert largest_difference(hidden, expected, mask) <= TOLERANCE


def test_published_multimodal_files_rely_on_defaults() -> None:
    """text_config of google/gemma-3-4b-it, as published."""
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    config = decoder_config({"model_type": "gemma3", "text_config": text})
    assert (config.heads, config.key_value_heads, config.head_size) == (8, 4, 256)
    assert (config.vocabulary_size, config.max_positions, config.window) == (262_208, 131_072, 1024)
    assert config.rotary == Rotary(1_000_000.0, 8.0)
    assert config.local_rotary == Rotary(10_000.0)
    assert config.sliding[:6] == (True, True, True, True, True, False)


# --- Prompts -------------------------------------------------

# Those marked slow have no property of their own that this test could miss in the others.
CAUSAL = [
    "gemma2",
    "gemma3",
    "qwen2-sliding",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("gemma", "llama3", "qwen3")),
]


def golden_folder(name: str, folder: Path) -> str:
    about = json.loads(str(np.load(GOLDEN / "families.npz")["about"]))[name]
    (folder / "config.json").write_text(json.dumps(about["config"]))
    tensors = {stored: drawn(path, tuple(shape)) for stored, path, shape in about["tensors"]}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return str(folder)


@pytest.mark.one_python
@pytest.mark.parametrize("name", CAUSAL)
def test_a_shared_prefix_equals_the_prompt_in_every_window(name: str, tmp_path: Path) -> None:
    backbone = load_backbone(golden_folder(name, tmp_path))
    ids, mask = inputs()
    prompt = np.random.default_rng(3).standard_normal((5, backbone.hidden_size)).astype(np.float32)
    steps = backbone.embed(ids)
    weights = np.random.default_rng(4).standard_normal(steps.shape).astype(np.float32) * mask[..., None]

    def plain(prompt: Any) -> Any:
        together = jnp.concatenate([jnp.broadcast_to(prompt, (2, *prompt.shape)), steps], axis=1)
        extended = jnp.concatenate([jnp.ones((2, 5), bool), mask], axis=1)
        return backbone.module.apply({"params": backbone.params}, together, extended)[:, 5:]

    def shared(prompt: Any) -> Any:
        return backbone.module.apply({"params": backbone.params}, steps, jnp.asarray(mask), prefix=prompt)

    def with_gradient(read: Callable[[Any], Any]) -> tuple[np.ndarray, np.ndarray]:
        def loss(prompt: Any) -> tuple[Any, Any]:
            states = read(prompt)
            return (states * weights).sum(), states

        gradient, states = jax.jit(jax.grad(loss, has_aux=True))(prompt)
        return np.asarray(gradient), np.asarray(states)

    (gradient, states), (expected_gradient, expected) = with_gradient(shared), with_gradient(plain)
    assert largest_difference(states, expected, mask) <= 1e-5
    assert np.linalg.norm(gradient - expected_gradient) <= 1e-4 * np.linalg.norm(expected_gradient)


@pytest.mark.parametrize("name", ["gemma", "gemma3", "modernbert", "roberta"])
def test_reading_some_positions_changes_none(name: str, tmp_path: Path) -> None:
    backbone = load_backbone(golden_folder(name, tmp_path))
    ids, mask = inputs()
    steps, params = backbone.embed(ids), {"params": backbone.params}
    apply = jax.jit(backbone.module.apply, static_argnames=("selection",))
    everything = np.asarray(apply(params, steps, mask))
    some = apply(params, steps, mask, selection=(4, 7))
    np.testing.assert_allclose(some, everything[:, 4:7], atol=2e-5)
    rows = np.array([[18, 2], [6, 0]])
    chosen = jax.jit(backbone.module.apply)(params, steps, mask, None, rows)
    np.testing.assert_allclose(chosen, np.take_along_axis(everything, rows[..., None], axis=1), atol=2e-5)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("gemma", "gemma2", "llama", "modernbert") else [pytest.mark.slow])
        for name in CASES
    ],
)
def test_padding_never_shifts_what_a_real_step_sees(name: str, tmp_path: Path) -> None:
    backbone = load_backbone(golden_folder(name, tmp_path))
    ids, mask = inputs()
    short = np.asarray(backbone.encode(backbone.embed(ids[1:, :7]), mask[1:, :7]))
    junk = np.where(mask[..., None], np.asarray(backbone.embed(ids)), 1e3)
    padded = np.asarray(backbone.encode(jnp.asarray(junk), mask))
    np.testing.assert_allclose(padded[1:, :7], short, atol=2e-5)


@pytest.mark.parametrize("name", ["gemma2", "llama", "modernbert", "distilbert"])
def test_the_attention_can_be_told_to_look_one_way_or_both(name: str, tmp_path: Path) -> None:
    """A change at step 10 affects only later steps if attention is causal, else all steps nearby."""
    ids, _ = inputs()
    mask = np.ones_like(ids, bool)
    changed = ids.copy()
    changed[:, 10] = (ids[:, 10] + 1 - 3) % 57 + 3

    def reached(attention: str) -> np.ndarray:
        backbone = load_backbone(golden_folder(name, tmp_path), attention=attention)
        before, after = (np.asarray(backbone.encode(backbone.embed(x), mask)) for x in (ids, changed))
        return np.abs(before - after).max(axis=(0, 2)) > 1e-6

    causal, both = reached("causal"), reached("bidirectional")
    assert not causal[:10].any()
    assert causal[10:].any()
    assert both[:10].any()
    own = reached("own")
    np.testing.assert_array_equal(own, causal if name in ("gemma2", "llama") else both)


@pytest.mark.parametrize("name", ["gemma", "gemma3", "modernbert"])
def test_bfloat16_is_close(name: str, tmp_path: Path) -> None:
    golden = np.load(GOLDEN / "families.npz")
    backbone = load_backbone(golden_folder(name, tmp_path), "bfloat16")
    assert backbone.params["last_layer"]["query"]["kernel"].dtype == jnp.bfloat16
    ids, mask = inputs()
    hidden = backbone.encode(backbone.embed(ids), mask)
    assert hidden.dtype == jnp.bfloat16
    error = (np.asarray(hidden, np.float32) - golden[name])[mask]
    assert np.linalg.norm(error) <= 5e-2 * np.linalg.norm(golden[name][mask])


def test_remat_and_unroll_change_nothing_but_cost(tmp_path: Path) -> None:
    ids, mask = inputs()
    folder = golden_folder("gemma3", tmp_path)
    plain, rematerialised = load_backbone(folder), load_backbone(folder, remat=True)
    rematerialised = dataclasses.replace(rematerialised, module=rematerialised.module.clone(unroll=True))

    def gradient(backbone: Any) -> np.ndarray:
        steps = backbone.embed(ids)
        return np.asarray(jax.jit(jax.grad(lambda x: (backbone.encode(x, mask)[mask] ** 2).sum()))(steps))

    np.testing.assert_allclose(gradient(plain), gradient(rematerialised), rtol=1e-3, atol=1e-4)


# --- config.json ----------------------------------------------------------

PLAIN_LLAMA = {
    "model_type": "llama",
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "vocab_size": 60,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 5}, "hidden size (24) is not a multiple of the number of attention heads (5)"),
        ({"model_type": "qwen2", "num_attention_heads": 5}, "hidden_size = 24 is not divisible by num_attention_heads"),
        ({"num_key_value_heads": 3}, "num_attention_heads = 4 is not divisible by num_key_value_heads = 3"),
        ({"head_dim": 3}, "heads of 3 coordinates"),
        ({"hidden_act": "relu"}, "hidden_act = 'relu' is not supported (supported: 'silu', "),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
            "rope_parameters: rope_type = 'yarn' is not supported",
        ),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type = 'dynamic' is not supported"),
        ({"rope_scaling": {"rope_type": "linear"}}, "Missing required keys in `rope_parameters`"),
        ({"rope_scaling": 8}, "Validation error for field 'rope_parameters'"),
        ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, "low_freq_factor = 1.0 must be below"),
        ({"rope_theta": -1}, "rope_theta = -1, must be a number above 0"),
        ({"rms_norm_eps": 2.0}, "rms_norm_eps = 2.0, must be between 0 and 1"),
        ({"attention_bias": 1}, "Field 'attention_bias' expected bool, got int (value: 1)"),
        ({"model_type": "gemma2", "layer_types": ["chunked_attention"] * 2}, "layer_types = ['chunked_attention', "),
        ({"model_type": "gemma", "hidden_act": "silu"}, "hidden_act = 'silu' is not supported"),
    ],
)
def test_unsupported_fields_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        decoder_config(PLAIN_LLAMA | change, "some/config.json")
    assert str(caught.value).startswith("some/config.json: ")
    assert "\n" not in str(caught.value)


def test_the_first_gemma_means_the_tanh_approximation_by_gelu() -> None:
    """The config of google/gemma-2b says hidden_act 'gelu'; its authors' code uses the approximation."""
    gemma = PLAIN_LLAMA | {"model_type": "gemma", "head_dim": 8, "hidden_act": "gelu", "hidden_activation": None}
    assert decoder_config(gemma).activation == "gelu_tanh"
