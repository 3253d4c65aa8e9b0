"""Inspects a trained prompt: the words nearest to its vectors, and the attention paid to it."""

import dataclasses

import numpy as np
from jaxtyping import Float

from spear_jax.backbones import Backbone
from spear_jax.data import Dataset, Examples
from spear_jax.model.placed import PlacedModel

NEAREST = 5  # words per prompt vector
CHUNK_TOKENS = 4096  # rows of the word table in memory at a time
MAX_ATTENTION_BYTES = 1 << 30  # of attention weights; for longer windows they are not computed


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The findings about a trained prompt.

    Attributes:
      words: the nearest words of each prompt vector with their cosines; empty for a backbone with random weights, whose
        words are meaningless.
      window: row of the test window in `attention`.
      attention: softmax weights of this window's real steps on the prompt vectors, averaged over the heads; has no
        layers if the window is too long.
    """

    words: list[list[tuple[str, float]]]
    window: int
    attention: Float[np.ndarray, "layers time prompt"]


def inspect_prompt(model: PlacedModel, backbone: Backbone | None, dataset: Dataset) -> Inspection | None:
    """Inspects a prompt, the first one of several, if the model has one; every process must call it."""
    model = model.member(0)
    parts = {**model.frozen, **model.trainable}
    if backbone is None or "prompt" not in parts:
        return None
    windows, row = dataset.windows["test"], _choose_window(dataset)
    attention = attention_to_prompt(model, dataset.examples["test"], row)
    return Inspection(
        words=nearest_words(backbone, np.asarray(parts["prompt"]["vectors"])) if backbone.pretrained else [],
        window=row,
        attention=attention[:, windows.real[row, : attention.shape[1]]],
    )


def _choose_window(dataset: Dataset) -> int:
    """Returns the row of the test window whose share of anomalous steps is nearest to 25%, to show both classes."""
    windows = dataset.windows["test"]
    share = (windows.labels & windows.real).sum(axis=1) / windows.lengths
    return int(np.argmin(np.where(share > 0, np.abs(share - 0.25), np.inf)))


def nearest_words(backbone: Backbone, vectors: Float[np.ndarray, "prompt hidden"]) -> list[list[tuple[str, float]]]:
    """Finds the `NEAREST` words whose embeddings have the largest cosines with each vector, with these."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = np.full((len(vectors), 0), 0.0)
    ids = np.full((len(vectors), 0), 0)
    for start in range(0, backbone.vocabulary_size, CHUNK_TOKENS):
        rows: np.ndarray = np.asarray(backbone.word_table[start : start + CHUNK_TOKENS], np.float32)
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)  # some reserved rows are 0
        row_ids = np.broadcast_to(start + np.arange(len(rows)), (len(vectors), len(rows)))
        cosines, ids = np.hstack([cosines, unit @ rows.T]), np.hstack([ids, row_ids])
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :NEAREST]
        cosines, ids = np.take_along_axis(cosines, best, axis=1), np.take_along_axis(ids, best, axis=1)
    return [
        [(backbone.spelling(int(id_)), float(cosine)) for id_, cosine in zip(*nearest, strict=True)]
        for nearest in zip(ids, cosines, strict=True)
    ]


def attention_to_prompt(model: PlacedModel, examples: Examples, row: int) -> Float[np.ndarray, "layers time prompt"]:
    """Returns the attention that each time step of a window pays to each prompt vector, in each layer.

    Returns:
      Softmax weights, averaged over the heads; no layers if the weights between all positions take more than
      `MAX_ATTENTION_BYTES`.
    """
    module = model.module
    steps, m, layers = int(examples.lengths[row]), module.prompt_length, module.backbone.config.layers
    time = steps // module.patch
    first = int(module.prompt_position == "after_cls")  # position of the prompt
    if 4 * layers * (time + m + first) ** 2 > MAX_ATTENTION_BYTES:
        return np.zeros((0, steps, m), np.float32)
    weights = model.attention(examples, row)
    if module.prompt_position == "suffix":
        weights = weights[:, :time, time:]
    else:
        weights = weights[:, first + m :, first : first + m]
    return np.repeat(weights, module.patch, axis=1)
