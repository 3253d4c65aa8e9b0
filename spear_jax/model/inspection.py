"""What became of a prompt: the words that its vectors lie near, and how much the steps look at it."""

import dataclasses

import numpy as np
from jaxtyping import Float

from spear_jax.backbones import Backbone
from spear_jax.data import Dataset, Examples
from spear_jax.model.placed import PlacedModel

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


def inspect(model: PlacedModel, backbone: Backbone | None, dataset: Dataset) -> Inspection | None:
    """Inspects a prompt; every process must call it.

    Args:
      model: with a trained prompt.
      backbone: None for a model without one.
      dataset: whose test part is inspected.

    Returns:
      None for a model without a prompt.
    """
    parts = {**model.frozen, **model.trainable}
    if backbone is None or "prompt" not in parts:
        return None
    windows, row = dataset.windows["test"], _window(dataset)
    attention = attention_to_prompt(model, dataset.examples["test"], row)
    return Inspection(
        words=nearest_words(backbone, np.asarray(parts["prompt"]["vectors"])) if backbone.pretrained else [],
        window=row,
        attention=attention[:, windows.real[row, : attention.shape[1]]],
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


def attention_to_prompt(model: PlacedModel, examples: Examples, row: int) -> Float[np.ndarray, "layers time prompt"]:
    """Returns the attention that each time step of a window pays to each prompt vector, in each layer.

    Args:
      model: with a prompt.
      examples: the windows.
      row: of the window.

    Returns:
      Softmax weights, averaged over the heads; no layers where those of all positions take more than `MAX_BYTES`.
    """
    time, m, layers = int(examples.lengths[row]), model.module.prompt_length, model.module.backbone.config.layers
    before_prompt = int(model.module.prompt_position == "after_cls")
    if 4 * layers * (time + m + before_prompt) ** 2 > MAX_BYTES:
        return np.zeros((0, time, m), np.float32)
    weights = model.attention(examples, row)
    if model.module.prompt_position == "suffix":
        return weights[:, :time, time:]
    return weights[:, before_prompt + m :, before_prompt : before_prompt + m]
