"""Every option of prompt, mask and pooling, on an encoder and a decoder, against the sequence written out by hand."""

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import gemma
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from spear_jax.backbones.backbone import Backbone
from spear_jax.backbones.pretrained import load_backbone
from spear_jax.config.arguments import TINY
from spear_jax.config.fields import default_config
from spear_jax.errors import InputError
from spear_jax.model.assemble import assemble_model, model_warnings
from spear_jax.model.placed import PlacedModel
from spear_jax.model.spear import Spear, merge

pytestmark = pytest.mark.one_python

T, BINS, M = 11, 10, 3
POSITIONS = ("prefix", "after_cls", "suffix")
ATTENTIONS = ("causal", "bidirectional")
POOLINGS = ("step", "mean", "last", "cls", "peft_first", "peft_last")
LENGTHS = np.array([11, 4])


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Backbone]:
    folder = gemma.write(tmp_path_factory.mktemp("gemma") / "gemma")
    names = {"bert": TINY, "gemma": f"random:{folder}"}
    return {
        (kind, attention): load_backbone(name, attention=attention)
        for kind, name in names.items()
        for attention in ATTENTIONS
    }


def config_of(position: str, pooling: str) -> ConfigDict:
    config = default_config()
    config.quantizer.bins, config.prompt.length, config.prompt.position = BINS, M, position
    config.embedding.kind = "numbers"
    config.head.kind = "step" if pooling == "step" else "window"
    config.head.pooling = "mean" if pooling == "step" else pooling
    return config


def loud(model: PlacedModel) -> PlacedModel:
    """With prompt, bins and head large enough that every change shows; untrained, all that a layer adds is tiny."""
    rng = np.random.default_rng(0)

    def scaled(leaf: np.ndarray) -> np.ndarray:
        return rng.normal(size=np.shape(leaf)).astype(np.float32)

    trainable = jax.tree.map(scaled, model.trainable)
    frozen = {name: part if name == "backbone" else jax.tree.map(scaled, part) for name, part in model.frozen.items()}
    backbone = jax.tree.map(lambda leaf: 8 * leaf if np.ndim(leaf) >= 2 else leaf, frozen["backbone"])
    return dataclasses.replace(model, trainable=trainable, frozen={**frozen, "backbone": backbone})


@functools.partial(jax.jit, static_argnums=0)
def encode(module: Any, params: Any, *inputs: Any) -> Any:
    return module.apply({"params": params}, *inputs)


def by_hand(model: PlacedModel, bins: np.ndarray, length: int, position: str, pooling: str) -> np.ndarray:
    """One window's logits: its sequence without padding, unless the pooling names a place in the padding."""
    prompt, table = model.trainable["prompt"]["vectors"], model.frozen["embedding"]["table"]
    padded = pooling.startswith("peft")
    steps = table[bins] if padded else table[bins[:length]]
    looked = [True] * length + [False] * (len(steps) - length)
    numbers = list(range(len(steps)))
    if position == "suffix":
        vectors = np.concatenate([steps, prompt])
        looked, numbers = looked + [True] * M, numbers + list(range(length, length + M))
        first = 0
    else:
        front = [model.frozen["cls"]["table"]] if position == "after_cls" else []
        vectors = np.concatenate([*front, prompt, steps])
        first = len(vectors) - len(steps)
        looked, numbers = [True] * first + looked, list(range(len(vectors)))
    inputs = vectors[None], np.array([looked]), np.array([numbers])
    states = np.asarray(encode(model.module.backbone, model.frozen["backbone"], *inputs))[0]
    read = {
        "step": states[first : first + length],
        "mean": states[first : first + length].mean(axis=0),
        "last": states[first + length - 1],
        "cls": states[0],
        "peft_first": states[0],
        "peft_last": states[-1],
    }[pooling]
    head = model.trainable["head"]
    return np.broadcast_to(read @ head["kernel"][:, 0] + head["bias"], (length,))


