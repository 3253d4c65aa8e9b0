"""Predicts tokens from hidden states: masked tokens, or the next one."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from spear_jax.backbones.bert import BertConfig
from spear_jax.backbones.weights.checkpoint import RandomTable
from spear_jax.backbones.weights.decoder_config import DecoderConfig
from spear_jax.backbones.weights.naming import Naming
from spear_jax.backbones.weights.tensors import Checkpoint, Tensor
from spear_jax.errors import InputError

CHUNK_TOKENS = 4096  # rows of the table on the device at a time


class Transform(NamedTuple):
    """The layers of a masked model between hidden states and output table: linear, GELU, LayerNorm."""

    kernel: Float[np.ndarray, "hidden hidden"]
    bias: Float[np.ndarray, "hidden"]
    norm_scale: Float[np.ndarray, "hidden"]
    norm_bias: Float[np.ndarray, "hidden"]
    norm_eps: float

    def __call__(self, states: Float[Array, "*batch hidden"]) -> Float[Array, "*batch hidden"]:
        """Transforms hidden states."""
        x = nn.gelu(states @ self.kernel + self.bias, approximate=False)
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        deviation = jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.norm_eps)
        return x / deviation * self.norm_scale + self.norm_bias


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The head of a language model, which predicts tokens from the last hidden states.

    Attributes:
      table: a row per token, memory-mapped: only the rows used are read.
      bias: bias of each token's logit.
      transform: applied to hidden states first; None in decoders.
      soft_cap: bound of the logits; 0 means none.
    """

    table: Tensor | RandomTable
    bias: Float[np.ndarray, "vocabulary"]
    transform: Transform | None = None
    soft_cap: float = 0.0

    def logits(
        self, states: Float[Array | np.ndarray, "*batch hidden"], ids: Int[np.ndarray, "tokens"]
    ) -> Float[Array, "*batch tokens"]:
        """Computes the logits of some tokens, in float32; only their rows are read."""
        return _logits(_transform(states, self.transform), self.table[ids], self.bias[ids], self.soft_cap)

    def log_probabilities(
        self, states: Float[Array | np.ndarray, "*batch hidden"], targets: Int[Array | np.ndarray, "*batch"]
    ) -> Float[Array, "*batch"]:
        """Computes the log-probability of one token per state, over the whole vocabulary, in float32.

        The table is moved to the device in chunks, so that memory only holds `CHUNK_TOKENS` logits per state.
        """
        states = _transform(states, self.transform)
        zeros: Any = np.zeros(targets.shape, np.float32)
        sums = (zeros - np.inf, zeros, zeros)
        for start in range(0, len(self.bias), CHUNK_TOKENS):
            rows, bias = self.table[start : start + CHUNK_TOKENS], self.bias[start : start + CHUNK_TOKENS]
            # Without blocking, all chunks would be moved to the device at once.
            sums = jax.block_until_ready(_add_chunk(sums, states, rows, bias, targets - start, self.soft_cap))
        largest, total, target_logit = sums
        return target_logit - largest - jnp.log(total)


@jax.jit
def _transform(states: Float[Array, "*batch hidden"], transform: Transform | None) -> Float[Array, "*batch hidden"]:
    states = states.astype(jnp.float32)
    return states if transform is None else transform(states)


@functools.partial(jax.jit, static_argnames="soft_cap")
def _logits(states: Array, rows: Array, bias: Array, soft_cap: float) -> Array:
    logits = states @ rows.astype(jnp.float32).T + bias
    return soft_cap * jnp.tanh(logits / soft_cap) if soft_cap else logits


