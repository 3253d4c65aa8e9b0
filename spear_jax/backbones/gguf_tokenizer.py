"""Makes the tokenizer that the metadata of a GGUF file describes."""

from collections.abc import Sequence
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from spear_jax.backbones.weights.gguf_file import GgufFile
from spear_jax.errors import InputError, one_line

_ROLES = {
    "cls": "cls_token_id",
    "sep": "seperator_token_id",  # the format spells it so
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "mask": "mask_token_id",
    "pad": "padding_token_id",
}
_CONTROL, _USER_DEFINED = 3, 4  # types of tokens that are never split
_SPACE = "\u2581"  # SentencePiece's spelling of a space

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _words(digits: str) -> list[Any]:
    split = pre_tokenizers.Split(tokenizers.Regex(_WORDS.replace("DIGITS", digits)), "isolated")
    return [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


_GPT2: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
_PRE_TOKENIZERS: dict[str, list[Any]] = {
    "gpt-2": _GPT2,
    "smollm": [pre_tokenizers.Digits(individual_digits=True), *_GPT2],
    "llama-bpe": _words(r"\p{N}{1,3}"),
    "qwen2": _words(r"\p{N}"),
    "deepseek-r1-qwen": _words(r"\p{N}"),
}
"""How byte-level tokenizers split a text into words, by tokenizer.ggml.pre."""


def tokenizer_of_metadata(file: GgufFile, vocabulary_size: int) -> tuple[tokenizers.Tokenizer, dict[str, int]]:
    """Makes a model's tokenizer.

    Args:
      file: the model.
      vocabulary_size: rows of the word table; special tokens without a row are left out.

    Returns:
      As `read_tokenizer`.

    Raises:
      InputError: the metadata describes no tokenizer, one of an unsupported kind, or an impossible one.
    """
    about = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in file.metadata.items()
        if key.startswith("tokenizer.ggml.")
    }
    kind, source = about.get("model"), file.files[0]
    if kind not in _KINDS:
        raise InputError(
            f"{source}: tokenizer.ggml.model = {kind!r} is not supported (supported: {', '.join(map(repr, _KINDS))})"
        )
    words = about.get("pre")
    if kind == "gpt2" and words not in _PRE_TOKENIZERS:
        raise InputError(
            f"{source}: tokenizer.ggml.pre = {words!r} is not supported (supported: {', '.join(_PRE_TOKENIZERS)})"
        )
    try:
        tokenizer = _KINDS[kind](about)
        types = about.get("token_type", [])
        for special, wanted in ((True, _CONTROL), (False, _USER_DEFINED)):
            names = [
                tokenizers.AddedToken(tokenizer.id_to_token(number), normalized=False, special=special)
                for number in range(len(types))
                if types[number] == wanted
            ]
            (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(names)
    except Exception as error:  # tokenizers raises exceptions of many kinds
        raise InputError(
            f"{source}: the tokenizer cannot be made ({type(error).__name__}: {one_line(error)})"
        ) from error
    ids = {role: about.get(key) for role, key in _ROLES.items()}
    return tokenizer, {role: i for role, i in ids.items() if type(i) is int and 0 <= i < vocabulary_size}


def _numbered(tokens: Sequence[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


def _byte_level(about: dict[str, Any]) -> tokenizers.Tokenizer:
    """GPT-2's byte pairs; Llama 3 takes a word that is a token as it is."""
    pairs = [tuple(merge.split(" ")) for merge in about["merges"]]
    whole = about["pre"] == "llama-bpe"
    tokenizer = tokenizers.Tokenizer(models.BPE(_numbered(about["tokens"]), pairs, ignore_merges=whole))
    if "qwen" in about["pre"]:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_PRE_TOKENIZERS[about["pre"]])
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def _sentence_pieces(about: dict[str, Any]) -> tokenizers.Tokenizer:
    """SentencePiece's byte pairs: of two neighbours, those are merged first that make the token with the lowest id."""
    # llama.cpp spells tokens of nothing but spaces with spaces.
    ids = _numbered([token if token.strip(" ") else _SPACE * len(token) for token in about["tokens"]])
    pairs = [
        (token[:end], token[end:])
        for token in ids
        for end in range(1, len(token))
        if token[:end] in ids and token[end:] in ids
    ]
    unknown = about["tokens"][about["unknown_token_id"]] if "unknown_token_id" in about else None
    model = models.BPE(ids, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    spaces: list[Any] = [normalizers.Replace(" ", _SPACE)]
    if about.get("add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend(_SPACE))
    tokenizer.normalizer = normalizers.Sequence(spaces)
    return tokenizer


def _word_pieces(about: dict[str, Any]) -> tokenizers.Tokenizer:
    """BERT's words and their continuations, which llama.cpp marks the other way round."""

    def spelled(token: str) -> str:
        if token.startswith("[") and token.endswith("]"):
            return token
        return token.removeprefix(_SPACE) if token.startswith(_SPACE) else f"##{token}"

    ids = _numbered([spelled(token) for token in about["tokens"]])
    tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)  # as llama.cpp does
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


_KINDS = {"gpt2": _byte_level, "llama": _sentence_pieces, "bert": _word_pieces}
"""Makers by tokenizer.ggml.model."""