def possible(attention: str, position: str, pooling: str) -> bool:
    if pooling == "cls" and position != "after_cls":
        return False  # refused by the config
    if attention == "causal" and position == "suffix" and pooling != "peft_last":
        return False
    return not (attention == "causal" and pooling == "cls")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "gemma"])
def test_every_option_means_what_it_says_and_no_two_are_one(
    backbones: dict[tuple[str, str], Backbone], kind: str
) -> None:
    rng = np.random.default_rng(1)
    bins, mask = rng.integers(0, BINS, (2, T)), np.arange(T) < LENGTHS[:, None]
    logits = {}
    for attention, position, pooling in itertools.product(ATTENTIONS, POSITIONS, POOLINGS):
        if not possible(attention, position, pooling):
            continue
        model = loud(assemble_model(config_of(position, pooling), backbones[kind, attention]))
        found = np.asarray(jax.jit(model.module.apply)(merge(model.trainable, model.frozen), bins, mask))
        expected = [by_hand(model, row, length, position, pooling) for row, length in zip(bins, LENGTHS, strict=True)]
        np.testing.assert_allclose(
            found[mask], np.concatenate(expected), atol=2e-4, err_msg=f"{attention} {position} {pooling}"
        )
        logits[attention, position, pooling] = found[mask]
    for (one, a), (other, b) in itertools.combinations(logits.items(), 2):
        same_place = one[:2] == other[:2] == (one[0], "after_cls") and {one[2], other[2]} == {"cls", "peft_first"}
        assert same_place or np.abs(a - b).max() > 1e-3, (one, other)


@pytest.mark.parametrize(
    ("kind", "position", "pooling"),
    [
        ("gemma", "prefix", "step"),
        ("bert", "prefix", "step"),
        *(
            pytest.param(*choice, marks=pytest.mark.slow)
            for choice in (
                ("gemma", "prefix", "last"),
                ("gemma", "after_cls", "mean"),
                ("gemma", "prefix", "peft_last"),
                ("bert", "suffix", "last"),
            )
        ),
    ],
)
def test_the_savings_change_neither_logits_nor_gradient(
    backbones: dict[tuple[str, str], Backbone], kind: str, position: str, pooling: str
) -> None:
    backbone = backbones[kind, "causal" if kind == "gemma" else "bidirectional"]
    model = loud(assemble_model(config_of(position, pooling), backbone))
    rng = np.random.default_rng(2)
    bins, mask = rng.integers(0, BINS, (2, T)), np.arange(T) < LENGTHS[:, None]
    weights = rng.normal(size=mask.shape) * mask

    def value_and_gradient(spear: Spear) -> tuple[np.ndarray, Any]:
        def total(trainable: Any) -> Any:
            logits = spear.apply(merge(trainable, model.frozen), jnp.asarray(bins), jnp.asarray(mask))
            return jnp.sum(logits * weights), logits

        (_, logits), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(model.trainable)
        return np.asarray(logits)[mask], gradient

    logits, gradient = value_and_gradient(model.module)
    plain_logits, plain_gradient = value_and_gradient(model.module.clone(plain=True))
    np.testing.assert_allclose(logits, plain_logits, atol=1e-5 * max(1, np.abs(plain_logits).max()))
    one, other = (np.asarray(tree["prompt"]["vectors"]) for tree in (gradient, plain_gradient))
    assert np.linalg.norm(other) > 0
    assert np.linalg.norm(one - other) <= 1e-4 * np.linalg.norm(other)


