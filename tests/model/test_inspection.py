"""Nearest words of a prompt, and its attention against transformers."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spear_jax.backbones.pretrained import load_backbone
from spear_jax.config.fields import default_config
from spear_jax.data.batches import Examples
from spear_jax.model import inspection
from spear_jax.model.placed import PlacedModel
from spear_jax.model.spear import Spear

TOLERANCE = 1e-5  # softmax weights
M, T = 3, 7
SHAPE = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 60,
    "max_position_embeddings": 64,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Bert": ("BertModel", {}),
    "one layer": ("BertModel", {"num_hidden_layers": 1}),
    "ModernBert": ("ModernBertModel", {"local_attention": 6, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1}),
    "Gemma2": ("Gemma2Model", GROUPED | {"sliding_window": 5}),
    "Llama": ("LlamaModel", GROUPED),
}


def windows(bins: np.ndarray) -> Examples:
    rows = len(bins)
    return Examples(
        bins,
        np.zeros((*bins.shape, 0), np.int32),
        np.ones((rows, T), bool),
        np.zeros((rows, T), np.float32),
        np.full(rows, T),
    )


@pytest.mark.parametrize(
    ("family", "position"),
    [*((family, "prefix") for family in FAMILIES), ("Bert", "after_cls"), ("Llama", "after_cls"), ("Bert", "suffix")],
)
def test_attention_to_the_prompt_is_that_of_torch(tmp_path: Path, family: str, position: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    kind, fields = FAMILIES[family]
    config_kind = getattr(transformers, kind.removesuffix("Model") + "Config")
    torch.manual_seed(0)
    config = config_kind(**(SHAPE | fields), initializer_range=0.5, attn_implementation="eager")
    network = getattr(transformers, kind)(config).eval()
    network.save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path))

    rng = np.random.default_rng(0)
    prompt, table, cls = (rng.normal(size=(rows, 24)).astype(np.float32) for rows in (M, 11, 1))
    bins = rng.integers(0, 10, (1, T))
    head = {"kernel": np.zeros((24, 1), np.float32), "bias": np.zeros(1, np.float32)}
    trainable = {"prompt": {"vectors": prompt}, "head": head}
    frozen = {"backbone": backbone.params, "embedding": {"table": table}}
    if position == "after_cls":
        frozen["cls"] = {"table": cls}
    spear = Spear(backbone.module, 24, rows=11, prompt_length=M, prompt_position=position)
    model = PlacedModel.place(default_config(), spear, trainable, frozen)
    attention = inspection.attention_to_prompt(model, windows(bins), 0)

    steps = table[bins[0]]
    order, first = {
        "prefix": ([prompt, steps], 0),
        "after_cls": ([cls, prompt, steps], 1),
        "suffix": ([steps, prompt], T),
    }[position]
    with torch.no_grad():
        together = torch.tensor(np.concatenate(order)[None])
        layers = network(inputs_embeds=together, output_attentions=True).attentions
    expected = np.stack([layer[0].mean(axis=0).numpy() for layer in layers])
    step = 0 if position == "suffix" else first + M
    expected = expected[:, step : step + T, first : first + M]
    assert attention.shape == (len(layers), T, M)
    assert expected.std() > 0.01  # no softmax of all equal weights, which any code would give
    np.testing.assert_allclose(attention, expected, atol=TOLERANCE)


def test_scoring_keeps_no_attention() -> None:
    backbone = load_backbone("random:tiny")
    embeddings, mask = jnp.zeros((1, 5, backbone.hidden_size)), jnp.ones((1, 5), bool)
    states = backbone.module.apply({"params": backbone.params}, embeddings, mask)
    assert isinstance(states, jax.Array)
    variables = jax.eval_shape(backbone.module.init, jax.random.key(0), embeddings, mask)
    assert set(variables) == {"params"}


def test_a_window_that_is_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "MAX_ATTENTION_BYTES", 4 * 2 * (T + M) ** 2 - 1)  # two layers
    backbone = load_backbone("random:tiny")
    spear = Spear(backbone.module, backbone.hidden_size, rows=11, prompt_length=M)
    model = PlacedModel.place(default_config(), spear, {}, {})
    assert inspection.attention_to_prompt(model, windows(np.zeros((1, T), int)), 0).shape == (0, T, M)


@pytest.mark.parametrize("chunk", [7, 4096])
def test_nearest_words_are_those_of_the_whole_table(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(inspection, "CHUNK_TOKENS", chunk)
    backbone = load_backbone("random:tiny")
    ids = [backbone.tokenize(word)[0] for word in ("7", "42")]
    between = backbone.word_rows(np.array(ids)).sum(axis=0)
    vectors = np.concatenate([3 * backbone.word_rows(np.array(ids)), between[None]])
    words = inspection.nearest_words(backbone, vectors)
    assert words[0][0] == ("7", pytest.approx(1.0))
    assert words[1][0] == ("42", pytest.approx(1.0))
    assert {word for word, _ in words[2][:2]} == {"7", "42"}
    table = backbone.word_rows(np.arange(backbone.vocabulary_size))
    cosines = vectors @ table.T / np.outer(np.linalg.norm(vectors, axis=1), np.linalg.norm(table, axis=1))
    best = np.sort(cosines, axis=1)[:, ::-1][:, : inspection.NEAREST]
    np.testing.assert_allclose([[cosine for _, cosine in row] for row in words], best, atol=1e-6)
