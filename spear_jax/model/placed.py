"""Holds a model on its devices: windows in, scores or hidden states out."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict
from tqdm import tqdm

from spear_jax import parallel
from spear_jax.backbones import check_finite
from spear_jax.data import Examples, scoring_batches
from spear_jax.errors import InputError
from spear_jax.model.members import average_logits, count_members, member_of
from spear_jax.model.spear import Params, merge


class NotFiniteError(InputError):
    """The model gives scores that are not numbers, although its parameters are."""


Compute = Callable[[Any, Params, Params, dict[str, Array]], Array]
BatchFeatures = tuple[Int[np.ndarray, "_"], Float[np.ndarray, "_ _ hidden"]]
"""Rows of a batch and, for each, a hidden state per time step or a single pooled one; batches differ in length."""


@dataclasses.dataclass(frozen=True)
class PlacedModel:
    """A model and its parameters, on all devices: the same on each, but for a frozen backbone that is divided.

    Attributes:
      module: maps the inputs and the mask of a batch to logits.
      trainable: {'prompt', 'head'}, and 'embedding' if `embedding.kind='trained'`; for a baseline, its own parts. Each
        array has a leading axis if there are several members (`prompt.members`).
      frozen: {'backbone', 'embedding'}, 'cls' if the prompt follows it, and the prompt if `train.parts='head'`;
        never differentiated, never optimized.
      mesh: the devices.
      batch_size: windows scored at a time, over all devices.
      matmul_precision: precision of matrix products in training and scoring; see `backbone.matmul_precision`.
      embedding: describes the origin of the bins' vectors for reports; empty for a model without a backbone.
    """

    module: Any
    trainable: Params = dataclasses.field(repr=False)
    frozen: Params = dataclasses.field(repr=False)
    mesh: Mesh
    batch_size: int
    matmul_precision: str = "default"
    embedding: dict[str, object] = dataclasses.field(default_factory=dict)

    @classmethod
    def place(
        cls,
        config: ConfigDict,
        module: nn.Module,
        trainable: Params,
        frozen: Params,
        embedding: dict[str, object] | None = None,
    ) -> "PlacedModel":
        """Puts a model on all devices.

        Raises:
          InputError: a parameter is NaN or infinite.
        """
        mesh = parallel.make_mesh(config.backbone.shards)
        _check_finite((trainable, frozen))
        trainable = parallel.place(trainable, parallel.replicated(mesh))
        frozen = parallel.place_frozen(frozen, mesh)
        precision = config.backbone.matmul_precision
        return cls(module, trainable, frozen, mesh, config.score.batch_size, precision, embedding or {})

    def with_parts(self, parts: Params) -> "PlacedModel":
        """Returns the model with some parts replaced, each in the tree that contains it.

        A part that is in both trees (with LoRA, the backbone) is replaced in the trainable one.

        Raises:
          InputError: a parameter is NaN or infinite.
        """
        _check_finite(parts)
        placed = parallel.place(parts, parallel.replicated(self.mesh))
        return dataclasses.replace(
            self,
            trainable={**self.trainable, **{name: placed[name] for name in placed if name in self.trainable}},
            frozen={**self.frozen, **{name: placed[name] for name in placed if name not in self.trainable}},
        )

    def with_batch_size(self, batch_size: int) -> "PlacedModel":
        """Returns the model that scores `batch_size` windows at a time."""
        return dataclasses.replace(self, batch_size=batch_size)

    def without_prompt(self) -> "PlacedModel":
        """Returns the model without its prompt (m = 0) and with all its parameters frozen."""
        module, first = self.module.clone(prompt_length=0), self.member(0)
        parts = parallel.place(first.trainable, parallel.replicated(self.mesh))
        return dataclasses.replace(first, module=module, trainable={}, frozen={**first.frozen, **parts})

    def embedding_on_host(self) -> "PlacedModel":
        """Returns the model with nothing trainable but the bin embeddings, if they are, copied to the host.

        This is all that is needed of an untrained model after training, which frees the parameters it starts from.
        """
        first = self.member(0)
        parts = {name: part for name, part in first.trainable.items() if name == "embedding"}
        return dataclasses.replace(first, trainable=jax.tree.map(np.array, parts))

    @property
    def members(self) -> int:
        """Returns how many prompts and heads there are, whose logits are averaged."""
        return count_members(self.trainable)

    def member(self, number: int) -> "PlacedModel":
        """Returns the model with the prompt and head of one member."""
        trainable, frozen = member_of(number, self.trainable, self.frozen)
        return dataclasses.replace(self, trainable=trainable, frozen=frozen)

    def score(self, examples: Examples, progress: str = "") -> Float[np.ndarray, "windows time"]:
        """Returns P(anomalous) for every time step of every window; scores of padding are meaningless.

        `progress` is the label of a progress bar, if there is to be one.

        Raises:
          NotFiniteError: a score is NaN.
          InputError: see `parallel.check_not_forked`.
        """
        parallel.check_not_forked()
        scores = np.zeros(examples.mask.shape, np.float32)
        for rows, batch_scores in self._map(score_batch, examples, progress):
            scores[rows, : batch_scores.shape[1]] = batch_scores
        if np.isnan(scores).any():
            raise NotFiniteError(
                f"the model's scores are NaN in {np.isnan(scores).any(axis=1).sum():,} of {len(scores):,} windows; try"
                " config.backbone.dtype=float32"
            )
        return scores

    def features(self, examples: Examples, progress: str = "") -> Iterator[BatchFeatures]:
        """Yields the inputs of a single member's head by batch, longest windows first; for `progress`, see `score`.

        Yields:
          Rows of `examples`, and for each a hidden state per time step or a single pooled one.
        """
        return self._map(_features, examples, progress)

    def attention(self, examples: Examples, row: int) -> Float[np.ndarray, "layers queries keys"]:
        """Returns a single member's attention weights of one window, between all positions, averaged over the heads."""
        batch = parallel.place(
            examples.take(np.array([row]), int(examples.lengths[row])), parallel.replicated(self.mesh)
        )
        plain = dataclasses.replace(self, module=self.module.clone(plain=True))  # all layers at all positions
        return np.asarray(plain._run(_attention, batch))

    def description(self) -> dict[str, Any]:
        """Returns the sections of results.json about the model's parameters."""
        return {
            "trained": sorted(self.trainable),
            "embedding": self.embedding,
            "parameters": {
                "trainable": count_parameters(self.trainable),
                "frozen": count_parameters(self.frozen),
                "prompt_bytes": 4 * count_parameters(self.trainable.get("prompt", {})),
            },
        }

    def _run(self, compute: Compute, batch: dict[str, Array]) -> Array:
        with jax.default_matmul_precision(self.matmul_precision), parallel.gathering(self.mesh):
            return apply_batch(compute, self.module, self.trainable, self.frozen, batch, parallel.replicated(self.mesh))

    def _map(
        self, compute: Compute, examples: Examples, progress: str
    ) -> Iterator[tuple[Int[np.ndarray, "_"], Float[np.ndarray, "_ ..."]]]:
        """Yields the rows of each batch and what `compute` returns for them.

        Results are fetched one batch late, so that the devices never wait for the host.
        """
        waiting: tuple[np.ndarray, Array] | None = None
        batches = scoring_batches(examples.lengths, self.batch_size)
        disable = parallel.no_bar() if progress else True
        for rows, length in tqdm(batches, desc=progress, unit="batch", disable=disable, leave=False):
            batch = parallel.shard_batch(examples.take(rows, length), self.mesh, axis=0)
            computed = self._run(compute, batch)
            if waiting is not None:
                yield _fetch(*waiting)
            waiting = rows, computed
        if waiting is not None:
            yield _fetch(*waiting)


