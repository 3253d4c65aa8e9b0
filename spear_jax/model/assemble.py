"""Builds a model from a config and a backbone."""

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from spear_jax.backbones import Backbone
from spear_jax.config import METHODS, view_names
from spear_jax.errors import InputError
from spear_jax.model.embedding import view_tables
from spear_jax.model.placed import PlacedModel
from spear_jax.model.prompt import initial_prompt
from spear_jax.model.spear import Params, Spear


def build_spear(config: ConfigDict, backbone: nn.Module, hidden: int) -> Spear:
    """Returns a config's model as a Flax module around a backbone's module, without parameters."""
    return Spear(
        backbone=backbone,
        hidden=hidden,
        rows=config.quantizer.bins + 1,
        views=len(view_names(config)),
        prompt_length=config.prompt.length,
        prompt_position=config.prompt.position,
        head_kind=config.head.kind,
        pooling=config.head.pooling,
        patch=config.quantizer.patch,
    )


def assemble_model(config: ConfigDict, backbone: Backbone) -> PlacedModel:
    """Builds a config's model around a backbone, on all devices.

    Raises:
      InputError: the vocabulary has too few rows, or attention hides the prompt or the steps from the head.
    """
    _check_visibility(config, backbone)
    hidden = backbone.hidden_size
    table, notes = view_tables(
        len(view_names(config)),
        config.embedding.kind,
        config.quantizer.bins,
        backbone,
        length_scale=config.embedding.length_scale,
        first_row=config.embedding.first_row,
        seed=config.seed,
    )
    parts = [_initial_parts(config, backbone, table, number) for number in range(config.prompt.members)]
    trainable: Params = parts[0] if len(parts) == 1 else jax.tree.map(lambda *arrays: np.stack(arrays), *parts)
    frozen: Params = {"backbone": backbone.params}
    if config.embedding.kind != "trained":
        frozen["embedding"] = {"table": table}
    if config.prompt.length and config.train.parts == "head":
        frozen["prompt"] = trainable.pop("prompt")
    if config.prompt.position == "after_cls":
        frozen["cls"] = {"table": backbone.word_rows(np.array([_first_token(backbone)]))}
    return PlacedModel.place(config, build_spear(config, backbone.module, hidden), trainable, frozen, notes)


def _initial_parts(
    config: ConfigDict, backbone: Backbone, table: Float[np.ndarray, "rows hidden"], member: int
) -> Params:
    """Returns the head, the prompt and, if it is trained, the table of a member before training."""
    rng = np.random.default_rng((config.seed, 1, member) if member else (config.seed, 1))
    kernel = rng.normal(0, 0.02, (backbone.hidden_size, 1)).astype(np.float32)
    parts: Params = {"head": {"kernel": kernel, "bias": np.zeros(1, np.float32)}}
    if config.prompt.length:
        seed = (config.seed, member) if member else config.seed
        vectors = initial_prompt(
            config.prompt.init, config.prompt.length, backbone, words=config.prompt.words, seed=seed
        )
        parts["prompt"] = {"vectors": vectors}
    if config.embedding.kind == "trained":
        parts["embedding"] = {"table": table}
    return parts


def _first_token(backbone: Backbone) -> int:
    ids = backbone.special_ids
    for name in ("cls", "bos"):
        if name in ids:
            return ids[name]
    raise InputError(
        f"config.prompt.position='after_cls': the tokenizer of {backbone.name} has neither a cls nor a bos token;"
        " allowed: prefix, suffix"
    )


def _check_visibility(config: ConfigDict, backbone: Backbone) -> None:
    """Checks that the prompt can change a logit, and that what the head reads differs between windows."""
    pooling = config.head.pooling if config.head.kind == "window" else "step"
    if not backbone.causal:
        return
    if config.prompt.length and config.prompt.position == "suffix" and pooling != "peft_last":
        raise InputError(
            f"config.prompt.position='suffix': the attention of {backbone.name} is causal, so no step sees a prompt"
            " that follows it; allowed: prefix, after_cls, config.backbone.attention=bidirectional, or a window head"
            " with config.head.pooling=peft_last"
        )
    if pooling == "cls":
        raise InputError(
            f"config.head.pooling='cls': the attention of {backbone.name} is causal, so its first token sees no step;"
            " allowed: mean, last, peft_last, or config.backbone.attention=bidirectional"
        )


def model_warnings(config: ConfigDict, backbone: Backbone) -> list[str]:
    """Returns warnings about combinations that rarely make sense but are allowed for experiments."""
    warnings = []
    if not backbone.has_own_tokenizer:
        warnings.append(
            f"the tokenizer of {backbone.name} is not available: a stand-in is used that knows the numbers 0 to 499"
        )
    pooled = config.head.kind == "window" and not METHODS[config.method].zero_shot
    if backbone.causal and pooled and config.head.pooling == "peft_first":
        warnings.append(
            f"head.pooling='peft_first' with the causal attention of {backbone.name}: the first position sees no step,"
            " so every window gets the same score"
        )
    if pooled and config.head.pooling == "peft_last":
        warnings.append(
            "head.pooling='peft_last' reads the last position, padding included: the score of a window that is shorter"
            " than others depends on its padding"
        )
    return warnings