@pytest.mark.parametrize("kind", ["bert", pytest.param("gemma", marks=pytest.mark.slow)])
@pytest.mark.parametrize("position", POSITIONS)
def test_a_patch_of_steps_is_their_average(
    backbones: dict[tuple[str, str], Backbone], kind: str, position: str
) -> None:
    """Compares with the same model, one step a position, whose table has a row for each patch."""
    model = loud(assemble_model(config_of(position, "step"), backbones[kind, "bidirectional"]))
    rng = np.random.default_rng(3)
    bins, lengths = rng.integers(0, BINS, (2, 24)), np.array([24, 10])  # the last patch of the second is half full
    mask = np.arange(24) < lengths[:, None]
    table = np.asarray(model.frozen["embedding"]["table"])
    averages = [
        table[row[begin : min(begin + 4, length)]].mean(axis=0) if begin < length else np.zeros(table.shape[1])
        for row, length in zip(bins, lengths, strict=True)
        for begin in range(0, 24, 4)
    ]
    by_patch = {**model.frozen, "embedding": {"table": np.stack(averages).astype(np.float32)}}
    expected = jax.jit(model.module.clone(rows=12).apply)(
        merge(model.trainable, by_patch), np.arange(12).reshape(2, 6), mask[:, ::4]
    )
    logits = jax.jit(model.module.clone(patch=4).apply)(merge(model.trainable, model.frozen), bins, mask)
    np.testing.assert_allclose(logits[mask], np.repeat(expected, 4, axis=1)[mask], atol=1e-5)
    assert np.abs(np.asarray(logits)[0, ::4] - np.asarray(logits)[0, 0]).max() > 1e-3


def test_the_savings_are_there(backbones: dict[tuple[str, str], Backbone]) -> None:
    """XLA's own count of operations, layers unrolled: 32 windows of 11 steps behind 3 prompt vectors."""
    batch = [jax.ShapeDtypeStruct((32, T), dtype) for dtype in (jnp.int32, jnp.bool_)]

    def flops(kind: str, attention: str, pooling: str, plain: bool) -> float:
        model = assemble_model(config_of("prefix", pooling), backbones[kind, attention])
        spear = model.module.clone(plain=plain, backbone=model.module.backbone.clone(unroll=True))
        compiled = jax.jit(spear.apply).lower(merge(model.trainable, model.frozen), *batch).compile()
        return float(compiled.cost_analysis()["flops"])

    saved = flops("gemma", "causal", "step", plain=False) / flops("gemma", "causal", "step", plain=True)
    assert saved < (T + 1) / (T + M)  # nearly all of the prompt's share
    last = flops("bert", "bidirectional", "last", plain=False) / flops("bert", "bidirectional", "last", plain=True)
    assert last < 0.75  # of two layers, most of the last


@pytest.mark.parametrize(
    ("position", "pooling", "message"),
    [
        ("suffix", "step", r"prompt.position='suffix': .* is causal, so no step sees a prompt that follows it"),
        ("suffix", "last", r"prompt.position='suffix'"),
        ("after_cls", "cls", r"head.pooling='cls': .* is causal, so its first token sees no step"),
    ],
)
@pytest.mark.parametrize("kind", ["bert", "gemma"])
def test_what_no_step_could_see_is_refused(
    backbones: dict[tuple[str, str], Backbone], kind: str, position: str, pooling: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        assemble_model(config_of(position, pooling), backbones[kind, "causal"])
    assemble_model(config_of(position, pooling), backbones[kind, "bidirectional"])


def test_a_first_position_that_sees_nothing_is_said(backbones: dict[tuple[str, str], Backbone]) -> None:
    config = config_of("prefix", "peft_first")
    (said,) = model_warnings(config, backbones["gemma", "causal"])
    assert "every window gets the same score" in said
    assert model_warnings(config, backbones["gemma", "bidirectional"]) == []


def test_a_sequence_longer_than_the_positions_is_refused(tmp_path: Path) -> None:
    backbone = load_backbone(f"random:{gemma.write(tmp_path / 'gemma')}")
    with pytest.raises(InputError, match=r"257 positions.*the backbone has 256"):
        backbone.encode(np.zeros((1, 257, 32), np.float32), np.ones((1, 257), bool))
