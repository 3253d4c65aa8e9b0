"""Finds a frozen backbone by name, checks its files, and loads it.

A name is a local folder, a Hugging Face id, or 'random:...' for an untrained stand-in: see
`load_backbone`.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from jaxtyping import Array, Bool, Float, Int, Shaped

from spear_jax.backbones.bert import Bert, BertConfig, Params
from spear_jax.backbones.bert_weights import map_checkpoint, random_weights
from spear_jax.backbones.finding import find
from spear_jax.backbones.tokenizer import find_special_ids, read_tokenizer, tiny_tokenizer
from spear_jax.backbones.weight_files import (
    read_json,
    read_tensors,
    sha256_of_arrays,
    sha256_of_files,
    weight_files,
)
from spear_jax.errors import InputError

RANDOM_SEED = 0  # of every 'random:...' backbone
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
TINY = BertConfig(
    hidden_size=32,
    layers=2,
    heads=4,
    intermediate_size=64,
    vocabulary_size=1000,
    max_positions=512,
    type_vocabulary_size=2,
    layer_norm_eps=1e-12,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen language model.

    Attributes:
      name: as it was asked for.
      revision: commit of the Hub, 'package==version', 'local', or 'seed=0' of a random one.
      sha256: of the weights, in hex: of `model.safetensors`; for shards, of the shards' own hex
        digests written one after the other in name order; for a random one, of its parameters.
      dtype: of the linear layers and of what `encode` returns, 'float32' or 'bfloat16'.
      pretrained: False for random weights.
      config: the shape.
      module: computes the hidden states.
      params: of `module`, in host memory; kernels of linear layers in `dtype`, the rest (biases,
        norms, position and type embeddings: under 1 % of BERT) float32.
      word_table: a row per token of the vocabulary, in the file's own dtype, memory-mapped: a few
        rows are taken without reading the file.
      weights_folder: where the files lie; None for 'random:tiny'.
    """

    name: str
    revision: str
    sha256: str
    dtype: str
    pretrained: bool
    config: BertConfig
    module: Bert
    params: Params = dataclasses.field(repr=False)
    word_table: Shaped[np.ndarray, "vocabulary hidden"] = dataclasses.field(repr=False)
    weights_folder: Path | None

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

    def word_rows(self, ids: Int[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape hidden"]:
        """Rows of the word table, float32.

        Args:
          ids: token ids, of any shape.

        Returns:
          A row in the place of each id.

        Raises:
          InputError: an id outside the vocabulary.
        """
        ids = np.asarray(ids)
        outside = ids[(ids < 0) | (ids >= self.vocabulary_size)]
        if outside.size:
            raise InputError(
                f"token id {outside[0]} is not in the vocabulary of {self.name} (0 to {self.vocabulary_size - 1})"
            )
        return np.asarray(self.word_table[ids], np.float32)

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
        """Last hidden states, compiled once per shape; position embeddings are added once, inside.

        Args:
          embeddings: word-level vectors, from `embed` or a soft prompt.
          mask: True at real positions.

        Returns:
          Hidden states in `dtype`; those of masked positions mean nothing.

        Raises:
          InputError: a sequence longer than `max_positions`.
        """
        return self._encode(self._device_params, embeddings, mask)

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

    @functools.cached_property
    def special_ids(self) -> dict[str, int]:
        """Token ids of 'cls', 'sep', 'unk', 'mask' and 'pad'.

        Raises:
          InputError: no tokenizer, or one without these tokens.
        """
        return find_special_ids(self.tokenizer, self.weights_folder, self.name)

    def word_table_statistics(
        self,
    ) -> tuple[Float[np.ndarray, "hidden"], Float[np.ndarray, "hidden"]]:
        """Mean and (population) standard deviation of each coordinate over the vocabulary."""
        return self._word_table_statistics

    @functools.cached_property
    def _word_table_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        total = np.zeros(self.hidden_size)
        squares = np.zeros(self.hidden_size)
        for start in range(0, self.vocabulary_size, 4096):  # in chunks: Gemma's table has 2 GB
            rows = np.asarray(self.word_table[start : start + 4096], np.float64)
            total += rows.sum(axis=0)
            squares += (rows**2).sum(axis=0)
        mean = total / self.vocabulary_size
        variance = np.maximum(squares / self.vocabulary_size - mean**2, 0)
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def load_backbone(
    name_or_folder: str, dtype: str = "float32", *, remat: bool = False, unroll: int | bool = 1
) -> Backbone:
    """Finds, checks and loads a frozen backbone.

    Args:
      name_or_folder: one of
        a folder with config.json and model.safetensors (or shards and their index);
        a Hugging Face id 'org/name' or 'org/name@revision', looked for in its weight package
        (`WEIGHT_PACKAGES`, unless a revision is asked for), the Hugging Face cache, the Hub;
        'random:tiny', two small layers built in place, whose tokenizer knows the numbers 0 to 499;
        'random:<id or folder>', that model's shape and tokenizer with untrained weights.
      dtype: 'float32' or 'bfloat16', see `Backbone.dtype`.
      remat: see `Bert.remat`.
      unroll: see `Bert.unroll`.

    Returns:
      The backbone, its parameters in host memory.

    Raises:
      InputError: the model cannot be found, its files are damaged, or it is of a kind that is not
        supported.
    """
    if dtype not in DTYPES:
        raise InputError(f"backbone.dtype = {dtype!r}, must be one of {', '.join(map(repr, DTYPES))}")
    if name_or_folder == "random:tiny":
        place, config = None, TINY
    else:
        place = find(name_or_folder.removeprefix("random:"), name_or_folder.startswith("random:"))
        config_file = place.folder / "config.json"
        config = BertConfig.from_json(read_json(config_file), str(config_file))

    if place is None or name_or_folder.startswith("random:"):
        params, word_table = random_weights(config, DTYPES[dtype], RANDOM_SEED)
        revision, sha256 = f"seed={RANDOM_SEED}", sha256_of_arrays(params, word_table)
    else:
        files = weight_files(place.folder)
        revision, sha256 = place.revision, sha256_of_files(files)
        if place.sha256 not in ("", sha256):
            raise InputError(
                f"{files[0]}: its sha256 is {sha256}, expected {place.sha256}: install the weight package again"
            )
        params, word_table = map_checkpoint(read_tensors(place.folder, files), config, place.folder, DTYPES[dtype])

    return Backbone(
        name=name_or_folder,
        revision=revision,
        sha256=sha256,
        dtype=dtype,
        pretrained=not name_or_folder.startswith("random:"),
        config=config,
        module=Bert(config, DTYPES[dtype], remat, unroll),
        params=params,
        word_table=word_table,
        weights_folder=None if place is None else place.folder,
    )
