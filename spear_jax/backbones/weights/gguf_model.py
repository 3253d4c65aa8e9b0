"""Translates a model in GGUF: llama.cpp's metadata into the fields of a config.json, and its layout of tensors."""

import dataclasses
from typing import Any

import numpy as np

from spear_jax.backbones.weights.config_json import Fields
from spear_jax.backbones.weights.decoder_config import DecoderConfig
from spear_jax.backbones.weights.gguf_file import GgufFile
from spear_jax.backbones.weights.naming import GGUF_NAMINGS
from spear_jax.backbones.weights.tensors import Checkpoint, GgufTensor, Tensor
from spear_jax.errors import InputError

_WORD_TABLE, _ROPE_FACTORS = "token_embd.weight", "rope_freqs.weight"

# Key of the metadata, without the architecture -> field of config.json.
_REQUIRED = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_LARGEST = {"gemma2": 46, "gemma3": 62}  # layers of the 27B models, which scale queries in another way


def read_fields(file: GgufFile) -> Fields:
    """Returns the fields that the model's config.json would have.

    llama.cpp keeps some of them in its code, such as which layers of a Gemma have a sliding window: what it assumes
    is spelled out here, as transformers' defaults may be others.

    Raises:
      InputError: the architecture is not supported, or its description is incomplete or impossible.
    """
    source, architecture = str(file.files[0]), file.architecture
    if architecture not in tuple(GGUF_NAMINGS):
        raise InputError(
            f"{source}: the architecture {architecture!r} is not supported (supported: {', '.join(GGUF_NAMINGS)})"
        )
    own = {
        key.removeprefix(f"{architecture}."): value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in file.metadata.items()
        if key.startswith(f"{architecture}.")
    }
    eps = "attention.layer_norm_epsilon" if architecture == "bert" else "attention.layer_norm_rms_epsilon"
    missing = [f"{architecture}.{key}" for key in (*_REQUIRED, eps) if key not in own]
    if _WORD_TABLE not in file.tensors:
        missing.append(f"the tensor {_WORD_TABLE}")
    if missing:
        raise InputError(f"{source}: {', '.join(missing)} missing")
    for key in _REQUIRED:
        most = len(file.tensors) if key == "block_count" else 2**31
        if type(own[key]) is not int or not 1 <= own[key] <= most:
            raise InputError(f"{source}: {architecture}.{key} = {own[key]!r}, must be a whole number from 1 to {most}")
    content = {field: own[key] for key, field in _REQUIRED.items()}
    content |= {"model_type": architecture, "vocab_size": file.tensors[_WORD_TABLE].shape[0]}
    if architecture == "bert":
        types = file.tensors.get("token_types.weight")
        content |= {"layer_norm_eps": own[eps], "type_vocab_size": 1 if types is None else types.shape[0]}
        return Fields.parse(content, source)
    content |= {"rms_norm_eps": own[eps]} | _decoder_fields(architecture, own, file, source)
    return Fields.parse(content, source)


def _decoder_fields(architecture: str, own: dict[str, Any], file: GgufFile, source: str) -> dict[str, Any]:
    heads, hidden_size = own["attention.head_count"], own["embedding_length"]
    head_size = own.get("attention.key_length", hidden_size // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if own.get(key, head_size) != head_size:
            raise InputError(
                f"{source}: {architecture}.{key} = {own[key]!r} is not supported, only the size of a head, {head_size}"
            )
    fields: dict[str, Any] = {
        "num_key_value_heads": own.get("attention.head_count_kv", heads),
        "head_dim": head_size,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in file.tensors,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "rope_parameters": _rope(own),
    }
    if architecture not in _LARGEST:
        return fields
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if key in own:
            fields[key] = own[key]
    largest = own["block_count"] == _LARGEST[architecture]
    fields["query_pre_attn_scalar"] = hidden_size // heads if largest else head_size
    if architecture == "gemma2":
        fields["sliding_window"] = own.get("attention.sliding_window", 4096)
    else:
        fields["model_type"] = "gemma3_text"
        local = {"rope_type": "default", "rope_theta": own.get("rope.freq_base_swa", 10_000.0)}
        fields["rope_parameters"] = {"full_attention": _rope(own), "sliding_attention": local}
        window = own.get("attention.sliding_window", 0)
        period = own.get("attention.sliding_window_pattern", 6)
        if isinstance(period, int):
            period = [(i + 1) % max(period, 1) > 0 for i in range(own["block_count"])]
        fields["layer_types"] = ["sliding_attention" if window and slides else "full_attention" for slides in period]
        if window:
            fields["sliding_window"] = window
    return fields


def _rope(own: dict[str, Any]) -> dict[str, Any]:
    factor = own.get("rope.scaling.factor", own.get("rope.scale_linear", 0))
    kind = own.get("rope.scaling.type", "linear" if factor else "none")
    rope = {"rope_type": "default", "rope_theta": own.get("rope.freq_base", 10_000.0)}
    return rope if kind == "none" else rope | {"rope_type": kind, "factor": factor}


def stretch_rope(config: DecoderConfig, file: GgufFile) -> DecoderConfig:
    """Returns a config with the factors that Llama 3's files hold, one for each wavelength, in place of the formula.

    Raises:
      InputError: their number is wrong.
    """
    factors = file.tensors.get(_ROPE_FACTORS)
    if factors is None:
        return config
    if factors.shape != (config.head_size // 2,):
        raise InputError(
            f"{file.files[0]}: the tensor {_ROPE_FACTORS} is {factors.shape} instead of {(config.head_size // 2,)}"
        )
    numbers = tuple(np.asarray(factors).tolist())
    return dataclasses.replace(config, rotary=dataclasses.replace(config.rotary, factors=numbers))


def read_checkpoint(file: GgufFile, heads: int, key_value_heads: int) -> Checkpoint:
    """Returns the tensors with rows and norms as in a checkpoint of transformers, names as they are.

    llama.cpp interleaves the halves of each head's rows of Llama's queries and keys, and adds 1 to the norms of Gemma.

    Args:
      file: the model.
      heads: number of query heads.
      key_value_heads: number of key and value heads.
    """
    tensors = dict(file.tensors)
    for name, tensor in file.tensors.items():
        module = name.rpartition(".")[0].rpartition(".")[2]
        if file.architecture == "llama" and module in ("attn_q", "attn_k"):
            tensors[name] = _halves_apart(tensor, heads if module == "attn_q" else key_value_heads)
        elif file.architecture.startswith("gemma") and name.endswith("norm.weight"):
            tensors[name] = np.asarray(tensor) - 1
    return Checkpoint(file.files[0], tensors, file.mappings)


def _halves_apart(tensor: Tensor, heads: int) -> Tensor:
    rows = tensor.shape[0]
    if rows % (2 * heads):
        return tensor  # of the wrong shape, which is said where all shapes are checked
    order = np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)
    return tensor.reordered(order) if isinstance(tensor, GgufTensor) else tensor[order]
