"""Defines the frozen language model: word embeddings in, hidden states out."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from jaxtyping import Array, Bool, Float, Int

from spear_jax.backbones.bert import Bert, BertConfig
from spear_jax.backbones.decoder import Decoder
from spear_jax.backbones.gguf_tokenizer import tokenizer_of_metadata
from spear_jax.backbones.tokenizer import read_tokenizer, tiny_tokenizer
from spear_jax.backbones.vocabulary import Vocabulary
from spear_jax.backbones.weights.checkpoint import Params, RandomTable
from spear_jax.backbones.weights.decoder_config import DecoderConfig
from spear_jax.backbones.weights.finding import ModelFiles
from spear_jax.backbones.weights.tensors import Tensor
from spear_jax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen language model.

    Attributes:
      name: the name it was loaded by.
      revision: commit of the Hub, 'package==version', 'local', or 'seed=0' for random weights.
      sha256: digest of the weights in hex: that of the file; for several, the digest of their hex digests, concatenated
        in name order; for random weights, that of the numbers drawn.
      dtype: dtype of the matrix products and the hidden states, 'float32' or 'bfloat16'.
      int8: 'none', or how int8 kernels of linear layers are scaled: 'channel' or 'grouped', see `Linear`.
      pretrained: False for random weights.
      config: the model's shape.
      module: the Flax module.
      params: parameters of `module`, in host memory or on the devices given to `load_backbone`; kernels of linear
        layers in `dtype` or int8, the rest (biases, norms, position and type embeddings: under 1 %) in float32.
      word_table: a row per token of the vocabulary, memory-mapped: only the rows used are read (and dequantized).
      read_vocabulary: reads `vocabulary`, which few callers need and some checkpoints lack.
      files: its files; None for 'random:tiny'.
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
    word_table: Tensor | RandomTable = dataclasses.field(repr=False)
    read_vocabulary: Callable[[], Vocabulary] = dataclasses.field(repr=False)
    files: ModelFiles | None = dataclasses.field(repr=False)

    def description(self) -> dict[str, Any]:
        """Returns the facts about the backbone that results.json and detectors record."""
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
        """Returns whether the tokenizer is the model's; that of 'random:tiny' only knows the numbers 0 to 499."""
        return self.files is not None or self.name == "random:tiny"

    @property
    def hidden_size(self) -> int:
        """Returns the size of a word embedding and of a hidden state."""
        return self.config.hidden_size

    @property
    def max_positions(self) -> int:
        """Returns the length of the longest sequence, soft prompt included."""
        return self.config.max_positions

    @property
    def vocabulary_size(self) -> int:
        """Returns the number of rows of the word table."""
        return self.config.vocabulary_size

    @property
    def causal(self) -> bool:
        """Returns whether each position attends only to itself and to earlier positions."""
        return self.module.causal

    def word_rows(self, ids: Int[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape hidden"]:
        """Returns the word embeddings of tokens in float32, multiplied by the model's embedding scale.

        Raises:
          InputError: an id outside the vocabulary.
        """
        ids = np.asarray(ids)
        outside = ids[(ids < 0) | (ids >= self.vocabulary_size)]
        if outside.size:
            raise InputError(
                f"token id {outside[0]} is not in the vocabulary of {self.name} (0 to {self.vocabulary_size - 1})"
            )
        return np.asarray(self.word_table[ids], np.float32) * np.float32(self.config.embedding_scale)

    def embed(self, token_ids: Int[np.ndarray, "batch time"]) -> Float[Array, "batch time hidden"]:
        """Embeds tokens, in float32, on the host; positions are added by `encode`.

        Raises:
          InputError: an id outside the vocabulary.
        """
        return jnp.asarray(self.word_rows(token_ids))

    def encode(
        self,
        embeddings: Float[Array | np.ndarray, "batch sequence hidden"],
        mask: Bool[Array | np.ndarray, "batch sequence"],
    ) -> Float[Array, "batch sequence hidden"]:
        """Computes the last hidden states; compiled once per shape. Positions are added once, inside.

        Args:
          embeddings: word embeddings, or vectors of a soft prompt.
          mask: True at real positions.

        Returns:
          Hidden states in `dtype`; those at masked positions are meaningless.

        Raises:
          InputError: a sequence longer than `max_positions`.
        """
        return self._encode(self._device_params, embeddings, mask)

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """Returns the head that predicts tokens from hidden states: masked tokens, or a decoder's next token.

        Raises:
          InputError: the checkpoint has no such head.
        """
        return self.read_vocabulary()

    @functools.cached_property
    def _device_params(self) -> Params:
        return jax.device_put(self.params)

    @functools.cached_property
    def _encode(self) -> Callable[..., Array]:
        return jax.jit(lambda params, *inputs: self.module.apply({"params": params}, *inputs))

    @property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """Returns the tokenizer, without truncation and padding.

        Raises:
          InputError: the folder contains no tokenizer, or a damaged one.
        """
        return self._tokenizer[0]

    @property
    def special_ids(self) -> dict[str, int]:
        """Returns the ids of the model's special tokens among 'cls', 'sep', 'bos', 'eos', 'unk', 'mask' and 'pad'."""
        return self._tokenizer[1]

    @functools.cached_property
    def _tokenizer(self) -> tuple[tokenizers.Tokenizer, dict[str, int]]:
        if self.files is None:
            return tiny_tokenizer()
        if self.files.gguf:
            return tokenizer_of_metadata(self.files.gguf, self.vocabulary_size)
        return read_tokenizer(self.files.folder, self.vocabulary_size)

    def tokenize(self, text: str) -> list[int]:
        """Returns the token ids of a text, without special tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def spelling(self, token: int) -> str:
        """Returns a token as its tokenizer spells it; '#' and its id if it has no name."""
        return self.tokenizer.id_to_token(int(token)) or f"#{token}"

    @functools.cached_property
    def word_table_statistics(self) -> tuple[Float[np.ndarray, "hidden"], Float[np.ndarray, "hidden"]]:
        """Returns mean and (population) standard deviation of each coordinate of `word_rows` over the vocabulary."""
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
