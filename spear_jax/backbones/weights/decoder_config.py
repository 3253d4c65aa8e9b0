"""The shape of a decoder, read from a Hugging Face config.json in the spelling of transformers 4.x or 5.x.

One dataclass describes Gemma 1 to 3, Llama 3, Qwen 2 and 3 (and the DeepSeek-R1 distillations, which are Llama and
Qwen by shape), and ModernBERT (arXiv:2412.13663), an encoder made of the same parts.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
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
      base: of the geometric series of wavelengths.
      factor: wavelengths are stretched by it; 1 leaves them.
      low, high: Llama 3 stretches only what is longer than `original` / low and nothing that is shorter than
        `original` / high, and mixes in between; 0 stretches all.
      original: positions that the model was first trained on.
    """

    base: float
    factor: float = 1.0
    low: float = 0.0
    high: float = 0.0
    original: int = 0

    def frequencies(self, size: int) -> Float[np.ndarray, "pairs"]:
        """Radians per position of each pair of a head's coordinates."""
        frequency = self.base ** -(np.arange(0, size, 2, dtype=np.float64) / size)
        if not self.low:
            return (frequency / self.factor).astype(np.float32)
        turns = self.original * frequency / (2 * math.pi)  # within the original context
        kept = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return (frequency * (kept + (1 - kept) / self.factor)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder, or of an encoder made of the same parts.

    Attributes:
      family: its model_type.
      hidden_size: H.
      layers: how many.
      heads: of the queries.
      key_value_heads: of keys and values; each is shared by `heads / key_value_heads` queries.
      head_size: coordinates of a head.
      intermediate_size: of the gated MLP.
      vocabulary_size: rows of the word table.
      max_positions: the longest sequence.
      norm_eps: of every norm.
      activation: 'silu', 'gelu' or 'gelu_tanh'.
      query_scale: of the inner products of queries and keys.
      rotary: of layers that see everything.
      local_rotary: of layers with a sliding window.
      sliding: for each layer, whether its attention reaches `window` positions only.
      window: positions that are nearer than it are seen; 0 where no layer slides.
      causal: a position sees itself and what stands before it.
      norm: 'rms', 'rms_plus_one' (the weight is what is added to 1: Gemma) or 'layer'.
      norm_bias: whether LayerNorm has one.
      query_key_norm: queries and keys are normalised per head.
      post_norms: what a block adds is normalised, too.
      embedding_norm: the word embeddings are.
      first_attention_norm: False where the first layer's attention reads its input as it is.
      attention_bias: of queries, keys and values.
      output_bias: of the attention's output.
      mlp_bias: of the MLP.
      embedding_scale: word embeddings are multiplied by it (Gemma: the square root of H).
      attention_soft_cap: see `attend`; 0 means none.
      final_soft_cap: of the vocabulary's logits; 0 means none.
      tied: the vocabulary's logits are read with the word table.
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
        """True of an encoder, which predicts masked tokens; a decoder predicts the next one."""
        return self.family == "modernbert"

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> "DecoderConfig":
        """Reads the content of a config.json of one of `FAMILIES`.

        Args:
          content: the JSON object.
          where: the file it came from, for messages.

        Raises:
          InputError: a field is missing or impossible, or a variant that is not built.
        """
        fields = Fields(content, where)
        family = fields.choice("model_type", tuple(FAMILIES))
        if family == "gemma3":  # a multimodal checkpoint: its text model is used
            inner = fields.inner("text_config")
            if inner is None:
                raise InputError(f"{where}: the field 'text_config' is missing")
            fields, family = inner, "gemma3_text"
        config = FAMILIES[family](family, fields)
        if config.heads % config.key_value_heads:
            raise InputError(
                f"{where}: num_attention_heads = {config.heads} is not divisible by num_key_value_heads ="
                f" {config.key_value_heads}"
            )
        if config.head_size % 2:
            raise InputError(f"{where}: heads of {config.head_size} coordinates cannot be rotated in pairs")
        return config


def _common(family: str, fields: Fields, **defaults: Any) -> dict[str, Any]:
    """What all families spell alike; `defaults` are those of transformers, where a checkpoint may rely on them."""
    hidden = fields.whole("hidden_size", defaults.get("hidden_size"))
    heads = fields.whole("num_attention_heads", defaults.get("heads"))
    if "head_size" not in defaults and fields.get("head_dim") is None and hidden % heads:
        raise InputError(f"{fields.where}: hidden_size = {hidden} is not divisible by num_attention_heads = {heads}")
    return {
        "family": family,
        "hidden_size": hidden,
        "layers": fields.whole("num_hidden_layers", defaults.get("layers")),
        "heads": heads,
        "key_value_heads": fields.whole("num_key_value_heads", defaults.get("key_value_heads", heads)),
        "head_size": fields.whole("head_dim", defaults.get("head_size", hidden // heads)),
        "intermediate_size": fields.whole("intermediate_size", defaults.get("intermediate_size")),
        "vocabulary_size": fields.whole("vocab_size", defaults.get("vocabulary_size")),
        "max_positions": fields.whole("max_position_embeddings", defaults.get("max_positions")),
        "tied": fields.flag("tie_word_embeddings", defaults.get("tied", False)),
    }


def _rotary(fields: Fields | None, where: str, base: float, positions: int) -> Rotary:
    """One set of rope parameters; `base` where it names none."""
    fields = fields or Fields({}, where)
    kind = fields.choice("rope_type", _ROPE_TYPES, fields.choice("type", _ROPE_TYPES, "default"))
    base = fields.number("rope_theta", base)
    if kind == "default":
        return Rotary(base)
    if kind == "linear":
        return Rotary(base, fields.number("factor"))
    low, high = fields.number("low_freq_factor"), fields.number("high_freq_factor")
    if low >= high:
        raise InputError(f"{fields.where}: low_freq_factor = {low} must be below high_freq_factor = {high}")
    original = fields.whole("original_max_position_embeddings", positions)
    return Rotary(base, fields.number("factor"), low, high, original)


def _rotaries(
    fields: Fields, positions: int, *, base: float = 10_000.0, local_base: float | None = None, names: tuple[str, str]
) -> dict[str, Any]:
    """Of full and of sliding layers: `rope_parameters` (5.x, perhaps nested by layer type), else the fields of 4.x.

    Args:
      fields: the config.json.
      positions: max_position_embeddings.
      base: where none is given.
      local_base: of sliding layers, where none is given; None means that they have the same as all others.
      names: what 4.x calls the two bases.
    """
    parameters = fields.inner("rope_parameters")
    if parameters is not None and (parameters.get("full_attention") or parameters.get("sliding_attention")):
        local = base if local_base is None else local_base
        return {
            "rotary": _rotary(parameters.inner("full_attention"), fields.where, base, positions),
            "local_rotary": _rotary(parameters.inner("sliding_attention"), fields.where, local, positions),
        }
    full = _rotary(parameters or fields.inner("rope_scaling"), fields.where, fields.number(names[0], base), positions)
    if local_base is None:
        return {"rotary": full, "local_rotary": full}
    return {"rotary": full, "local_rotary": Rotary(fields.number(names[1], local_base))}


_PLAIN = ("rope_theta", "rope_theta")


def _layer_kinds(fields: Fields, layers: int, slides: Callable[[int], bool]) -> tuple[bool, ...]:
    """For each layer whether it slides: named one by one, else by the family's pattern."""
    kinds = fields.get("layer_types")
    if kinds is None:
        return tuple(slides(i) for i in range(layers))
    known = {"full_attention": False, "sliding_attention": True}
    if not isinstance(kinds, list) or len(kinds) != layers or not set(kinds) <= set(known):
        raise InputError(
            f"{fields.where}: layer_types must name 'full_attention' or 'sliding_attention' for each of {layers} layers"
        )
    return tuple(known[kind] for kind in kinds)


def _gemma_activation(fields: Fields) -> str:
    name = "hidden_act" if fields.get("hidden_activation") is None else "hidden_activation"
    # The first Gemma's file says 'gelu' and means its tanh approximation, as its authors' code has it.
    fields.choice(name, ("gelu_pytorch_tanh", "gelu_new", "gelu"), "gelu")
    return "gelu_tanh"


def _gemma(family: str, fields: Fields) -> DecoderConfig:
    common = _common(family, fields, head_size=256, tied=True)
    return DecoderConfig(
        **common,
        **_rotaries(fields, common["max_positions"], names=_PLAIN),
        norm_eps=fields.small("rms_norm_eps", 1e-6),
        activation=_gemma_activation(fields),
        query_scale=common["head_size"] ** -0.5,
        sliding=(False,) * common["layers"],
        norm="rms_plus_one",
        attention_bias=fields.flag("attention_bias", False),
        output_bias=fields.flag("attention_bias", False),
        embedding_scale=math.sqrt(common["hidden_size"]),
    )


def _gemma2(family: str, fields: Fields) -> DecoderConfig:
    first = _gemma(family, fields)
    return dataclasses.replace(
        first,
        query_scale=fields.number("query_pre_attn_scalar", 256) ** -0.5,
        sliding=_layer_kinds(fields, first.layers, lambda i: i % 2 == 0),
        window=fields.whole("sliding_window", 4096),
        post_norms=True,
        attention_soft_cap=fields.cap("attn_logit_softcapping", 50.0),
        final_soft_cap=fields.cap("final_logit_softcapping", 30.0),
    )


def _gemma3(family: str, fields: Fields) -> DecoderConfig:
    # Multimodal checkpoints leave out what equals the defaults of transformers.
    common = _common(
        family,
        fields,
        heads=8,
        key_value_heads=4,
        head_size=256,
        vocabulary_size=262_208,
        max_positions=131_072,
        tied=True,
    )
    pattern = fields.whole("sliding_window_pattern", fields.whole("_sliding_window_pattern", 6))
    both_ways = fields.flag("use_bidirectional_attention", False)
    window = fields.whole("sliding_window", 4096)
    return DecoderConfig(
        **common,
        **_rotaries(
            fields,
            common["max_positions"],
            base=1_000_000.0,
            local_base=10_000.0,
            names=("rope_theta", "rope_local_base_freq"),
        ),
        norm_eps=fields.small("rms_norm_eps", 1e-6),
        activation=_gemma_activation(fields),
        query_scale=fields.number("query_pre_attn_scalar", 256) ** -0.5,
        sliding=_layer_kinds(fields, common["layers"], lambda i: (i + 1) % pattern != 0),
        window=window // 2 + 1 if both_ways else window,
        causal=not both_ways,
        norm="rms_plus_one",
        query_key_norm=True,
        post_norms=True,
        attention_bias=fields.flag("attention_bias", False),
        output_bias=fields.flag("attention_bias", False),
        embedding_scale=math.sqrt(common["hidden_size"]),
        attention_soft_cap=fields.cap("attn_logit_softcapping", 0.0),
        final_soft_cap=fields.cap("final_logit_softcapping", 0.0),
    )


def _llama(family: str, fields: Fields) -> DecoderConfig:
    common = _common(family, fields)
    return DecoderConfig(
        **common,
        **_rotaries(fields, common["max_positions"], names=_PLAIN),
        norm_eps=fields.small("rms_norm_eps", 1e-6),
        activation=_ACTIVATIONS[fields.choice("hidden_act", tuple(_ACTIVATIONS), "silu")],
        query_scale=common["head_size"] ** -0.5,
        sliding=(False,) * common["layers"],
        attention_bias=fields.flag("attention_bias", False),
        output_bias=fields.flag("attention_bias", False),
        mlp_bias=fields.flag("mlp_bias", False),
    )


def _qwen(family: str, fields: Fields) -> DecoderConfig:
    third = family == "qwen3"
    common = _common(family, fields, **({"head_size": 128} if third else {}))
    window = fields.get("sliding_window") if fields.flag("use_sliding_window", False) else None
    first = fields.whole("max_window_layers", 28, least=0)
    sliding = _layer_kinds(fields, common["layers"], lambda i: window is not None and i >= first)
    bias = fields.flag("attention_bias", False) if third else True
    return DecoderConfig(
        **common,
        **_rotaries(fields, common["max_positions"], names=_PLAIN),
        norm_eps=fields.small("rms_norm_eps", 1e-6),
        activation=_ACTIVATIONS[fields.choice("hidden_act", tuple(_ACTIVATIONS), "silu")],
        query_scale=common["head_size"] ** -0.5,
        sliding=sliding,
        window=fields.whole("sliding_window") if any(sliding) else 0,
        query_key_norm=third,
        attention_bias=bias,
        output_bias=bias and third,
    )


def _modernbert(family: str, fields: Fields) -> DecoderConfig:
    common = _common(family, fields, tied=True)
    every = fields.whole("global_attn_every_n_layers", 3)
    bias = fields.flag("attention_bias", False)
    fields.only("classifier_activation", "gelu")
    return DecoderConfig(
        **common,
        **_rotaries(
            fields,
            common["max_positions"],
            base=160_000.0,
            local_base=10_000.0,
            names=("global_rope_theta", "local_rope_theta"),
        ),
        norm_eps=fields.small("norm_eps", 1e-5),
        activation=_ACTIVATIONS[fields.choice("hidden_activation", tuple(_ACTIVATIONS), "gelu")],
        query_scale=common["head_size"] ** -0.5,
        sliding=_layer_kinds(fields, common["layers"], lambda i: i % every != 0),
        window=fields.whole("local_attention", 128) // 2 + 1,
        causal=False,
        norm="layer",
        norm_bias=fields.flag("norm_bias", False),
        embedding_norm=True,
        first_attention_norm=False,
        attention_bias=bias,
        output_bias=bias,
        mlp_bias=fields.flag("mlp_bias", False),
    )


FAMILIES: dict[str, Callable[[str, Fields], DecoderConfig]] = {
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gemma3": _gemma3,
    "llama": _llama,
    "qwen2": _qwen,
    "qwen3": _qwen,
    "modernbert": _modernbert,
}
