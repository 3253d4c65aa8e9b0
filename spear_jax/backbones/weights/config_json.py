"""Reads a model's config.json with transformers, and checks fields that transformers leaves unchecked."""

import contextlib
import logging
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spear_jax.errors import InputError, one_line

PUBLISHED: dict[str, dict[str, Any]] = {
    "google-bert/bert-base-uncased": {"model_type": "bert"},  # transformers' defaults are its shape
    "google/gemma-2b": {
        "model_type": "gemma",
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 18,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
    },
    "meta-llama/Llama-3.2-1B": {
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128_256,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
}
"""config.json of some backbones, without the defaults: `--mode=memory` and 'random:<id>' need no download of them."""


@contextlib.contextmanager
def quiet_transformers() -> Iterator[Any]:
    """Imports transformers and silences its logs below errors within the context.

    On import it would warn that PyTorch is missing, which is not needed here.
    """
    logger = logging.getLogger("transformers")  # the import resets the level, so only a filter helps

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    logger.addFilter(is_error)
    try:
        import transformers  # takes seconds
    finally:
        logger.removeFilter(is_error)
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield transformers
    finally:
        transformers.logging.set_verbosity(verbosity)


class Fields:
    """The fields of a config of transformers, or of part of one, each checked when it is read.

    Attributes:
      source: the file, for error messages.
    """

    def __init__(self, config: Any, source: str) -> None:
        self._config, self.source = config, source

    @classmethod
    def parse(cls, content: Mapping[str, Any], source: str) -> "Fields":
        """Parses the content of a config.json in the spelling of transformers 4.x or 5.x; absent fields get defaults.

        Raises:
          InputError: transformers rejects the content.
        """
        try:
            with quiet_transformers() as transformers:
                return cls(transformers.AutoConfig.for_model(**content), source)
        except Exception as error:  # its checks raise exceptions of many kinds
            raise InputError(f"{source}: transformers rejects it: {one_line(error)}") from error

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a field unchecked; the default if it is absent or null."""
        value = getattr(self._config, name, None)
        return default if value is None else value

    def integer(self, name: str, default: int | None = None, least: int = 1) -> int:
        """Returns a whole number.

        Raises:
          InputError: it is not a whole number, or below `least`.
        """
        value = self.get(name, default)
        if type(value) is not int or value < least:
            raise InputError(f"{self.source}: {name} = {value!r}, must be a whole number of at least {least}")
        return value

    def number(self, name: str, below: float = float("inf")) -> float:
        """Returns a number above 0.

        Raises:
          InputError: it is not a number, or not between 0 and `below`.
        """
        value = self.get(name)
        if type(value) not in (int, float) or not 0 < value < below:
            allowed = "a number above 0" if below == float("inf") else f"between 0 and {below}"
            raise InputError(f"{self.source}: {name} = {value!r}, must be {allowed}")
        return float(value)

    def choice(self, name: str, allowed: Sequence[Any], default: Any = None) -> Any:
        """Returns a field with a fixed set of supported values.

        Raises:
          InputError: its value is not supported.
        """
        value = self.get(name, default)
        if value not in allowed:
            raise InputError(
                f"{self.source}: {name} = {value!r} is not supported (supported: {', '.join(map(repr, allowed))})"
            )
        return value

    def inner(self, name: str, key: str = "") -> "Fields":
        """Returns a nested object, or the object under `key` inside it if it has that key."""
        value = self.get(name)
        if isinstance(value, dict):
            value = types.SimpleNamespace(**(value.get(key, value) or {}))
        return Fields(value, f"{self.source}: {name}")
