"""Fits heads to hidden states that do not change.

A logistic regression, solved to its optimum, has two uses: `head.init='fitted'` starts training from it (linear
probing, then tuning: Kumar et al. 2022, arXiv 2202.10054), and without a prompt it is the control 'head only'. When the
head alone is trained step by step, its inputs are computed once, not in every epoch.
"""

import dataclasses
from collections.abc import Iterable

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from sklearn.linear_model import LogisticRegression

from spear_jax.data import Dataset, Examples
from spear_jax.model.placed import BatchFeatures, PlacedModel

MAX_STATE_BYTES = 1 << 30  # of hidden states in memory; if there are more, a sample of the steps is fitted


class Probe(nn.Module):
    """The head of a model, applied to precomputed hidden states."""

    hidden: int
    head_kind: str = "step"

    def setup(self) -> None:  # noqa: D102
        self.head = nn.Dense(1)

    def __call__(
        self, states: Float[Array, "batch time hidden"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time"]:
        """Returns a logit per step."""
        return self.head(self.features(states, mask))[..., 0]

    def features(
        self, states: Float[Array, "batch time hidden"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time hidden"]:
        """Returns the states unchanged, since they are the inputs of the head."""
        return states


@dataclasses.dataclass(frozen=True)
class StateExamples(Examples):
    """Windows with precomputed hidden states, which are the inputs of a `Probe`; meaningless in padding."""

    states: Float[np.ndarray, "windows time hidden"]

    def take(self, rows: Int[np.ndarray, "*batch"], length: int) -> dict[str, np.ndarray]:
        """Returns the first `length` steps of some windows, see `Examples.take`."""
        return {**super().take(rows, length), "inputs": self.states[rows, :length]}


def precompute_states(model: PlacedModel, dataset: Dataset) -> tuple[PlacedModel, Dataset]:
    """Computes the hidden states once, if training never changes them.

    Returns:
      A `Probe` with the same trainable tree and nothing frozen, and a dataset whose training and validation windows
      are `StateExamples`; or model and dataset unchanged, if more than one step head is trained or the states take more
      than `MAX_STATE_BYTES`.
    """
    if set(model.trainable) != {"head"} or model.module.head_kind != "step" or model.members > 1:
        return model, dataset
    splits = {"training": dataset.training, "validation": dataset.examples["validation"]}
    hidden = model.module.hidden
    if 4 * hidden * sum(examples.bins.size for examples in splits.values()) > MAX_STATE_BYTES:
        return model, dataset
    for name, examples in splits.items():
        states = np.zeros((*examples.bins.shape, hidden), np.float32)
        for rows, batch_states in model.features(examples, f"hidden states, {name}"):
            states[rows, : batch_states.shape[1]] = batch_states
        splits[name] = StateExamples(**vars(examples), states=states)
    dataset = dataclasses.replace(
        dataset,
        training=splits["training"],
        examples={**dataset.examples, "validation": splits["validation"]},
    )
    return dataclasses.replace(model, module=Probe(hidden), frozen={}), dataset


def fit_heads(model: PlacedModel, examples: Examples, *, positive_weight: float, seed: int) -> dict[str, np.ndarray]:
    """Fits the head of each member, see `fit_head`; several have a leading axis."""
    heads = [
        fit_head(model.member(number), examples, positive_weight=positive_weight, seed=seed)
        for number in range(model.members)
    ]
    return heads[0] if len(heads) == 1 else {name: np.stack([head[name] for head in heads]) for name in heads[0]}


def fit_head(
    model: PlacedModel,
    examples: Examples,
    *,
    positive_weight: float,
    seed: int,
    features: Iterable[BatchFeatures] | None = None,
) -> dict[str, np.ndarray]:
    """Fits the head of a single member to its hidden states on the training split; steps weigh as in training.

    `features` are those of the examples, if already computed; `seed` draws a sample of steps if not all fit into
    `MAX_STATE_BYTES`.

    Returns:
      The head's {'kernel', 'bias'}; if the split has one class only, zeros and a bias that always predicts it.
    """
    hidden = model.module.hidden
    per_window = model.module.head_kind == "window"
    chosen = np.ones((len(examples), 1), bool) if per_window else examples.mask
    room = MAX_STATE_BYTES / (8 * hidden)
    if chosen.sum() > room:
        chosen = chosen & (np.random.default_rng(seed).random(chosen.shape) < room / chosen.sum())
    anomalous = examples.targets[:, : chosen.shape[1]] > 0
    if anomalous[chosen].all() or not anomalous[chosen].any():
        bias = np.full(1, 10.0 if anomalous[chosen].all() else -10.0, np.float32)
        return {"kernel": np.zeros((hidden, 1), np.float32), "bias": bias}
    # In float64: hidden states are so correlated that their covariance is numerically singular in float32.
    states, targets = [], []
    for rows, batch_states in features or model.features(examples, "fitting the head"):
        mask = chosen[rows, : batch_states.shape[1]]
        states.append(batch_states[mask])
        targets.append(anomalous[rows, : batch_states.shape[1]][mask])
    x, y = np.concatenate(states).astype(np.float64), np.concatenate(targets)
    # Newton's method converges to the optimum itself, so that results do not depend on the number of devices.
    weights = {True: positive_weight, False: 1.0}
    regression = LogisticRegression(solver="newton-cholesky", class_weight=weights, tol=1e-8).fit(x, y)
    return {"kernel": regression.coef_.T.astype(np.float32), "bias": regression.intercept_.astype(np.float32)}
