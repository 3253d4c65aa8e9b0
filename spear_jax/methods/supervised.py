"""Fits classifiers of single steps to the same labels as SPEAR, without a language model.

They read the same input, the bins of a window, as 18 statistics of the neighbourhood of each step, and the bins of
further views with their means over two neighbourhoods. Neighbourhoods end with the window, as what the model sees does,
so no information crosses a split.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from ml_collections import ConfigDict
from scipy.ndimage import maximum_filter1d, minimum_filter1d
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spear_jax.data import Dataset, Examples, StepScores, stitch_splits
from spear_jax.evaluation import RunRecord
from spear_jax.methods.implementations import ScoreFunction

REACHES = (2, 8, 32)  # steps to either side; the fourth neighbourhood is the whole window
VIEW_REACHES = (16, 64)
STATISTICS = 2 + 4 * (len(REACHES) + 1)
MAX_STEPS = 1 << 20  # to fit, 75 MB of statistics; if there are more, a sample is fitted
CHUNK_STEPS = 1 << 20  # steps whose statistics are in memory at a time while scoring


def start_supervised(config: ConfigDict, dataset: Dataset, record: RunRecord) -> ScoreFunction:
    """Returns a function that fits the config's classifier and scores every split."""
    classify = CLASSIFIERS[config.method]

    def score() -> dict[str, StepScores]:
        return stitch_splits(
            dataset, classify(dataset.training, dataset.examples, dataset.quantizer.bins, seed=config.seed)
        )

    return score


def statistics(bins: Int[np.ndarray, "windows time"], missing: int) -> Float[np.ndarray, "windows time statistics"]:
    """Computes the 18 features of each step, as fractions of the N bins; NaN where nothing was recorded.

    They are the step's value; its change since the previous step; and mean, standard deviation, minimum and maximum of
    the values up to 2, 8 and 32 steps to either side, and of the whole window. With equal-width bins these are scaled
    values, clipped as the model's are; with quantile bins, ranks.

    Args:
      bins: the bin of every step.
      missing: the bin of missing values and of padding, N.
    """
    recorded = bins != missing
    # Sums of integers are exact, so a constant stretch has a deviation of exactly 0; trees would split on rounding
    # errors.
    values = np.where(recorded, bins, 0).astype(np.int64)
    steps = bins.shape[1]
    features = np.full((*bins.shape, STATISTICS), np.nan, np.float32)
    features[..., 0] = np.where(recorded, values, np.nan)
    features[:, 1:, 1] = np.diff(features[..., 0], axis=1)
    for i, reach in enumerate((*REACHES, steps)):
        count = _sums(recorded, reach)
        at_least_one = np.maximum(count, 1)
        total, squares = _sums(values, reach), _sums(values**2, reach)
        size = min(2 * reach + 1, 2 * steps - 1)
        low = minimum_filter1d(np.where(recorded, values, missing), size, axis=1, mode="nearest")
        high = maximum_filter1d(np.where(recorded, values, -1), size, axis=1, mode="nearest")
        summary = (total / at_least_one, np.sqrt(count * squares - total**2) / at_least_one, low, high)
        for j, statistic in enumerate(summary):
            features[..., 2 + 4 * i + j] = np.where(count, statistic, np.nan)
    features /= missing
    return features


def view_statistics(views: Int[np.ndarray, "windows time views"], missing: int) -> Float[np.ndarray, "windows time _"]:
    """Computes three features of each further view of a step, as fractions of the N bins; NaN where nothing is known.

    They are its bin, and the means of the bins up to 16 and 64 steps to either side.
    """
    features = [np.zeros((*views.shape[:2], 0), np.float32)]
    for view in np.moveaxis(views, -1, 0):
        recorded = view != missing
        values = np.where(recorded, view, 0).astype(np.int64)
        means = [np.where(recorded, view, np.nan)]
        for reach in VIEW_REACHES:
            count = _sums(recorded, reach)
            means.append(np.where(count, _sums(values, reach) / np.maximum(count, 1), np.nan))
        features.append((np.stack(means, axis=-1) / missing).astype(np.float32))
    return np.concatenate(features, axis=-1)


