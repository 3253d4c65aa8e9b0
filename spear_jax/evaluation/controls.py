"""Cheap controls: what a result is worth that they reach too."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from spear_jax.data import SPLITS, Dataset, Examples, Series, StepScores, scores_by_split, stitch_splits

ZSCORE_STEPS = 64


def bin_lookup(train: Examples, bins: int, examples: Examples) -> Float[np.ndarray, "windows time"]:
    """P(anomaly | bin), counted on train: all that a step's own value can tell.

    Args:
      train: the training split.
      bins: N; the count for missing values stands behind.
      examples: the windows to score.

    Returns:
      A score per step. Counts are smoothed by one step at train's base rate, so an unseen bin gets that rate.
    """
    seen = train.bins[train.mask]
    total = np.bincount(seen, minlength=bins + 1)
    anomalous = np.bincount(seen, train.targets[train.mask], minlength=bins + 1)
    base_rate = anomalous.sum() / max(int(total.sum()), 1)
    return ((anomalous + base_rate) / (total + 1))[examples.bins]


def rolling_zscore(series: Series, steps: int) -> Float[np.ndarray, "time"]:
    """|x - mean| / standard deviation of the `steps` values before each step; NaN values are left out.

    The past of a series (`Series.reference`) comes before its first step where it has one.
    """
    past = series.reference[-steps:]
    values = np.concatenate([past, series.values]).astype(np.float64)
    known = np.isfinite(values)
    centre = np.median(values[known]) if known.any() else 0.0
    clean = np.where(known, values - centre, 0.0)

    def before(terms: np.ndarray) -> np.ndarray:
        total = np.concatenate([[0.0], np.cumsum(terms)])
        ends = np.arange(len(values))
        return total[ends] - total[np.maximum(ends - steps, 0)]

    seen = before(known.astype(float))
    count = np.maximum(seen, 1)
    mean = before(clean) / count
    variance = np.maximum(before(clean**2) / count - mean**2, 0)
    # A constant past makes any change infinitely unusual; a floor at the series' own scale keeps that finite.
    floor = 1e-3 * (clean[known].std() if known.any() else 0.0) + 1e-12
    score = np.abs(clean - mean) / np.maximum(np.sqrt(variance), floor)
    # Two values are the least that a deviation can be told from; before that, and where none was recorded, 0.
    return np.where(known & (seen > 1.5), score, 0.0)[len(past) :]


def rolling_zscores(recorded: Sequence[Series], steps: int) -> Float[np.ndarray, "all_steps"]:
    """Rolling z-scores of all series, one after the other."""
    return np.concatenate([rolling_zscore(one, steps) for one in recorded])


def _controls(
    config: ConfigDict, dataset: Dataset, steps: Mapping[str, StepScores]
) -> dict[str, dict[str, StepScores]]:
    """The controls that stand beside every method, for the same steps."""
    rng = np.random.default_rng((config.seed, 2))
    bins = dataset.quantizer.bins

    def scoring(score: Mapping[str, np.ndarray]) -> dict[str, StepScores]:
        return {split: dataclasses.replace(steps[split], score=score[split]) for split in SPLITS}

    return {
        "random_scores": scoring({split: rng.random(len(steps[split].score)) for split in SPLITS}),
        "always_normal": scoring({split: np.zeros(len(steps[split].score)) for split in SPLITS}),
        "bin_lookup": stitch_splits(
            dataset, {split: bin_lookup(dataset.training, bins, dataset.examples[split]) for split in SPLITS}
        ),
        "rolling_zscore": scores_by_split(dataset, rolling_zscores(dataset.recorded, ZSCORE_STEPS)),
    }
