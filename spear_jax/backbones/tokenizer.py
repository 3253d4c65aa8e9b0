"""Reads a model's tokenizer with transformers, and makes the one of 'random:tiny'."""

from pathlib import Path

import tokenizers

from spear_jax.backbones.weights.config_json import quiet_transformers
from spear_jax.errors import InputError, one_line

_FILES = ("tokenizer.json", "vocab.txt")  # without one of them, transformers would make up a vocabulary
_ROLES = ("cls", "sep", "bos", "eos", "unk", "mask", "pad")
_TINY_SPECIAL_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


def read_tokenizer(folder: Path, vocabulary_size: int) -> tuple[tokenizers.Tokenizer, dict[str, int]]:
    """Reads the tokenizer in a model's folder.

    Args:
      folder: the folder, with config.json.
      vocabulary_size: rows of the word table; special tokens without a row are left out.

    Returns:
      The tokenizer, without truncation and padding; and the ids of the model's special tokens among 'cls', 'sep',
      'bos', 'eos', 'unk', 'mask' and 'pad'.

    Raises:
      InputError: the folder contains no tokenizer, or a damaged one.
    """
    if not any((folder / name).is_file() for name in _FILES):
        raise InputError(f"{folder}: no tokenizer, neither {' nor '.join(_FILES)}")
    try:
        with quiet_transformers() as transformers:
            pretrained = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        tokenizer = pretrained.backend_tokenizer
    except Exception as error:  # transformers and tokenizers raise exceptions of many kinds
        raise InputError(
            f"{folder}: the tokenizer cannot be read ({type(error).__name__}: {one_line(error)})"
        ) from error
    tokenizer.no_truncation()  # MiniLM's file pads and cuts to 128 tokens
    tokenizer.no_padding()
    ids = {role: getattr(pretrained, f"{role}_token_id") for role in _ROLES}
    return tokenizer, {role: number for role, number in ids.items() if number is not None and number < vocabulary_size}


def tiny_tokenizer() -> tuple[tokenizers.Tokenizer, dict[str, int]]:
    """Makes a tokenizer with a token for each number from 0 to 499, and its special token ids by role."""
    words = [*_TINY_SPECIAL_TOKENS.values(), *map(str, range(500))]
    model = tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, _TINY_SPECIAL_TOKENS["unk"])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    # As special tokens, since '[MASK]' in a text would otherwise be three tokens.
    tokenizer.add_special_tokens(list(_TINY_SPECIAL_TOKENS.values()))
    return tokenizer, {role: i for i, role in enumerate(_TINY_SPECIAL_TOKENS)}
