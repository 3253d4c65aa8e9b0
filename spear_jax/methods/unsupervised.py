"""Classical detectors that read no labels: the windows of one series are compared with each other and with its past.

Each is fitted to all windows, one step apart, of `Series.reference`, where the source has an anomaly-free past, and of
the series itself, so a score looks at the whole series, its future included: offline use only. A window's score goes to
its steps; a step's is the mean over the windows that it lies in, and higher is more anomalous. What is not a number is
bridged by a straight line, and scores 0 itself. A series that never varies, past included, or is shorter than a window
gets zeros.

By default a window has 128 steps, or a quarter of past and series where that is less. On NASA's validation parts the
mean AUROC over four methods and three kinds of split is .711 with it, .710 with the highest peak of the autocorrelation
(the choice of TSB-AD), .699 with 64 steps and .682 with 32.

No score depends on a series' unit. Distances and errors are divided by their mean over the series' windows: 1 is
ordinary for this series, and all are 0 where every window has its equal. Without that they say how noisy a series is,
and cannot be pooled with those of others (the same AUROC, three methods: .600 before, .687 after). So they tell when a
series is odd, not which series is.

A stretch that is alike in itself, longer than a window and nowhere else hides from the two that search for the nearest
window: it finds itself.

At most `MOST_REFERENCES` windows are fitted, an even sample where there are more. So memory is bounded but for a few
numbers per step, and time grows linearly with the length from then on.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from sklearn.ensemble import IsolationForest

from spear_jax.data import Series
from spear_jax.errors import InputError

LONGEST_WINDOW = 128  # of those chosen here


MOST_REFERENCES = 20_000  # windows that are fitted; NASA's longest channel has 11 500, past included


EXPLAINED = 0.9  # share of the variance that the leading components have


BLOCK = 1 << 12  # windows scored at a time


TILE = 1 << 19  # distances in memory at a time: 4 MB, which caches hold


PAST = -(1 << 40)  # start of a window of the past, far from all windows of the series


class _References(NamedTuple):
    """Windows that others are compared with.

    Attributes:
      windows: their values.
      starts: first step of each in its series, ascending; `PAST` for those of the past.
    """

    windows: Float[np.ndarray, "references window"]
    starts: Int[np.ndarray, "references"]


_Score: TypeAlias = Callable[[_References, Float[np.ndarray, "windows window"]], Float[np.ndarray, "windows"]]


def isolation_forest(series: Series, window: int = 0, *, seed: int) -> Float[np.ndarray, "time"]:
    """How few random cuts set a window apart from the others (Liu, Ting and Zhou, ICDM 2008).

    scikit-learn's forest of 100 trees, each grown on 256 windows; 1 s for 100 000 steps on one core.

    Args:
      series: what is scored; its labels are not read.
      window: steps in a window; 0 chooses, see above.
      seed: of the trees.

    Returns:
      A score per step in (0, 1); about .5 is ordinary.

    Raises:
      InputError: `window` is negative or 1.
    """

    def score(references: _References, own: Float[np.ndarray, "windows window"]) -> Float[np.ndarray, "windows"]:
        forest = IsolationForest(random_state=seed).fit(references.windows)
        return np.concatenate([-forest.score_samples(block) for block in _blocks(own, BLOCK)])

    return _by_windows(series, window, seed, score)


def nearest_neighbours(series: Series, window: int = 0, *, neighbours: int = 1, seed: int) -> Float[np.ndarray, "time"]:
    """Euclidean distance to the k-th nearest window (Ramaswamy, Rastogi and Shim, SIGMOD 2000).

    Windows that overlap are no neighbours, or each would be near its own shifted copy.

    The work is windows x references x window: 18 s for 100 000 steps on one core.

    Args:
      series: what is scored; its labels are not read.
      window: steps in a window; 0 chooses, see above.
      neighbours: k.
      seed: of the sample of references, in series of more than `MOST_REFERENCES` windows.

    Returns:
      A score per step, 1 on average over windows; 0 where a window has fewer than k neighbours.

    Raises:
      InputError: `window` is negative or 1, or `neighbours` below 1.
    """
    if neighbours < 1:
        raise InputError(f"neighbours is {neighbours}; allowed is at least 1")

    def score(references: _References, own: Float[np.ndarray, "windows window"]) -> Float[np.ndarray, "windows"]:
        return _relative(_distances(references, own, own.shape[1] - 1, neighbours))

    return _by_windows(series, window, seed, score)


def matrix_profile(series: Series, window: int = 0, *, seed: int) -> Float[np.ndarray, "time"]:
    """Distance to the most alike window, level and scale aside: high at discords (Yeh et al., ICDM 2016).

    Windows are standardized first; one that does not vary becomes zeros, so its distance is 0 to its like and the root
    of the window's length to others, as stumpy has it. As there, too, windows up to a quarter of their length apart
    are not compared. The profile of the series with itself and with its past: the smaller of the two.

    A product of matrices rather than stumpy, which would add 208 MB (numba, llvmlite), 2 s of import and 20 s of
    compiling in each process, or aeon, which refuses pandas 3.1 and numpy 2.5.

    The work is that of `nearest_neighbours`.

    Args:
      series: what is scored; its labels are not read.
      window: steps in a window; 0 chooses, see above.
      seed: of the sample of references, in series of more than `MOST_REFERENCES` windows; the distances are upper
        bounds then.

    Returns:
      A score per step, 1 on average over windows.

    Raises:
      InputError: `window` is negative or 1.
    """

    def score(references: _References, own: Float[np.ndarray, "windows window"]) -> Float[np.ndarray, "windows"]:
        return _relative(_distances(references, own, -(-own.shape[1] // 4), 1, _standardized))

    return _by_windows(series, window, seed, score)


def sub_pca(series: Series, window: int = 0, *, seed: int) -> Float[np.ndarray, "time"]:
    """What the leading principal components of the windows leave of a window: the length of the rest.

    The simple method that leads TSB-AD's univariate part (Liu and Paparrizos, NeurIPS 2024), in the textbook's form:
    components that have 90% of the variance, and what they do not explain. (TSB-AD's own sums over all components,
    each divided by its variance.) Under 1 s for 100 000 steps on one core.

    Args:
      series: what is scored; its labels are not read.
      window: steps in a window; 0 chooses, see above.
      seed: of the sample of references, in series of more than `MOST_REFERENCES` windows.

    Returns:
      A score per step, 1 on average over windows.

    Raises:
      InputError: `window` is negative or 1.
    """

    def score(references: _References, own: Float[np.ndarray, "windows window"]) -> Float[np.ndarray, "windows"]:
        mean = references.windows.mean(axis=0)
        variances, components = np.linalg.eigh(np.cov(references.windows, rowvar=False, bias=True))
        explained = np.cumsum(variances[::-1])  # ascending, as eigh gives them
        rest = components[:, : -1 - int(np.searchsorted(explained, EXPLAINED * explained[-1]))]
        return _relative(
            np.concatenate([np.linalg.norm((block - mean) @ rest, axis=1) for block in _blocks(own, BLOCK)])
        )

    return _by_windows(series, window, seed, score)


def _by_windows(series: Series, window: int, seed: int, score: _Score) -> Float[np.ndarray, "time"]:
    """A score per step from a score per window."""
    if window < 0 or window == 1:
        raise InputError(f"window is {window}; allowed is at least 2, or 0 for the default")
    known = np.isfinite(series.values)
    past, own = _bridged(series.reference), _bridged(series.values)
    both = np.concatenate([past, own])
    window = window or max(min(LONGEST_WINDOW, len(both) // 4), 2)
    if len(own) < window or not np.ptp(both) > 0:
        return np.zeros(len(series))
    # Standardized for the arithmetic's sake alone.
    past, own = ((part - both.mean()) / both.std() for part in (past, own))
    windows = np.lib.stride_tricks.sliding_window_view(own, window)
    scores = score(_references(past, windows, seed), windows)
    ones = np.ones(window)
    steps = np.convolve(scores, ones) / np.convolve(np.ones(len(scores)), ones)
    return np.where(known, steps, 0.0)


def _bridged(values: Float[np.ndarray, "time"]) -> Float[np.ndarray, "time"]:
    """Straight lines over what is not a number; nothing where nothing was recorded."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return np.zeros(0)
    return np.interp(np.arange(len(values)), known, values[known].astype(np.float64))


