"""Builds a model from a config and a backbone."""

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from spear_jax.backbones import Backbone
from spear_jax.errors import InputError
from spear_jax.model.embedding import bin_table, initial_prompt
from spear_jax.model.placed import PlacedModel
from spear_jax.model.spear import Params, Spear


def build_spear(config: ConfigDict, backbone: nn.Module, hidden: int) -> Spear:
    """The module that a config describes around a backbone's."""
    return Spear(
        backbone=backbone,
        hidden=hidden,
        rows=config.quantizer.bins + 1,
        prompt_length=config.prompt.length,
        prompt_position=config.prompt.position,
        head_kind=config.head.kind,
        pooling=config.head.pooling,
    )


def assemble_model(config: ConfigDict, backbone: Backbone) -> PlacedModel:
    """Builds the model that a config describes around a backbone, on all devices.

    Raises:
      InputError: the vocabulary has too few rows, or the prompt stands where nothing that is read can see it.
    """
    _check(config, backbone)
    bins, hidden = config.quantizer.bins, backbone.hidden_size
    spear = build_spear(config, backbone.module, hidden)
    table, notes = bin_table(
        config.embedding.kind,
        bins,
        backbone,
        length_scale=config.embedding.length_scale,
        first_row=config.embedding.first_row,
        seed=config.seed,
    )
    rng = np.random.default_rng((config.seed, 1))
    trainable: Params = {
        "head": {
            "kernel": rng.normal(0, 0.02, (hidden, 1)).astype(np.float32),
            "bias": np.zeros(1, np.float32),
        }
    }
    frozen: Params = {"backbone": backbone.params}
    if config.prompt.length:
        (frozen if config.train.parts == "head" else trainable)["prompt"] = {
            "vectors": initial_prompt(
                config.prompt.init,
                config.prompt.length,
                backbone,
                words=config.prompt.words,
                seed=config.seed,
            )
        }
    (trainable if config.embedding.kind == "trained" else frozen)["embedding"] = {"table": table}
    if config.prompt.position == "after_cls":
        frozen["cls"] = {"table": backbone.word_rows(np.array([_first_token(backbone)]))}
    return PlacedModel.place(config, spear, trainable, frozen, notes)


def _first_token(backbone: Backbone) -> int:
    ids = backbone.special_ids
    for name in ("cls", "bos"):
        if name in ids:
            return ids[name]
    raise InputError(
        f"config.prompt.position='after_cls': the tokenizer of {backbone.name} has neither a cls nor a bos token;"
        " allowed are prefix, suffix"
    )


def _check(config: ConfigDict, backbone: Backbone) -> None:
    """Refuses a prompt that can change nothing, and a pooled vector that is the same for every window."""
    pooling = config.head.pooling if config.head.kind == "window" else "step"
    if not backbone.causal:
        return
    if config.prompt.length and config.prompt.position == "suffix" and pooling != "peft_last":
        raise InputError(
            f"config.prompt.position='suffix': the attention of {backbone.name} is causal, so no step sees a prompt"
            " that follows it; allowed are prefix, after_cls, config.backbone.attention=bidirectional, or a window head"
            " with config.head.pooling=peft_last"
        )
    if pooling == "cls":
        raise InputError(
            f"config.head.pooling='cls': the attention of {backbone.name} is causal, so its first token sees no step;"
            " allowed are mean, last, peft_last, or config.backbone.attention=bidirectional"
        )


def warn(config: ConfigDict, backbone: Backbone) -> list[str]:
    """What has to be said about a combination that is allowed because somebody may want to measure it."""
    said = []
    if not backbone.has_own_tokenizer:
        said.append(f"the tokenizer of {backbone.name} is not at hand: a stand-in that knows the numbers 0 to 499")
    pooled = config.head.kind == "window" and not config.method.startswith("zero_shot")
    if backbone.causal and pooled and config.head.pooling == "peft_first":
        said.append(
            f"head.pooling='peft_first' with the causal attention of {backbone.name}: the first position sees no step,"
            " so every window gets the same score"
        )
    if pooled and config.head.pooling == "peft_last":
        said.append(
            "head.pooling='peft_last' reads the last position, padding included: the score of a window that is shorter"
            " than others depends on how much it is padded"
        )
    return said
