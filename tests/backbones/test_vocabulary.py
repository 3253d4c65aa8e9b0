"""Heads: logits of masked tokens and of the next token match those of transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_decoder import SMALL, TOLERANCE, drawn, inputs, torch_hidden, write_checkpoint

from spear_jax.backbones import vocabulary
from spear_jax.backbones.pretrained import load_backbone
from spear_jax.errors import InputError

# name -> (prefix of the classes in transformers, fields in addition to SMALL)
MASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {}),
    "bert-untied": ("Bert", {"tie_word_embeddings": False, "layer_norm_eps": 1e-5}),
    "roberta": ("Roberta", {"pad_token_id": 1, "layer_norm_eps": 1e-5}),
    "distilbert": ("DistilBert", {"dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 50}),
    "modernbert": ("ModernBert", {"local_attention": 6}),
    "modernbert-biased": ("ModernBert", {"norm_bias": True, "classifier_bias": True}),
}


def write_masked(name: str, folder: Path, suffix: str = "ForMaskedLM") -> Any:
    """Writes a small random checkpoint with save_pretrained; returns the torch model."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    family, fields = MASKED[name]
    fields = {key: value for key, value in (SMALL | fields).items() if key != "num_key_value_heads"}
    model = getattr(transformers, family + suffix)(getattr(transformers, f"{family}Config")(**fields)).eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(drawn(path, tuple(parameter.shape))))
    model.save_pretrained(folder)
    return model


def torch_logits(model: Any, ids: np.ndarray, mask: np.ndarray) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long()).logits


@pytest.mark.parametrize("name", MASKED)
def test_masked_logits_match_torch(name: str, tmp_path: Path) -> None:
    model = write_masked(name, tmp_path)
    backbone = load_backbone(str(tmp_path))
    ids, mask = inputs()
    states = backbone.encode(backbone.embed(ids), mask)
    expected = torch_logits(model, ids, mask)
    actual = np.asarray(backbone.vocabulary.logits(states, np.arange(60)))
    difference = np.abs(actual - expected.numpy())[mask].max()
    print(f"{name}: masked logits {difference:.1e} apart, the largest {np.abs(actual[mask]).max():.1f}")
    assert difference <= TOLERANCE
    some = np.array([59, 3])
    np.testing.assert_allclose(backbone.vocabulary.logits(states, some)[mask], actual[mask][:, some], atol=1e-5)
    log_probabilities = np.asarray(backbone.vocabulary.log_probabilities(states, ids))
    expected = np.take_along_axis(expected.log_softmax(-1).numpy(), ids[..., None], axis=-1)[..., 0]
    assert np.abs(log_probabilities - expected)[mask].max() <= TOLERANCE


@pytest.mark.parametrize("name", ["gemma", "gemma2-tight-caps", "llama", "qwen3"])
@pytest.mark.parametrize("chunk", [7, 4096])
def test_log_probabilities_match_torch(name: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(vocabulary, "CHUNK_TOKENS", chunk)
    model = write_checkpoint(name, tmp_path)
    backbone = load_backbone(str(tmp_path))
    ids, mask = inputs()
    expected = torch_logits(model, ids, mask).log_softmax(-1)[:, :-1]
    expected = expected.gather(-1, torch.tensor(ids)[:, 1:, None])[..., 0].numpy()
    actual = backbone.vocabulary.log_probabilities(backbone.encode(backbone.embed(ids), mask)[:, :-1], ids[:, 1:])
    difference = np.abs(np.asarray(actual) - expected)[mask[:, 1:]].max()
    print(f"{name}, chunks of {chunk}: log-probabilities {difference:.1e} apart, the least {expected.min():.1f}")
    assert difference <= TOLERANCE


def test_a_file_without_a_head_is_only_an_encoder(tmp_path: Path) -> None:
    model = write_masked("bert", tmp_path, suffix="Model")
    backbone = load_backbone(str(tmp_path))
    ids, mask = inputs()
    states = np.asarray(backbone.encode(backbone.embed(ids), mask))
    assert np.abs(states - torch_hidden(model, mask, input_ids=ids))[mask].max() <= TOLERANCE
    with pytest.raises(InputError, match=r"no head that predicts masked tokens: .*cls\.predictions\.bias.*bert-base"):
        _ = backbone.vocabulary


def test_the_head_of_a_classifier_is_not_used(tmp_path: Path) -> None:
    """Its head.dense and head.norm are named like those of ModernBERT's masked model."""
    write_masked("modernbert", tmp_path, suffix="ForSequenceClassification")
    with pytest.raises(InputError, match=r": decoder\.bias missing"):
        _ = load_backbone(str(tmp_path)).vocabulary


def test_a_random_head_is_the_same_each_time() -> None:
    first, second = (load_backbone("random:tiny").vocabulary for _ in range(2))
    states = np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32)
    ids = np.array([5, 700])
    actual = np.asarray(first.logits(states, ids))
    np.testing.assert_array_equal(actual, second.logits(states, ids))
    assert len(np.unique(actual)) == 6
    every = np.broadcast_to(np.arange(1000), (3, 1000))
    log_probabilities = first.log_probabilities(np.broadcast_to(states[:, None], (3, 1000, 32)), every)
    np.testing.assert_allclose(np.exp(log_probabilities).sum(axis=1), 1, rtol=1e-4)
