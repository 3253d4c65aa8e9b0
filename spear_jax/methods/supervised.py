"""Classifiers of single steps, fitted to the labels that the model is trained on: what needs no language model.

They read what the model reads, the bins of a window, as 18 statistics of the surroundings of each step. A step's
surroundings end where its window does, and so does what the model sees: nothing crosses the border of a split.
"""

import warnings
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import maximum_filter1d, minimum_filter1d
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spear_jax.data import Examples

REACHES = (2, 8, 32)  # steps to either side; the fourth surroundings are the whole window


STATISTICS = 2 + 4 * (len(REACHES) + 1)


MOST_STEPS = 1 << 20  # fitted at most, 75 MB of statistics; where there are more, a sample of the steps is


CHUNK = 1 << 20  # steps whose statistics are in memory while they are scored


def statistics(bins: Int[np.ndarray, "windows time"], missing: int) -> Float[np.ndarray, "windows time statistics"]:
    """What the classifiers read of each step: 18 numbers, in shares of the N bins.

    With equal-width bins these are scaled values, cut off where the model's are; with quantile bins, ranks.
    The step's value; its change since the step before; and mean, standard deviation, minimum and maximum of the
    values up to 2, 8 and 32 steps to either side, and of the whole window.

    Args:
      bins: of every step.
      missing: the bin of what was not recorded, also in padding; the highest of all, so the number of the others.

    Returns:
      The statistics of the recorded values; NaN where there is none.
    """
    known = bins != missing
    # Sums of whole numbers are exact: a constant stretch has a deviation of 0, not one of rounding errors that a tree
    # could split at.
    values = np.where(known, bins, 0).astype(np.int64)
    steps = bins.shape[1]
    found = np.full((*bins.shape, STATISTICS), np.nan, np.float32)
    found[..., 0] = np.where(known, values, np.nan)
    found[:, 1:, 1] = np.diff(found[..., 0], axis=1)
    for i, reach in enumerate((*REACHES, steps)):
        count = _sums(known, reach)
        at_least_one = np.maximum(count, 1)
        total, squares = _sums(values, reach), _sums(values**2, reach)
        size = min(2 * reach + 1, 2 * steps - 1)
        low = minimum_filter1d(np.where(known, values, missing), size, axis=1, mode="nearest")
        high = maximum_filter1d(np.where(known, values, -1), size, axis=1, mode="nearest")
        of_surroundings = (total / at_least_one, np.sqrt(count * squares - total**2) / at_least_one, low, high)
        for j, statistic in enumerate(of_surroundings):
            found[..., 2 + 4 * i + j] = np.where(count, statistic, np.nan)
    found /= missing
    return found


def _sums(values: np.ndarray, reach: int) -> Int[np.ndarray, "windows time"]:
    """Sums over the steps up to `reach` to either side, inside the window."""
    steps = values.shape[1]
    total = np.concatenate([np.zeros((len(values), 1), np.int64), np.cumsum(values, axis=1, dtype=np.int64)], axis=1)
    at = np.arange(steps)
    return total[:, np.minimum(at + reach + 1, steps)] - total[:, np.maximum(at - reach, 0)]


def logistic_regression(
    train: Examples, splits: Mapping[str, Examples], bins: int, *, seed: int
) -> dict[str, Float[np.ndarray, "windows time"]]:
    """A logistic regression (L2, C = 1) on the standardized `statistics` of each step.

    Args:
      train: what is learned from: its real steps (`mask`) and their targets.
      splits: what is scored, by name.
      bins: N; bin N stands for a missing value.
      seed: picks the steps that are fitted where there are more than `MOST_STEPS`.

    Returns:
      P(anomalous) per step by split; meaningless where `mask` is False. Where training has one class only, the same
      score everywhere, with a warning.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
    return _fit_and_score("logistic regression", model, train, splits, bins, seed)


def gradient_boosting(
    train: Examples, splits: Mapping[str, Examples], bins: int, *, seed: int
) -> dict[str, Float[np.ndarray, "windows time"]]:
    """Gradient-boosted trees (scikit-learn's HistGradientBoostingClassifier, its defaults) on the `statistics`.

    All 100 trees are grown: to stop early by steps that are neighbours of those fitted would flatter.

    Args:
      train: what is learned from: its real steps (`mask`) and their targets.
      splits: what is scored, by name.
      bins: N; bin N stands for a missing value.
      seed: picks the steps that are fitted where there are more than `MOST_STEPS`, and those that the trees' own bins
        are counted on.

    Returns:
      P(anomalous) per step by split; meaningless where `mask` is False. Where training has one class only, the same
      score everywhere, with a warning.
    """
    model = HistGradientBoostingClassifier(early_stopping=False, random_state=seed)
    return _fit_and_score("gradient boosting", model, train, splits, bins, seed)


def _fit_and_score(
    name: str, model: BaseEstimator, train: Examples, splits: Mapping[str, Examples], bins: int, seed: int
) -> dict[str, Float[np.ndarray, "windows time"]]:
    chosen = _sample(train.mask, seed)
    targets = train.targets[chosen] > 0
    if targets.all() or not targets.any():
        warnings.warn(f"{name}: training has one class only, every step gets the same score", stacklevel=3)
        return {split: np.full(part.bins.shape, float(targets.any())) for split, part in splits.items()}
    # A mean stands for what is missing, and a 1 beside it says so, where training knows of it. Trees could do without,
    # but fail at a statistic that training never has.
    whole = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), model)
    read = [statistics(train.bins[rows], bins)[chosen[rows]] for rows in _chunks(train)]
    whole.fit(np.concatenate(read), targets)

    def score(part: Examples) -> Float[np.ndarray, "windows time"]:
        scores = np.zeros(part.bins.shape)
        for rows in _chunks(part):
            of_steps = statistics(part.bins[rows], bins).reshape(-1, STATISTICS)
            scores[rows] = whole.predict_proba(of_steps)[:, 1].reshape(scores[rows].shape)
        return scores

    return {split: score(part) for split, part in splits.items()}


def _sample(mask: Bool[np.ndarray, "windows time"], seed: int) -> Bool[np.ndarray, "windows time"]:
    """All real steps, or `MOST_STEPS` of them."""
    real = np.flatnonzero(mask)
    if len(real) <= MOST_STEPS:
        return mask
    chosen = np.zeros(mask.size, bool)
    chosen[np.random.default_rng(seed).choice(real, MOST_STEPS, replace=False)] = True
    return chosen.reshape(mask.shape)


def _chunks(part: Examples) -> Iterator[slice]:
    """Rows of windows with about `CHUNK` steps."""
    rows = max(CHUNK // part.bins.shape[1], 1)
    return (slice(begin, begin + rows) for begin in range(0, len(part), rows))