def _references(past: Float[np.ndarray, "past"], own: Float[np.ndarray, "windows window"], seed: int) -> _References:
    """The windows of the past and of the series, or a sample of them."""
    window = own.shape[1]
    before = np.lib.stride_tricks.sliding_window_view(past, window) if len(past) >= window else own[:0]
    total = len(before) + len(own)
    chosen = np.arange(total)
    if total > MOST_REFERENCES:
        chosen = np.sort(np.random.default_rng(seed).choice(total, MOST_REFERENCES, replace=False))
    split = int(np.searchsorted(chosen, len(before)))
    starts = chosen - len(before)
    starts[:split] = PAST
    return _References(np.concatenate([before[chosen[:split]], own[starts[split:]]]), starts)


def _distances(
    references: _References,
    own: Float[np.ndarray, "windows window"],
    reach: int,
    neighbours: int,
    prepare: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Float[np.ndarray, "windows"]:
    """Euclidean distance of each window to the k-th nearest reference that begins more than `reach` steps from it.

    Args:
      references: what is compared with.
      own: all windows of the series, one step apart.
      reach: steps.
      neighbours: k.
      prepare: done to the windows first.
    """
    if neighbours > len(references.windows):
        return np.zeros(len(own))
    # |q - r|^2 is |q|^2 + (|r|^2 - 2 q r), and the bracket is one product of matrices: (q, 1) with (-2 r, |r|^2).
    fitted = prepare(references.windows)
    factors = np.vstack([-2 * fitted.T, (fitted**2).sum(axis=1)])
    squared, begin = [], 0
    for block in _blocks(own, max(TILE // len(fitted), 1)):
        queries = prepare(block)
        size = (queries**2).sum(axis=1)
        bracket = np.column_stack([queries, np.ones(len(queries))]) @ factors
        starts = begin + np.arange(len(block))
        firsts = np.searchsorted(references.starts, starts - reach)
        lasts = np.searchsorted(references.starts, starts + reach, side="right")
        for row, first, last in zip(bracket, firsts, lasts, strict=True):
            row[first:last] = np.inf
        kth = bracket.min(axis=1) if neighbours == 1 else np.partition(bracket, neighbours - 1)[:, neighbours - 1]
        near = kth + size
        # What is left of the difference of equal windows is rounding.
        squared.append(np.where(np.isfinite(near) & (near > 1e-12 * size), near, 0.0))
        begin += len(block)
    return np.sqrt(np.concatenate(squared))


def _standardized(windows: Float[np.ndarray, "windows window"]) -> Float[np.ndarray, "windows window"]:
    centred = windows - windows.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    varies = np.ptp(windows, axis=1, keepdims=True) > 0
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=varies)


def _relative(scores: Float[np.ndarray, "windows"]) -> Float[np.ndarray, "windows"]:
    """Shares of the mean."""
    return scores / (scores.mean() or 1.0)


def _blocks(windows: Float[np.ndarray, "windows window"], rows: int) -> list[Float[np.ndarray, "rows window"]]:
    """Views of up to `rows` windows."""
    return [windows[begin : begin + rows] for begin in range(0, len(windows), rows)]
