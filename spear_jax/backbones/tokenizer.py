"""Reads a checkpoint's tokenizer, and makes the one of 'random:tiny'."""

from pathlib import Path
from typing import Any

import tokenizers

from spear_jax.errors import InputError
from spear_jax.storage import read_json

_SPECIAL_TOKENS = {
    "pad": "[PAD]",
    "unk": "[UNK]",
    "cls": "[CLS]",
    "sep": "[SEP]",
    "mask": "[MASK]",
}


def read_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a model's folder, without truncation and padding.

    Raises:
      InputError: the folder holds no tokenizer, or a broken one.
    """
    file, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    try:
        if file.is_file():
            tokenizer = tokenizers.Tokenizer.from_file(str(file))
        elif vocabulary.is_file():
            settings = folder / "tokenizer_config.json"
            lowercase = read_json(settings).get("do_lower_case", True) if settings.is_file() else True
            return tokenizers.BertWordPieceTokenizer(str(vocabulary), lowercase=lowercase)
        else:
            raise InputError(f"{folder}: no tokenizer, neither tokenizer.json nor vocab.txt")
    except InputError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{folder}: the tokenizer cannot be read: {error}") from error
    tokenizer.no_truncation()  # MiniLM's file pads and cuts to 128 tokens
    tokenizer.no_padding()
    return tokenizer


# Where no file names them: the spellings of BERT, RoBERTa, Gemma, Llama 3, Qwen and DeepSeek.
_USUAL = {
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
    "bos": ("<bos>", "<s>", "<|begin_of_text|>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>"),
    "eos": ("<eos>", "</s>", "<|end_of_text|>", "<|endoftext|>", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
    "unk": ("[UNK]", "<unk>"),
    "mask": ("[MASK]", "<mask>"),
    "pad": ("[PAD]", "<pad>"),
}


def find_special_ids(tokenizer: tokenizers.Tokenizer, folder: Path | None) -> dict[str, int]:
    """Token ids of those of 'cls', 'sep', 'bos', 'eos', 'unk', 'mask' and 'pad' that there are.

    Args:
      tokenizer: the model's.
      folder: its tokenizer_config.json and special_tokens_map.json may name the tokens.

    Raises:
      InputError: one of these files cannot be read.
    """
    names: dict[str, Any] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        if folder is not None and (folder / file).is_file():
            names |= read_json(folder / file)
    ids = {}
    for key, usual in _USUAL.items():
        token = names.get(f"{key}_token")
        token = token["content"] if isinstance(token, dict) else token  # both spellings exist
        numbers = [tokenizer.token_to_id(one) for one in ([token] if token else usual)]
        known = [number for number in numbers if number is not None]
        if known:
            ids[key] = known[0]
    return ids


def tiny_tokenizer() -> tokenizers.Tokenizer:
    """A token for each number from 0 to 499, behind the special ones; other ids have no name."""
    words = [*_SPECIAL_TOKENS.values(), *map(str, range(500))]
    model = tokenizers.models.WordLevel({word: number for number, word in enumerate(words)}, _SPECIAL_TOKENS["unk"])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(_SPECIAL_TOKENS.values()))  # else '[MASK]' in a text would be three tokens
    return tokenizer
