"""SPEAR on Gemma from end to end: a small Gemma with random weights, and the shape of the real one."""

import os
from pathlib import Path

import gemma
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from conftest import Spear, check_log, check_scores, command, log, quick_on, results
from safetensors.numpy import load_file

from spear_jax.backbones.pretrained import describe_backbone, load_backbone
from spear_jax.commands import memory
from spear_jax.config.fields import default_config
from spear_jax.model.assemble import build_spear
from spear_jax.model.embedding import bin_table
from spear_jax.model.placed import count_parameters
from spear_jax.model.prompt import initial_prompt

pytestmark = pytest.mark.one_python

SETTINGS = {"length_scale": 0.1, "first_row": 0, "seed": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return gemma.write(tmp_path / "gemma")


def test_from_training_to_scores(spear: Spear, nasa: Path, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fields = {"backbone.name": f"random:{folder}", "embedding.kind": "numbers", "head.init": "normal"}

    def train(epochs: int) -> str:
        outcome = spear(*quick_on(nasa, run, fields | {"train.epochs": epochs}))
        assert outcome.code == 0, outcome.err
        return outcome.out

    output = train(2)
    assert f"backbone random:{folder} (RANDOM WEIGHTS, float32, causal): frozen" in output
    assert "0+0 0+1 0+2 ... 9+9" in output  # two tokens for each bin
    assert "resuming at step" in train(6)
    check_log(run, epochs=6)
    losses = [line["loss"] for line in log(run) if line["kind"] == "evaluation"]
    assert losses[-1] < losses[0]
    check_scores(run)
    content = results(run)
    assert content["backbone"]["pretrained"] is False
    assert content["backbone"]["attention"] == "causal"
    assert content["embedding"]["tokens"][12] == ["1", "2"]
    tensors = load_file(run / "detector" / "detector.safetensors")
    assert {name: array.shape for name, array in tensors.items() if name != "quantizer.edges"} == {
        "prompt.vectors": (4, 32),
        "head.kernel": (32, 1),
        "head.bias": (1,),
    }
    table = tmp_path / "t.csv"
    pd.DataFrame({"a": np.sin(np.arange(100))}).to_csv(table, index=False)
    scored = spear("--mode=score", f"--detector={run}", f"--input={table}", f"--workdir={tmp_path / 'scored'}")
    assert scored.code == 0, scored.err
    assert len(pd.read_parquet(tmp_path / "scored" / "scores.parquet")) == 100


@pytest.mark.skipif("SPEAR_DATA_DIR" not in os.environ, reason="SPEAR_DATA_DIR with the real NASA data is not set")
@pytest.mark.slow
def test_on_the_real_telemetry(spear: Spear, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fields = {
        "backbone.name": f"random:{folder}",
        "data.limit_series": 4,
        "data.split": "time",
        "controls.head_only": "false",
        "head.init": "normal",
        "train.epochs": 4,
    }
    outcome = spear(*command("nasa:debug", fields, workdir=run))
    assert outcome.code == 0, outcome.err
    losses = [line["loss"] for line in log(run) if line["kind"] == "evaluation"]
    assert losses[-1] < losses[0]
    assert results(run)["dataset"] == "nasa"


def test_trainable_numbers_of_the_real_shape() -> None:
    """google/gemma-2b's: 20 x 2048 for the prompt, 2048 + 1 for the head."""
    described = describe_backbone("random:google/gemma-2b", "bfloat16")
    assert (described.config.layers, described.config.head_size, described.config.key_value_heads) == (18, 256, 1)
    config = default_config()
    spear = build_spear(config, described.module, described.config.hidden_size)
    shapes = [jax.ShapeDtypeStruct((1, 128), dtype) for dtype in (jnp.int32, jnp.bool_)]
    params = jax.eval_shape(spear.init, jax.random.key(0), *shapes)["params"]
    trainable = {name: params[name] for name in ("prompt", "head")}
    assert count_parameters(trainable) == 43_009
    assert memory.byte_count(params["prompt"]) == 163_840
    # 2 506 172 416 as published, of which the word table has 256 000 x 2 048.
    assert count_parameters(params["backbone"]) == 2_506_172_416 - 256_000 * 2048


def test_no_two_numbers_look_alike_where_they_are_written_in_digits(folder: Path) -> None:
    backbone = load_backbone(f"random:{folder}")
    table, notes = bin_table("numbers", 100, backbone, **SETTINGS)
    assert len(np.unique(table[:100].round(6), axis=0)) == 100
    digit_1, digit_2 = backbone.word_rows(np.array(backbone.tokenize("12")))
    np.testing.assert_allclose(table[12], (2 * digit_1 + digit_2) / 3, rtol=1e-5)
    np.testing.assert_allclose(table[21], (2 * digit_2 + digit_1) / 3, rtol=1e-5)
    assert notes["tokens"][7] == ["0", "7"]
    assert notes["missing"] == "<unk>"


@pytest.mark.parametrize("kind", ["numbers", "spread", "consecutive", "random", "ordinal", "trained"])
def test_every_kind_of_embedding_lives_at_the_scale_of_scaled_embeddings(folder: Path, kind: str) -> None:
    """Gemma multiplies word embeddings by the square root of the hidden size before its layers read them."""
    backbone = load_backbone(f"random:{folder}")
    table, _ = bin_table(kind, 50, backbone, **SETTINGS)
    expected = 0.02 * np.sqrt(32) * (1 if kind != "numbers" else np.sqrt(5) / 3)
    assert table[:50].std() == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("init", ["vocabulary", "words", "normal"])
def test_the_prompt_starts_at_the_scale_of_scaled_embeddings(folder: Path, init: str) -> None:
    backbone = load_backbone(f"random:{folder}")
    prompt = initial_prompt(init, 20, backbone, words="normal", seed=0)
    assert prompt.std() == pytest.approx(0.02 * np.sqrt(32), rel=0.25)


@pytest.mark.slow
def test_memory_is_told_before_anything_is_loaded(spear: Spear, tmp_path: Path) -> None:
    outcome = spear(*command("nasa:gemma", {"prompt.length": 20}, mode="memory"))
    assert outcome.code == 0, outcome.err
    lines = {line[:20].strip(): line[20:].split() for line in outcome.out.splitlines()}
    assert lines["frozen backbone"][:2] == ["3.7", "GiB"]  # 1.98 billion numbers in bfloat16
    assert lines["prompt and head"][:2] == ["168.0", "KiB"]
    assert lines["optimizer"][:2] == ["336.0", "KiB"]
    assert "Of the 256,000 rows of the word table" in outcome.out
    assert not any(tmp_path.iterdir())


def test_memory_needs_a_length(spear: Spear) -> None:
    outcome = spear(*command("nasa:debug", {"data.window": 0}, mode="memory"))
    assert (outcome.code, outcome.out) == (2, "")
    assert "config.data.window=0" in outcome.err


OPTIONS = [
    {"prompt.position": "after_cls"},
    {"prompt.position": "suffix", "backbone.attention": "bidirectional"},
    {"backbone.attention": "causal"},
    {"backbone.attention": "bidirectional"},
    {"head.kind": "window", "head.pooling": "mean"},
    {"head.kind": "window", "head.pooling": "last"},
    {
        "head.kind": "window",
        "head.pooling": "cls",
        "prompt.position": "after_cls",
        "backbone.attention": "bidirectional",
    },
    {"head.kind": "window", "head.pooling": "peft_first"},
    {"head.kind": "window", "head.pooling": "peft_last"},
    {"head.kind": "window", "head.pooling": "peft_last", "prompt.position": "suffix"},
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "gemma"])
@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: ",".join(option.values()))
def test_one_command_for_each_option(
    spear: Spear, nasa: Path, folder: Path, tmp_path: Path, kind: str, option: dict[str, str]
) -> None:
    """Runs each option from data to results; its meaning is tested in test_options.py."""
    name = "random:tiny" if kind == "bert" else f"random:{folder}"
    fields = {"backbone.name": name, "embedding.kind": "numbers", "controls.head_only": "true"}
    outcome = spear(*quick_on(nasa, tmp_path / "run", fields | option))
    assert outcome.code == 0, outcome.err
    content = results(tmp_path / "run")
    own = "bidirectional" if kind == "bert" else "causal"
    assert content["backbone"]["attention"] == option.get("backbone.attention", own)
    check_scores(tmp_path / "run")
    useless = kind == "gemma" and option.get("head.pooling") == "peft_first"
    assert any("every window gets the same score" in warning for warning in content["warnings"]) == useless
