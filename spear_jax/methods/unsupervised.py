"""Implements classical detectors that read no labels: they compare the windows of a series with its other windows.

Each is fitted to all windows, one step apart, of the series itself and of `Series.reference`, if the source has an
anomaly-free past. A score therefore depends on the whole series, its future included: offline use only. A step's score
is the mean over the windows around it, and higher is more anomalous. Missing values are interpolated linearly and score
0 themselves. A series that never varies, past included, or is shorter than a window scores 0 throughout.

By default a window has 128 steps, or a quarter of past and series together if that is less. On NASA's validation splits
the mean AUROC over four methods and three kinds of split is .711 with it, .710 with the highest peak of the
autocorrelation (the choice of TSB-AD), .699 with 64 steps and .682 with 32.

No score depends on the unit of a series. Distances and errors are divided by their mean over the series' windows, so 1
is typical of the series; all are 0 if every window has an exact copy. Otherwise they would measure how noisy a series
is and could not be pooled across series (mean AUROC of three methods .600 undivided, .687 divided). As a consequence,
they show when a series is anomalous, but not which series is.

The two nearest-neighbour methods miss an anomaly that repeats itself for longer than a window, since its windows match
each other.

At most `MAX_REFERENCES` windows are fitted, a random sample if there are more. This bounds memory to a few numbers per
step, and makes time linear in the length.

Every detector takes the steps in a window, 0 for the default (anything else below 2 is an `InputError`), and a seed, of
the sample and of what else is random. Where nothing else is said, scores are 1 on average over the windows of a series.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict
from sklearn.ensemble import IsolationForest
from tqdm import tqdm

from spear_jax import parallel
from spear_jax.data import (
    Dataset,
    Series,
    StepScores,
    WindowSample,
    blocks,
    distances_to_nearest,
    interpolate_missing,
    relative_to_mean,
    sample_windows,
    scores_by_split,
    step_means,
)
from spear_jax.errors import InputError
from spear_jax.evaluation import RunRecord
from spear_jax.methods.implementations import ScoreFunction

DEFAULT_WINDOW = 128
MAX_REFERENCES = 20_000  # fitted windows; NASA's longest channel has 11 500, past included
EXPLAINED = 0.9  # share of the variance that the leading components explain
_TINY = 1e-100  # a range in which squares are no longer numbers
BLOCK = 1 << 12  # windows scored at a time

_Score: TypeAlias = Callable[[WindowSample, Float[np.ndarray, "windows window"]], Float[np.ndarray, "windows"]]


def start_unsupervised(config: ConfigDict, dataset: Dataset, record: RunRecord) -> ScoreFunction:
    """Returns a function that fits the config's detector to each series in turn and scores it."""
    detect = DETECTORS[config.method]

    def score() -> dict[str, StepScores]:
        series = tqdm(dataset.recorded, desc=config.method, unit="series", disable=parallel.no_bar(), leave=False)
        return scores_by_split(dataset, np.concatenate([detect(recorded, seed=config.seed) for recorded in series]))

    return score


def isolation_forest(series: Series, window: int = 0, *, seed: int) -> Float[np.ndarray, "time"]:
    """Scores a step by how few random cuts isolate its windows (Liu, Ting and Zhou, ICDM 2008).

    This is scikit-learn's forest of 100 trees, each grown on 256 windows; it takes 1 s for 100 000 steps on one core.
    Scores are in (0, 1); about .5 is typical.
    """

    def score(references: WindowSample, own: Float[np.ndarray, "windows window"]) -> Float[np.ndarray, "windows"]:
        forest = IsolationForest(random_state=seed).fit(references.windows)
        return np.concatenate([-forest.score_samples(block) for block in blocks(own, BLOCK)])

    return _score_steps(series, window, seed, score)