def _features(examples: Examples, rows: slice, bins: int) -> Float[np.ndarray, "windows time features"]:
    own = statistics(examples.bins[rows], bins), view_statistics(examples.views[rows], bins)
    return np.concatenate(own, axis=-1)


def _sums(values: Shaped[np.ndarray, "windows time"], reach: int) -> Int[np.ndarray, "windows time"]:
    """Sums the values up to `reach` steps to either side, inside the window."""
    steps = values.shape[1]
    total = np.concatenate([np.zeros((len(values), 1), np.int64), np.cumsum(values, axis=1, dtype=np.int64)], axis=1)
    step = np.arange(steps)
    return total[:, np.minimum(step + reach + 1, steps)] - total[:, np.maximum(step - reach, 0)]


def logistic_regression(
    train: Examples, splits: Mapping[str, Examples], bins: int, *, seed: int
) -> dict[str, Float[np.ndarray, "_windows _time"]]:
    """Fits a logistic regression (L2, C = 1) to the standardized `statistics` of each step, see `_fit_and_score`."""
    model = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
    return _fit_and_score("logistic regression", model, train, splits, bins, seed)


def gradient_boosting(
    train: Examples, splits: Mapping[str, Examples], bins: int, *, seed: int
) -> dict[str, Float[np.ndarray, "_windows _time"]]:
    """Fits gradient-boosted trees (scikit-learn's, with its defaults) to the `statistics`, see `_fit_and_score`.

    All 100 trees are grown, since early stopping would evaluate them on neighbours of the fitted steps.
    """
    model = HistGradientBoostingClassifier(early_stopping=False, random_state=seed)
    return _fit_and_score("gradient boosting", model, train, splits, bins, seed)


CLASSIFIERS: dict[str, Callable[..., dict[str, Float[np.ndarray, "_windows _time"]]]] = {
    "logistic_regression": logistic_regression,
    "gradient_boosting": gradient_boosting,
}


def _fit_and_score(
    name: str, model: BaseEstimator, train: Examples, splits: Mapping[str, Examples], bins: int, seed: int
) -> dict[str, Float[np.ndarray, "_windows _time"]]:
    """Fits a classifier to the real steps of the training split, at most `MAX_STEPS` of them, and scores the splits.

    Returns:
      P(anomalous) per step by split; meaningless where `mask` is False. If training has one class only, every step gets
      the same score, with a warning.
    """
    chosen = _sample(train.mask, seed)
    targets = train.targets[chosen] > 0
    if targets.all() or not targets.any():
        warnings.warn(f"{name}: training has one class only, every step gets the same score", stacklevel=3)
        return {split: np.full(part.bins.shape, float(targets.any())) for split, part in splits.items()}
    # Missing features become means, with an indicator if training has any missing. Trees could do without, but fail on
    # a feature that is missing throughout training.
    pipeline = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), model)
    features = [_features(train, rows, bins)[chosen[rows]] for rows in _chunks(train)]
    pipeline.fit(np.concatenate(features), targets)

    def score(examples: Examples) -> Float[np.ndarray, "windows time"]:
        scores = np.zeros(examples.bins.shape)
        for rows in _chunks(examples):
            features = _features(examples, rows, bins)
            flat = features.reshape(-1, features.shape[-1])
            scores[rows] = pipeline.predict_proba(flat)[:, 1].reshape(scores[rows].shape)
        return scores

    return {split: score(examples) for split, examples in splits.items()}


def _sample(mask: Bool[np.ndarray, "windows time"], seed: int) -> Bool[np.ndarray, "windows time"]:
    """Returns a mask of all real steps, or of `MAX_STEPS` of them."""
    real = np.flatnonzero(mask)
    if len(real) <= MAX_STEPS:
        return mask
    chosen = np.zeros(mask.size, bool)
    chosen[np.random.default_rng(seed).choice(real, MAX_STEPS, replace=False)] = True
    return chosen.reshape(mask.shape)


def _chunks(examples: Examples) -> Iterator[slice]:
    """Yields rows of windows with about `CHUNK_STEPS` steps."""
    rows = max(CHUNK_STEPS // examples.bins.shape[1], 1)
    return (slice(begin, begin + rows) for begin in range(0, len(examples), rows))
