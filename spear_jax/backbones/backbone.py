"""A frozen language model: word embeddings in, hidden states out."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from jaxtyping import Array, Bool, Float, Int, Shaped

from spear_jax.backbones.bert import Bert, BertConfig
from spear_jax.backbones.decoder import Decoder
from spear_jax.backbones.tokenizer import find_special_ids, read_tokenizer, tiny_tokenizer
from spear_jax.backbones.vocabulary import Vocabulary
from spear_jax.backbones.weights.checkpoint import Params, RandomTable
from spear_jax.backbones.weights.decoder_config import DecoderConfig
from spear_jax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen language model.

    Attributes:
      name: as it was asked for.
      revision: commit of the Hub, 'package==version', 'local', or 'seed=0' of a random one.
      sha256: of the weights, in hex: of `model.safetensors`; for shards, of the shards' own hex
        digests written one after the other in name order; for a random one, of what was drawn.
      dtype: of the products and of what `encode` returns, 'float32' or 'bfloat16'.
      int8: 'none', or how the kernels of linear layers are held in int8: 'channel' or 'grouped', see `Linear`.
      pretrained: False for random weights.
      config: the shape.
      module: computes the hidden states.
      params: of `module`, in host memory or where `load_backbone` was told to put them; kernels of linear layers
        in `dtype` or int8, the rest (biases, norms, position and type embeddings: under 1 %) float32.
      word_table: a row per token of the vocabulary, in the file's own dtype, memory-mapped: a few
        rows are taken without reading the file.
      read_vocabulary: see `vocabulary`, which few need and not every file has.
      weights_folder: where the files lie; None for 'random:tiny'.
    """

    name: str
    revision: str
    sha256: str
    dtype: str
    int8: str
    pretrained: bool
    config: BertConfig | DecoderConfig
    module: Bert | Decoder
    params: Params = dataclasses.field(repr=False)
    word_table: Shaped[np.ndarray, "vocabulary hidden"] | RandomTable = dataclasses.field(repr=False)
    read_vocabulary: Callable[[], Vocabulary] = dataclasses.field(repr=False)
    weights_folder: Path | None

    def description(self) -> dict[str, Any]:
        """Describes the backbone as results.json and detectors do."""
        return {
            "name": self.name,
            "revision": self.revision,
            "sha256": self.sha256,
            "dtype": self.dtype,
            "int8": self.int8,
            "attention": "causal" if self.causal else "bidirectional",
            "pretrained": self.pretrained,
        }

    @property
    def has_own_tokenizer(self) -> bool:
        """False where that of 'random:tiny' stands in: it knows the numbers 0 to 499 and nothing else."""
        return self.weights_folder is not None or self.name == "random:tiny"

    @property
    def hidden_size(self) -> int:
        """Length of a word embedding and of a hidden state."""
        return self.config.hidden_size

    @property
    def max_positions(self) -> int:
        """The longest sequence, soft prompt included."""
        return self.config.max_positions

    @property
    def vocabulary_size(self) -> int:
        """Rows of the word table."""
        return self.config.vocabulary_size

    @property
    def causal(self) -> bool:
        """True where a position sees only itself and what stands before it."""
        return self.module.causal

    def _known(self, ids: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
        ids = np.asarray(ids)
        outside = ids[(ids < 0) | (ids >= self.vocabulary_size)]
        if outside.size:
            raise InputError(
                f"token id {outside[0]} is not in the vocabulary of {self.name} (0 to {self.vocabulary_size - 1})"
            )
        return ids

    def word_rows(self, ids: Int[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape hidden"]:
        """Word embeddings as the model reads them, its own scale included, float32.

        Args:
          ids: token ids, of any shape.

        Returns:
          A row in the place of each id.

        Raises:
          InputError: an id outside the vocabulary.
        """
        rows = np.asarray(self.word_table[self._known(ids)], np.float32)
        return rows * np.float32(self.config.embedding_scale)

    def embed(self, token_ids: Int[np.ndarray, "batch time"]) -> Float[Array, "batch time hidden"]:
        """Word-level embeddings, float32, gathered on the host; positions are not added yet.

        Args:
          token_ids: rows of the word table.

        Returns:
          What `encode` takes.

        Raises:
          InputError: an id outside the vocabulary.
        """
        return jnp.asarray(self.word_rows(token_ids))

    def encode(
        self,
        embeddings: Float[Array, "batch sequence hidden"],
        mask: Bool[Array, "batch sequence"],
    ) -> Float[Array, "batch sequence hidden"]:
        """Last hidden states, compiled once per shape; positions are added once, inside.

        Args:
          embeddings: word-level vectors, from `embed` or a soft prompt.
          mask: True at real positions.

        Returns:
          Hidden states in `dtype`; those of masked positions mean nothing.

        Raises:
          InputError: a sequence longer than `max_positions`.
        """
        return self._encode(self._device_params, embeddings, mask)

    def token_logits(
        self, states: Float[Array, "*batch hidden"], token_ids: Int[np.ndarray, "tokens"]
    ) -> Float[Array, "*batch tokens"]:
        """Logits of some tokens as the next one, from a decoder's last hidden states, float32.

        Args:
          states: from `encode`.
          token_ids: of the vocabulary; only their rows are read.

        Raises:
          InputError: an id outside the vocabulary, or a model that predicts no next token.
        """
        if self.config.masked:
            raise InputError(f"{self.name} is an encoder: it predicts no next token")
        return self.vocabulary.logits(states, self._known(token_ids))

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """What reads the vocabulary's logits out of hidden states: of masked tokens, in a decoder of the next one.

        Raises:
          InputError: the file holds no such part.
        """
        return self.read_vocabulary()

    @functools.cached_property
    def _device_params(self) -> Params:
        return jax.device_put(self.params)

    @functools.cached_property
    def _encode(self) -> Callable[..., Array]:
        return jax.jit(lambda params, *inputs: self.module.apply({"params": params}, *inputs))

    @functools.cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """The tokenizer, without truncation and padding.

        Raises:
          InputError: the folder holds no tokenizer, or a broken one.
        """
        return tiny_tokenizer() if self.weights_folder is None else read_tokenizer(self.weights_folder)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens.

        Raises:
          InputError: the folder holds no tokenizer, or a broken one.
        """
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def spelling(self, token: int) -> str:
        """A token as its tokenizer spells it; '#' and its id where it has no name."""
        return self.tokenizer.id_to_token(int(token)) or f"#{token}"

    @functools.cached_property
    def special_ids(self) -> dict[str, int]:
        """Token ids of those of 'cls', 'sep', 'bos', 'eos', 'unk', 'mask' and 'pad' that there are.

        Raises:
          InputError: no tokenizer, or a broken one.
        """
        return find_special_ids(self.tokenizer, self.weights_folder)

    def word_table_statistics(
        self,
    ) -> tuple[Float[np.ndarray, "hidden"], Float[np.ndarray, "hidden"]]:
        """Mean and (population) standard deviation of each coordinate of `word_rows` over the vocabulary."""
        return self._word_table_statistics

    @functools.cached_property
    def _word_table_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        total = np.zeros(self.hidden_size)
        squares = np.zeros(self.hidden_size)
        for start in range(0, self.vocabulary_size, 1024):  # in chunks: Gemma's table has 2 GB
            rows = np.asarray(self.word_table[start : start + 1024], np.float64)
            total += rows.sum(axis=0)
            squares += (rows**2).sum(axis=0)
        mean = total / self.vocabulary_size
        variance = np.maximum(squares / self.vocabulary_size - mean**2, 0)
        scale = self.config.embedding_scale
        return (scale * mean).astype(np.float32), (scale * np.sqrt(variance)).astype(np.float32)