def _check_finite(tree: Any) -> None:
    """Checks that the parameters that come from the host are finite."""
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, np.ndarray):
            check_finite(".".join(key.key for key in keys if isinstance(key, jax.tree_util.DictKey)), leaf)


def _fetch(rows: Int[np.ndarray, "batch"], computed: Array) -> tuple[np.ndarray, np.ndarray]:
    real = rows >= 0
    return rows[real], np.asarray(computed)[: len(rows)][real]


@functools.partial(jax.jit, static_argnames=("compute", "module", "gathered"))
def apply_batch(
    compute: Compute, module: nn.Module, trainable: Any, frozen: Any, batch: dict[str, Array], gathered: NamedSharding
) -> Array:
    """Computes something of a batch that is divided over the devices; every device gets the whole result."""
    return jax.lax.with_sharding_constraint(compute(module, trainable, frozen, batch), gathered)


def score_batch(module: Any, trainable: Params, frozen: Params, batch: dict[str, Array]) -> Float[Array, "batch time"]:
    """Computes P(anomalous) for every time step of a batch."""
    return jax.nn.sigmoid(average_logits(module, trainable, frozen, batch))


def _features(
    module: Any, trainable: Params, frozen: Params, batch: dict[str, Array]
) -> Float[Array, "batch reads hidden"]:
    return module.apply(merge(trainable, frozen), batch["inputs"], batch["mask"], method="features")


def _attention(
    module: Any, trainable: Params, frozen: Params, batch: dict[str, Array]
) -> Float[Array, "layers queries keys"]:
    _, stored = module.apply(merge(trainable, frozen), batch["inputs"], batch["mask"], mutable="intermediates")
    backbone = stored["intermediates"]["backbone"]
    weights = [backbone["last_layer"]["attention"][0]]
    if "layers" in backbone:
        weights.insert(0, backbone["layers"]["attention"][0][:, 0])
    return jnp.concatenate(weights)


def count_parameters(tree: Params) -> int:
    """Returns the number of scalars in a tree of parameters."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(tree))
