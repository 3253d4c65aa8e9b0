"""A head fitted to hidden states that do not change: a logistic regression, solved to its optimum.

Two uses: `head.init='fitted'` starts training from it (linear probing, then tuning: Kumar et al. 2022, arXiv
2202.10054), and without a prompt it is the control 'head only'. And where the head alone is trained step by step, the
hidden states that it reads are computed once, not in every epoch.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression

from spear_jax.data import Dataset, Examples
from spear_jax.model.assemble import Assembled
from spear_jax.model.placed import Probe, features
from spear_jax.model.spear import Params, Spear

MAX_BYTES = 1 << 30  # of hidden states in memory; where there are more, a sample of the steps is fitted


def states_once(
    model: Assembled, dataset: Dataset, frozen: Params, *, batch_size: int, mesh: Mesh
) -> tuple[Assembled, Dataset, Params]:
    """What `training.fit` is given, where hidden states do not change while it runs.

    Args:
      model: what is trained.
      dataset: on what.
      frozen: the model's frozen tree, on the devices.
      batch_size: windows at a time.
      mesh: the devices.

    Returns:
      A `Probe` with the same trainable tree, windows of hidden states in place of bins, and nothing frozen; or model,
      data and tree as they are, where more than a step head is trained or the states take more than `MAX_BYTES`.
    """
    splits = {"training": dataset.training, "validation": dataset.examples["validation"]}
    size = 4 * model.spear.hidden * sum(one.bins.size for one in splits.values()) if "head" in model.trainable else 0
    if set(model.trainable) != {"head"} or model.spear.head_kind != "step" or size > MAX_BYTES:
        return model, dataset, frozen
    for name, examples in splits.items():
        states = np.zeros((*examples.bins.shape, model.spear.hidden), np.float32)
        said = f"hidden states, {name}"
        batches = features(
            model.spear, model.trainable, frozen, examples, batch_size=batch_size, mesh=mesh, progress=said
        )
        for rows, read in batches:
            states[rows, : read.shape[1]] = read
        splits[name] = dataclasses.replace(examples, bins=states)
    read_once = dataclasses.replace(
        dataset,
        training=splits["training"],
        examples={**dataset.examples, "validation": splits["validation"]},
    )
    return dataclasses.replace(model, spear=Probe(model.spear.hidden)), read_once, {}


def fit_head(
    batches: Iterable[tuple[Int[np.ndarray, "batch"], Float[np.ndarray, "batch asked hidden"]]],
    train: Examples,
    *,
    spear: Spear | Probe,
    positive_weight: float,
    seed: int,
) -> dict[str, np.ndarray]:
    """Fits the head to what it reads of the training split.

    Args:
      batches: from `features` of `train`.
      train: the training split.
      spear: the model that they come from.
      positive_weight: of anomalous steps, as in training.
      seed: of the sample of steps, where not all fit into `MAX_BYTES`.

    Returns:
      The head's {'kernel', 'bias'}; zeros and a bias that says so where the split has one class only.
    """
    per_window = spear.head_kind == "window"
    asked = np.ones((len(train), 1), bool) if per_window else train.mask
    room = MAX_BYTES / (8 * spear.hidden)
    if asked.sum() > room:
        asked = asked & (np.random.default_rng(seed).random(asked.shape) < room / asked.sum())
    anomalous = train.targets[:, : asked.shape[1]] > 0
    if anomalous[asked].all() or not anomalous[asked].any():
        bias = np.full(1, 10.0 if anomalous[asked].all() else -10.0, np.float32)
        return {"kernel": np.zeros((spear.hidden, 1), np.float32), "bias": bias}
    # In float64: hidden states are so correlated that float32 cannot tell their covariance from a singular one.
    states, targets = [], []
    for rows, read in batches:
        chosen = asked[rows, : read.shape[1]]
        states.append(read[chosen])
        targets.append(anomalous[rows, : read.shape[1]][chosen])
    x, y = np.concatenate(states).astype(np.float64), np.concatenate(targets)
    # Newton's method ends at the optimum itself, so that two device counts agree.
    weights = {True: positive_weight, False: 1.0}
    regression = LogisticRegression(solver="newton-cholesky", class_weight=weights, tol=1e-8).fit(x, y)
    return {"kernel": regression.coef_.T.astype(np.float32), "bias": regression.intercept_.astype(np.float32)}