@functools.partial(jax.jit, static_argnames="soft_cap")
def _add_chunk(
    sums: tuple[Array, Array, Array], states: Array, rows: Array, bias: Array, targets: Array, soft_cap: float
) -> tuple[Array, Array, Array]:
    """Updates the largest logit, the sum of exp(logit - largest) and the target's logit with a chunk of rows."""
    before, total, target_logit = sums
    logits = _logits(states, rows, bias, soft_cap)
    largest = jnp.maximum(before, jnp.max(logits, axis=-1))
    total = total * jnp.exp(before - largest) + jnp.sum(jnp.exp(logits - largest[..., None]), axis=-1)
    here = (targets >= 0) & (targets < len(rows))
    in_chunk = jnp.take_along_axis(logits, jnp.where(here, targets, 0)[..., None], axis=-1)[..., 0]
    return largest, total, jnp.where(here, in_chunk, target_logit)


def read_vocabulary(
    checkpoint: Checkpoint, naming: Naming, config: BertConfig | DecoderConfig, word_table: Tensor
) -> Vocabulary:
    """Reads the head of a checkpoint.

    Args:
      checkpoint: the files.
      naming: names of the tensors in the files.
      config: the model's shape.
      word_table: the output table, if it is tied.

    Raises:
      InputError: a tensor is missing (some checkpoints contain only the encoder), or has the wrong shape.
    """
    head, size = naming.head, config.hidden_size
    tensors = {naming.plain(name): tensor for name, tensor in checkpoint.tensors.items()}
    spellings = head.biases if config.tied else head.biases[::-1]
    bias_name = next((name for name in spellings if name in tensors), "".join(head.biases[:1]))
    wanted: dict[str, tuple[int, ...]] = {} if config.tied else {f"{head.table}.weight": (config.vocabulary_size, size)}
    if bias_name:
        wanted[bias_name] = (config.vocabulary_size,)
    if head.dense:
        wanted |= {f"{head.dense}.weight": (size, size), f"{head.norm}.weight": (size,)}
        if head.biased:
            wanted |= {f"{head.dense}.bias": (size,), f"{head.norm}.bias": (size,)}
    _check(tensors, wanted, checkpoint, config.masked)

    def array(name: str, length: int) -> np.ndarray:
        return np.asarray(tensors[name], np.float32) if name in tensors else np.zeros(length, np.float32)

    transform = None
    if head.dense:
        transform = Transform(
            kernel=array(f"{head.dense}.weight", 0).T,  # a checkpoint holds (out, in)
            bias=array(f"{head.dense}.bias", size),
            norm_scale=array(f"{head.norm}.weight", 0),
            norm_bias=array(f"{head.norm}.bias", size),
            norm_eps=config.norm_eps,
        )
    return Vocabulary(
        table=word_table if config.tied else tensors[f"{head.table}.weight"],
        bias=array(bias_name, config.vocabulary_size),
        transform=transform,
        soft_cap=config.final_soft_cap,
    )


def _check(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], checkpoint: Checkpoint, masked: bool
) -> None:
    missing = [name for name in wanted if name not in tensors]
    if missing:
        kind = "head that predicts masked tokens" if masked else "table that predicts the next token"
        advice = (
            "; google-bert/bert-base-uncased, FacebookAI/roberta-base, distilbert/distilbert-base-uncased and"
            " answerdotai/ModernBERT-base have one"
        )
        raise InputError(
            f"{checkpoint.source}: the file has no {kind}: {', '.join(missing)} missing{advice if masked else ''}"
        )
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise InputError(f"{checkpoint.source}: the tensor {name} is {tensors[name].shape} instead of {shape}")


def random_vocabulary(config: BertConfig | DecoderConfig, word_table: RandomTable, seed: int) -> Vocabulary:
    """Draws the head of an untrained model, like `random_params`, with a tied table."""
    size, transform = config.hidden_size, None
    if config.masked:
        kernel = np.float32(0.02) * np.random.default_rng((seed, 2)).standard_normal((size, size), np.float32)
        zeros = np.zeros(size, np.float32)
        transform = Transform(kernel, zeros, np.ones(size, np.float32), zeros, config.norm_eps)
    return Vocabulary(word_table, np.zeros(config.vocabulary_size, np.float32), transform, config.final_soft_cap)
