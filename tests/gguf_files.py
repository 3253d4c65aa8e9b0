"""Small models in GGUF, written by the gguf package as llama.cpp's convert_hf_to_gguf.py does."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

ARCHITECTURES = {"gemma3_text": "gemma3"}  # of model_types, where they differ
MIXED = ("Q8_0", "Q4_0", "F16", "Q4_1", "BF16", "Q5_0", "Q5_1")


def permuted(weights: np.ndarray, heads: int) -> np.ndarray:
    """`permute` of the script."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def rope_factors(rope: Mapping[str, Any], size: int) -> np.ndarray:
    """The tensor rope_freqs of the script, from `rope_parameters` of Llama 3."""
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, size, 2) / size)
    factors = []
    for wavelength in 2 * np.pi / frequencies:
        if wavelength < rope["original_max_position_embeddings"] / rope["high_freq_factor"]:
            factors.append(1.0)
        elif wavelength > rope["original_max_position_embeddings"] / rope["low_freq_factor"]:
            factors.append(rope["factor"])
        else:
            smooth = rope["original_max_position_embeddings"] / wavelength - rope["low_freq_factor"]
            smooth /= rope["high_freq_factor"] - rope["low_freq_factor"]
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


def stored(name: str, tensor: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Lays out a tensor of transformers as llama.cpp wants it."""
    if config["model_type"] == "llama" and ".q_proj." in name:
        return permuted(tensor, config["num_attention_heads"])
    if config["model_type"] == "llama" and ".k_proj." in name:
        return permuted(tensor, config["num_key_value_heads"])
    if config["model_type"].startswith("gemma") and name.endswith("norm.weight"):
        return tensor + 1
    return tensor


def quantized(tensor: np.ndarray, kind: str) -> np.ndarray:
    """Returns the numbers that are left of a matrix when it is stored in a type; vectors stay as they are."""
    if tensor.ndim == 1:
        return tensor
    number = gguf.GGMLQuantizationType[kind]
    return gguf.dequantize(gguf.quantize(tensor, number), number)


def kinds(tensors: Mapping[str, np.ndarray], mixed: bool) -> dict[str, str]:
    """Returns a type for each tensor."""
    return dict(zip(tensors, itertools.cycle(MIXED if mixed else ("F32",)), strict=False))


def write(
    file: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], mixed: bool = False, **options: Any
) -> Path:
    """Writes a model, given its config.json and its tensors as transformers name them.

    `mixed` stores each matrix in another type; the options are GGUFWriter's.
    """
    architecture = ARCHITECTURES.get(config["model_type"], config["model_type"])
    writer = gguf.GGUFWriter(file, architecture, **options)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    if architecture == "bert":
        writer.add_layer_norm_eps(config["layer_norm_eps"])
        writer.add_causal_attention(False)
    else:
        _add_decoder(writer, architecture, config)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*"0123456789", "01", *(f"token{i}" for i in range(11, config["vocab_size"]))])
    writer.add_token_merges(["0 1"])
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == architecture), 99)
    types = kinds(tensors, mixed)
    for name, tensor in tensors.items():
        number = gguf.GGMLQuantizationType[types[name] if tensor.ndim == 2 else "F32"]
        raw = gguf.quantize(stored(name, tensor, config).astype(np.float32), number)
        translated = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert translated is not None, name
        writer.add_tensor(translated, raw, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_decoder(writer: gguf.GGUFWriter, architecture: str, config: Mapping[str, Any]) -> None:
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    rope = config["rope_parameters"]
    rope = rope.get("full_attention", rope)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if size * config["num_attention_heads"] != config["hidden_size"]:
        writer.add_key_length(size)
        writer.add_value_length(size)
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_factors(rope, size))
    if architecture == "llama":
        writer.add_rope_dimension_count(size)
    if architecture in ("gemma2", "gemma3"):
        writer.add_sliding_window(config["sliding_window"])
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if config.get(name):
            getattr(writer, f"add_{name}")(config[name])
