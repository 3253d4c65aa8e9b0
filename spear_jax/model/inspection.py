"""What became of a prompt: the words that its vectors lie near, and how much the steps look at it."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float

from spear_jax import parallel
from spear_jax.backbones import Backbone
from spear_jax.data import Dataset
from spear_jax.model.assemble import Assembled
from spear_jax.model.spear import Params, Spear, merge

NEAREST = 5  # words of each vector


CHUNK = 4096  # rows of the word table in memory at a time


MAX_BYTES = 1 << 30  # of attention weights; longer windows are not looked into


@dataclasses.dataclass(frozen=True)
class Inspection:
    """A trained prompt.

    Attributes:
      words: the nearest words of each prompt vector with their cosines; empty where the backbone's weights are random,
        for its words mean nothing.
      window: the row of the test window that was looked into.
      attention: softmax weights, averaged over heads, of this window's real steps on the prompt's vectors; no layers
        where the window is too long.
    """

    words: list[list[tuple[str, float]]]
    window: int
    attention: Float[np.ndarray, "layers time prompt"]


def inspect(
    model: Assembled, trainable: Params, frozen: Params, backbone: Backbone | None, dataset: Dataset, mesh: Mesh
) -> Inspection | None:
    """Looks at a prompt; every process must call it.

    Args:
      model: assembled around the backbone.
      trainable: its trained parameters, on the devices.
      frozen: its frozen ones, on the devices.
      backbone: None for a model without one.
      dataset: the test part is looked into.
      mesh: the devices.

    Returns:
      None where the model has no prompt.
    """
    parts = {**frozen, **trainable}
    if backbone is None or "prompt" not in parts:
        return None
    windows, row = dataset.windows["test"], _window(dataset)
    examples = dataset.examples["test"]
    batch = examples.take(np.array([row]), int(examples.lengths[row]))
    found = attention_to_prompt(model.spear, trainable, frozen, batch, mesh)
    return Inspection(
        words=nearest_words(backbone, np.asarray(parts["prompt"]["vectors"])) if backbone.pretrained else [],
        window=row,
        attention=found[:, windows.real[row, : found.shape[1]]],
    )


def _window(dataset: Dataset) -> int:
    """The anomalous test window of which about a quarter is anomalous, so that both classes can be seen."""
    windows = dataset.windows["test"]
    share = (windows.labels & windows.real).sum(axis=1) / windows.lengths
    return int(np.argmin(np.where(share > 0, np.abs(share - 0.25), np.inf)))


def nearest_words(backbone: Backbone, vectors: Float[np.ndarray, "prompt hidden"]) -> list[list[tuple[str, float]]]:
    """The words whose embeddings have the largest cosine with each vector, largest first.

    Args:
      backbone: whose vocabulary is searched, a chunk of its table at a time.
      vectors: in the space of its word embeddings.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = np.full((len(vectors), 0), 0.0)
    ids = np.full((len(vectors), 0), 0)
    for start in range(0, backbone.vocabulary_size, CHUNK):
        rows = np.asarray(backbone.word_table[start : start + CHUNK], np.float32)
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)  # some reserved rows are 0
        numbers = np.broadcast_to(start + np.arange(len(rows)), (len(vectors), len(rows)))
        cosines, ids = np.hstack([cosines, unit @ rows.T]), np.hstack([ids, numbers])
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :NEAREST]
        cosines, ids = np.take_along_axis(cosines, best, axis=1), np.take_along_axis(ids, best, axis=1)
    return [
        [(backbone.spelling(number), float(cosine)) for number, cosine in zip(*of_vector, strict=True)]
        for of_vector in zip(ids, cosines, strict=True)
    ]


def attention_to_prompt(
    spear: Spear, trainable: Params, frozen: Params, batch: dict[str, np.ndarray], mesh: Mesh
) -> Float[np.ndarray, "layers time prompt"]:
    """How much each step of a window looks at each vector of the prompt, in each layer.

    Args:
      spear: a model with a prompt.
      trainable: its trained parameters, on the devices.
      frozen: its frozen ones, on the devices.
      batch: 'bins' and 'mask' of one window.
      mesh: the devices.

    Returns:
      Softmax weights, averaged over the heads; no layers where those of all positions take more than `MAX_BYTES`.
    """
    time, m, layers = batch["bins"].shape[1], spear.prompt_length, spear.backbone.config.layers
    in_front = int(spear.prompt_position == "after_cls")
    if 4 * layers * (time + m + in_front) ** 2 > MAX_BYTES:
        return np.zeros((0, time, m), np.float32)
    everywhere = parallel.replicated(mesh)
    # Without the savings, so that all layers have all positions.
    weights = np.asarray(
        _attention(spear.clone(plain=True), trainable, frozen, parallel.place(batch, everywhere), everywhere)
    )
    if spear.prompt_position == "suffix":
        return weights[:, :time, time:]
    return weights[:, in_front + m :, in_front : in_front + m]


@functools.partial(jax.jit, static_argnames=("spear", "gathered"))
def _attention(
    spear: Spear, trainable: Any, frozen: Any, batch: dict[str, Array], gathered: NamedSharding
) -> Float[Array, "layers queries keys"]:
    parameters = merge(trainable, frozen)
    _, kept = spear.apply(parameters, batch["bins"], batch["mask"], mutable="intermediates")
    of_backbone = kept["intermediates"]["backbone"]
    found = [of_backbone["last_layer"]["attention"][0]]
    if "layers" in of_backbone:
        found.insert(0, of_backbone["layers"]["attention"][0][:, 0])
    return jax.lax.with_sharding_constraint(jnp.concatenate(found), gathered)
