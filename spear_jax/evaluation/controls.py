"""Scores cheap controls, which a method has to beat to be of use."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from spear_jax.config import view_names
from spear_jax.data import SPLITS, VIEWS, Dataset, Examples, Series, StepScores, scores_by_split, stitch_splits

ZSCORE_STEPS = 64


def bin_lookup(train: Examples, bins: int, examples: Examples) -> Float[np.ndarray, "windows time"]:
    """Scores each step by P(anomaly | bin), estimated on train: all the information in the value of a single step.

    Returns:
      A score per step. Counts are smoothed by one step at the base rate of train, so unseen bins score the base rate.
    """
    train_bins = train.bins[train.mask]
    total = np.bincount(train_bins, minlength=bins + 1)
    anomalous = np.bincount(train_bins, train.targets[train.mask], minlength=bins + 1)
    base_rate = anomalous.sum() / max(int(total.sum()), 1)
    return ((anomalous + base_rate) / (total + 1))[examples.bins]


def rolling_zscore(series: Series, steps: int) -> Float[np.ndarray, "time"]:
    """Returns |x - mean| / standard deviation of the `steps` values before each step, NaN values left out.

    A series' own past (`Series.reference`), if it has one, precedes its first step.
    """
    past = series.reference[-steps:]
    values = np.concatenate([past, series.values]).astype(np.float64)
    finite = np.isfinite(values)
    centre = np.median(values[finite]) if finite.any() else 0.0
    centred = np.where(finite, values - centre, 0.0)

    def sum_before(terms: Float[np.ndarray, "steps"]) -> Float[np.ndarray, "steps"]:
        total = np.concatenate([[0.0], np.cumsum(terms)])
        ends = np.arange(len(values))
        return total[ends] - total[np.maximum(ends - steps, 0)]

    recorded = sum_before(finite.astype(float))
    count = np.maximum(recorded, 1)
    mean = sum_before(centred) / count
    variance = np.maximum(sum_before(centred**2) / count - mean**2, 0)
    # After a constant past, any change would score infinity; a floor relative to the series' scale keeps it finite.
    floor = 1e-3 * (centred[finite].std() if finite.any() else 0.0) + 1e-12
    score = np.abs(centred - mean) / np.maximum(np.sqrt(variance), floor)
    # A standard deviation needs two values; a step with fewer before it, or without a value, scores 0.
    return np.where(finite & (recorded > 1.5), score, 0.0)[len(past) :]


def score_controls(
    config: ConfigDict, dataset: Dataset, steps: Mapping[str, StepScores]
) -> dict[str, dict[str, StepScores]]:
    """Scores the controls that need no model by control and split, at the steps of given scores."""
    rng = np.random.default_rng((config.seed, 2))
    bins = dataset.quantizer.bins

    def with_scores(scores: Mapping[str, Float[np.ndarray, "_steps"]]) -> dict[str, StepScores]:
        return {split: dataclasses.replace(steps[split], score=scores[split]) for split in SPLITS}

    views = {
        f"view_{name}": stitch_splits(
            dataset, {split: np.nan_to_num(dataset.views[split][..., i], nan=VIEWS[name].low) for split in SPLITS}
        )
        for i, name in enumerate(view_names(config)[1:])
    }
    return {
        "random_scores": with_scores({split: rng.random(len(steps[split].score)) for split in SPLITS}),
        "always_normal": with_scores({split: np.zeros(len(steps[split].score)) for split in SPLITS}),
        "bin_lookup": stitch_splits(
            dataset, {split: bin_lookup(dataset.training, bins, dataset.examples[split]) for split in SPLITS}
        ),
        "rolling_zscore": scores_by_split(
            dataset, np.concatenate([rolling_zscore(series, ZSCORE_STEPS) for series in dataset.recorded])
        ),
        **views,
    }