def nearest_neighbours(series: Series, window: int = 0, *, seed: int) -> Float[np.ndarray, "time"]:
    """Scores a window by its Euclidean distance to the nearest one (Ramaswamy, Rastogi and Shim, SIGMOD 2000).

    Overlapping windows are not compared, since a window always resembles its own shifted copy.

    The cost is windows x references x window: 18 s for 100 000 steps on one core.
    """

    def score(references: WindowSample, own: Float[np.ndarray, "windows window"]) -> Float[np.ndarray, "windows"]:
        return relative_to_mean(distances_to_nearest(references, own, own.shape[1] - 1))

    return _score_steps(series, window, seed, score)


def matrix_profile(series: Series, window: int = 0, *, seed: int) -> Float[np.ndarray, "time"]:
    """Scores a window by its distance to the most similar one, level and scale aside (Yeh et al., ICDM 2016).

    Windows are standardized first. As in stumpy, a constant window becomes zeros, at distance 0 from other constant
    windows and sqrt(window) from all others, and windows up to a quarter of their length apart are not compared. The
    result is the minimum of the series' profiles with itself and with its past.

    The distances come from a matrix product rather than from stumpy, which would add 208 MB (numba, llvmlite), 2 s of
    import and 20 s of compilation in each process, or from aeon, which excludes pandas 3.1 and numpy 2.5.

    The cost is that of `nearest_neighbours`.
    """

    def score(references: WindowSample, own: Float[np.ndarray, "windows window"]) -> Float[np.ndarray, "windows"]:
        return relative_to_mean(distances_to_nearest(references, own, -(-own.shape[1] // 4), _standardized))

    return _score_steps(series, window, seed, score)


def sub_pca(series: Series, window: int = 0, *, seed: int) -> Float[np.ndarray, "time"]:
    """Scores a window by the norm of what the leading principal components of all windows leave unexplained.

    This is the simple method that leads TSB-AD's univariate track (Liu and Paparrizos, NeurIPS 2024), in its textbook
    form: the leading components explain 90% of the variance. (TSB-AD's own version sums over all components, each
    divided by its variance.) It takes less than 1 s for 100 000 steps on one core.
    """

    def score(references: WindowSample, own: Float[np.ndarray, "windows window"]) -> Float[np.ndarray, "windows"]:
        mean = references.windows.mean(axis=0)
        variances, components = np.linalg.eigh(np.cov(references.windows, rowvar=False, bias=True))
        explained = np.cumsum(variances[::-1])  # ascending, as eigh gives them
        rest = components[:, : -1 - int(np.searchsorted(explained, EXPLAINED * explained[-1]))]
        return relative_to_mean(
            np.concatenate([np.linalg.norm((block - mean) @ rest, axis=1) for block in blocks(own, BLOCK)])
        )

    return _score_steps(series, window, seed, score)


DETECTORS: dict[str, Callable[..., Float[np.ndarray, "time"]]] = {
    "isolation_forest": isolation_forest,
    "nearest_neighbours": nearest_neighbours,
    "matrix_profile": matrix_profile,
    "sub_pca": sub_pca,
}


def _score_steps(series: Series, window: int, seed: int, score: _Score) -> Float[np.ndarray, "time"]:
    """Scores the windows of a series; returns each step's mean over its windows."""
    if window < 0 or window == 1:
        raise InputError(f"window={window}: must be at least 2, or 0 for the default")
    recorded = np.isfinite(series.values)
    past, own = interpolate_missing(series.reference), interpolate_missing(series.values)
    both = np.concatenate([past, own])
    window = window or max(min(DEFAULT_WINDOW, len(both) // 4), 2)
    if len(own) < window or not np.ptp(both) > 0:
        return np.zeros(len(series))
    if np.ptp(both) < _TINY:
        past, own, both = (part / np.ptp(both) for part in (past, own, both))
    # Standardized only for numerical accuracy.
    past, own = ((part - both.mean()) / both.std() for part in (past, own))
    windows = np.lib.stride_tricks.sliding_window_view(own, window)
    scores = score(sample_windows([past], windows, MAX_REFERENCES, seed), windows)
    return np.where(recorded, step_means(scores, window), 0.0)


def _standardized(windows: Float[np.ndarray, "windows window"]) -> Float[np.ndarray, "windows window"]:
    centred = windows - windows.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    varies = np.ptp(windows, axis=1, keepdims=True) > 0
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=varies)
