"""Reads the shape of a decoder from the fields of its config.json.

One dataclass describes Gemma 1 to 3, Llama 3, Qwen 2 and 3 (and the DeepSeek-R1 distillations, which are Llama and
Qwen by shape), and ModernBERT (arXiv:2412.13663), an encoder made of the same parts.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from spear_jax.backbones.weights.config_json import Fields
from spear_jax.errors import InputError

_ROPE_TYPES = ("default", "linear", "llama3")
_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}


@dataclasses.dataclass(frozen=True)
class Rotary:
    """Rotary position embeddings (Su et al., 2021, arXiv:2104.09864).

    Attributes:
      base: base of the geometric series of wavelengths.
      factor: factor by which wavelengths are stretched; 1 leaves them as they are.
      low, high: Llama 3 stretches wavelengths above `original` / low, leaves those below `original` / high, and
        interpolates in between; 0 stretches all.
      original: context length of the original training.
      factors: factor of each wavelength, if they are not given by a formula.
    """

    base: float
    factor: float = 1.0
    low: float = 0.0
    high: float = 0.0
    original: int = 0
    factors: tuple[float, ...] = ()

    def frequencies(self, size: int) -> Float[np.ndarray, "pairs"]:
        """Returns the radians per position of each pair of a head's coordinates."""
        frequency = self.base ** -(np.arange(0, size, 2, dtype=np.float64) / size)
        if self.factors:
            return (frequency / np.array(self.factors)).astype(np.float32)
        if not self.low:
            return (frequency / self.factor).astype(np.float32)
        turns = self.original * frequency / (2 * math.pi)  # within the original context
        unstretched = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return (frequency * (unstretched + (1 - unstretched) / self.factor)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder, or of an encoder made of the same parts.

    Attributes:
      family: the model_type of config.json.
      hidden_size: H.
      layers: number of layers.
      heads: number of query heads.
      key_value_heads: number of key and value heads; each is shared by `heads / key_value_heads` queries.
      head_size: coordinates of a head.
      intermediate_size: width of the gated MLP.
      vocabulary_size: rows of the word table.
      max_positions: length of the longest sequence.
      norm_eps: epsilon of every norm.
      activation: 'silu', 'gelu' or 'gelu_tanh'.
      query_scale: factor of the inner products of queries and keys.
      rotary: rotary embedding of layers with full attention.
      local_rotary: rotary embedding of layers with a sliding window.
      sliding: for each layer, whether its attention has a sliding window.
      window: size of the sliding window: positions at a smaller distance are attended to; 0 if no layer slides.
      causal: whether each position attends only to itself and to earlier ones.
      norm: 'rms', 'rms_plus_one' (the weight is stored as its difference from 1: Gemma) or 'layer'.
      norm_bias: whether LayerNorm has a bias.
      query_key_norm: whether queries and keys are normalized per head.
      post_norms: whether the outputs of attention and MLP are normalized, too.
      embedding_norm: whether word embeddings are normalized.
      first_attention_norm: False if the first layer's attention reads its input without a norm.
      attention_bias: whether queries, keys and values have a bias.
      output_bias: whether the attention's output has a bias.
      mlp_bias: whether the MLP has biases.
      embedding_scale: factor of the word embeddings (Gemma: the square root of H).
      attention_soft_cap: see `attend`; 0 means none.
      final_soft_cap: bound of the vocabulary's logits; 0 means none.
      tied: whether the output layer shares the word table.
    """

    family: str
    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    intermediate_size: int
    vocabulary_size: int
    max_positions: int
    norm_eps: float
    activation: str
    query_scale: float
    rotary: Rotary
    local_rotary: Rotary
    sliding: tuple[bool, ...]
    window: int = 0
    causal: bool = True
    norm: str = "rms"
    norm_bias: bool = False
    query_key_norm: bool = False
    post_norms: bool = False
    embedding_norm: bool = False
    first_attention_norm: bool = True
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    embedding_scale: float = 1.0
    attention_soft_cap: float = 0.0
    final_soft_cap: float = 0.0
    tied: bool = True

    @property
    def masked(self) -> bool:
        """Returns whether the model predicts masked tokens, like an encoder, rather than the next token."""
        return self.family == "modernbert"

    @classmethod
    def from_fields(cls, fields: Fields) -> "DecoderConfig":
        """Reads the fields of a config.json of one of `FAMILIES`.

        Raises:
          InputError: a field is impossible, or asks for a variant that is not built.
        """
        family = fields.choice("model_type", tuple(FAMILIES))
        if family == "gemma3":  # a multimodal checkpoint: its text model is used
            family, fields = "gemma3_text", fields.inner("text_config")
        config = cls(**{"family": family} | _common(fields) | FAMILIES[family](fields))
        if config.heads % config.key_value_heads:
            raise InputError(
                f"{fields.source}: num_attention_heads = {config.heads} is not divisible by num_key_value_heads ="
                f" {config.key_value_heads}"
            )
        if config.head_size % 2:
            raise InputError(f"{fields.source}: heads of {config.head_size} coordinates cannot be rotated in pairs")
        return config


def _common(fields: Fields) -> dict[str, Any]:
    """Reads the fields that all families share."""
    hidden_size, layers, heads = (
        fields.integer(name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")
    )
    if fields.get("head_dim") is None and hidden_size % heads:
        raise InputError(
            f"{fields.source}: hidden_size = {hidden_size} is not divisible by num_attention_heads = {heads}"
        )
    head_size = fields.integer("head_dim", hidden_size // heads)
    sliding = _sliding_layers(fields, layers)
    bias = fields.get("attention_bias", False)
    return {
        "hidden_size": hidden_size,
        "layers": layers,
        "heads": heads,
        "key_value_heads": fields.integer("num_key_value_heads", heads),
        "head_size": head_size,
        "intermediate_size": fields.integer("intermediate_size"),
        "vocabulary_size": fields.integer("vocab_size"),
        "max_positions": fields.integer("max_position_embeddings"),
        "query_scale": head_size**-0.5,
        "rotary": _rotary(fields, "full_attention"),
        "local_rotary": _rotary(fields, "sliding_attention"),
        "sliding": sliding,
        "window": fields.integer("sliding_window") if any(sliding) else 0,
        "attention_bias": bias,
        "output_bias": bias,
        "mlp_bias": fields.get("mlp_bias", False),
        "tied": fields.get("tie_word_embeddings", False),
    }


def _rotary(fields: Fields, kind_of_layer: str) -> Rotary:
    """Reads the rope parameters of one kind of layer; in some families, all layers share them."""
    parameters = fields.inner("rope_parameters", kind_of_layer)
    kind = parameters.choice("rope_type", _ROPE_TYPES)
    base = parameters.number("rope_theta")
    if kind == "default":
        return Rotary(base)
    factor = parameters.number("factor")
    if kind == "linear":
        return Rotary(base, factor)
    low, high = parameters.number("low_freq_factor"), parameters.number("high_freq_factor")
    if low >= high:
        raise InputError(f"{parameters.source}: low_freq_factor = {low} must be below high_freq_factor = {high}")
    return Rotary(base, factor, low, high, parameters.integer("original_max_position_embeddings"))


def _sliding_layers(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Reads for each layer whether its attention has a window."""
    kinds = fields.get("layer_types", ["full_attention"] * layers)
    if not set(kinds) <= {"full_attention", "sliding_attention"}:
        raise InputError(
            f"{fields.source}: layer_types = {kinds!r}, supported are 'full_attention' and 'sliding_attention'"
        )
    return tuple(kind == "sliding_attention" for kind in kinds)


def _activation(fields: Fields, name: str) -> str:
    return _ACTIVATIONS[fields.choice(name, tuple(_ACTIVATIONS))]


def _gemma(fields: Fields) -> dict[str, Any]:
    name = "hidden_act" if fields.get("hidden_activation") is None else "hidden_activation"
    # Gemma 1's file says 'gelu' but means the tanh approximation, which its authors' code uses.
    fields.choice(name, ("gelu_pytorch_tanh", "gelu_new", "gelu"))
    return {
        "norm_eps": fields.number("rms_norm_eps", below=1),
        "activation": "gelu_tanh",
        "norm": "rms_plus_one",
        "embedding_scale": math.sqrt(fields.integer("hidden_size")),
    }


def _gemma2(fields: Fields) -> dict[str, Any]:
    return _gemma(fields) | {
        "query_scale": fields.number("query_pre_attn_scalar") ** -0.5,
        "post_norms": True,
        "attention_soft_cap": fields.get("attn_logit_softcapping", 0.0),
        "final_soft_cap": fields.get("final_logit_softcapping", 0.0),
    }


def _gemma3(fields: Fields) -> dict[str, Any]:
    causal = not fields.get("use_bidirectional_attention", False)
    return _gemma2(fields) | {"query_key_norm": True, "causal": causal}


def _llama(fields: Fields) -> dict[str, Any]:
    return {
        "norm_eps": fields.number("rms_norm_eps", below=1),
        "activation": _activation(fields, "hidden_act"),
    }


def _qwen2(fields: Fields) -> dict[str, Any]:
    return _llama(fields) | {"attention_bias": True, "output_bias": False}


def _qwen3(fields: Fields) -> dict[str, Any]:
    return _llama(fields) | {"query_key_norm": True}


def _modernbert(fields: Fields) -> dict[str, Any]:
    fields.choice("classifier_activation", ("gelu",))
    return {
        "norm_eps": fields.number("norm_eps", below=1),
        "activation": _activation(fields, "hidden_activation"),
        "window": fields.integer("local_attention") // 2 + 1,
        "causal": False,
        "norm": "layer",
        "norm_bias": fields.get("norm_bias", False),
        "embedding_norm": True,
        "first_attention_norm": False,
    }


FAMILIES: dict[str, Callable[[Fields], dict[str, Any]]] = {
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gemma3": _gemma3,
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "modernbert": _modernbert,
}
"""Readers of the fields in which a family differs from `_common`, by model_type."""
