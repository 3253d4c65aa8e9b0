"""Context anomalies by rule (arXiv 2510.03962): labels where nobody recorded any.

Four rules look at a window on its own. On autocorrelated data the tests behind three of them are far too easily
significant, since they count every step as independent evidence: expect them to fire often, and read how often.

  trend       least squares line: |slope| > `slope` per step and p < `p_value`  -> the whole window
  spike       |x_t - x_(t-1)| > mean + `deviations` standard deviations of these jumps  -> the step after the jump
  shift       two-sample t-test of first and second half (equal variances): p < `p_value`  -> the second half
  volatility  Levene's test of the halves (around their medians): p < `p_value`  -> the half that spreads more

What stands behind the arrow is labelled where labels are per step; a window is anomalous if any rule fires. Missing
values and padding are left out; the halves meet in the middle of the recorded stretch.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num
from scipy import stats

RULES = ("trend", "spike", "shift", "volatility")


CORRECTIONS = ("none", "holm", "benjamini_hochberg")


class RuleLabels(NamedTuple):
    """What the rules say of each window.

    Attributes:
      fired: by rule, True where it fired.
      steps: True at the steps that a rule that fired points to.
    """

    fired: dict[str, Bool[np.ndarray, "windows"]]
    steps: Bool[np.ndarray, "windows time"]


def apply_rules(
    values: Float[np.ndarray, "windows time"],
    *,
    rules: tuple[str, ...] = RULES,
    slope: float = 0.01,
    deviations: float = 3.0,
    p_value: float = 0.05,
    correction: str = "none",
) -> RuleLabels:
    """Applies the rules to each window on its own.

    Args:
      values: NaN where nothing was recorded and in padding.
      rules: which of `RULES`.
      slope: of 'trend', in units of the values per step.
      deviations: of 'spike'; the standard deviation is that of the population of jumps.
      p_value: level of the three tests.
      correction: of the p-values of each test for all these windows together: 'none', 'holm' (no false alarm in any
        window, with probability 1 - `p_value`) or 'benjamini_hochberg' (at most that share of the alarms is false).
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    length = np.where(known.any(axis=1), values.shape[1] - np.argmax(known[:, ::-1], axis=1), 0)
    second = np.arange(values.shape[1]) >= (length // 2)[:, None]
    halves = known & ~second, known & second

    steps = np.zeros(values.shape, bool)
    fired = {}
    if "trend" in rules:
        line, p = trend(values, known)
        fired["trend"] = (np.abs(line) > slope) & (_corrected(p, correction) < p_value)
        steps |= fired["trend"][:, None] & known
    if "spike" in rules:
        jumps = spikes(values, deviations)
        fired["spike"] = jumps.any(axis=1)
        steps |= jumps
    if "shift" in rules:
        fired["shift"] = _corrected(shift(values, *halves), correction) < p_value
        steps |= fired["shift"][:, None] & halves[1]
    if "volatility" in rules:
        p, spreads_more = volatility(values, *halves)
        fired["volatility"] = _corrected(p, correction) < p_value
        steps |= fired["volatility"][:, None] & np.where(spreads_more[:, None], halves[1], halves[0])
    return RuleLabels(fired, steps)


def trend(
    values: Float[np.ndarray, "windows time"], known: Bool[np.ndarray, "windows time"]
) -> tuple[Float[np.ndarray, "windows"], Float[np.ndarray, "windows"]]:
    """Slope of the least squares line over the known steps, and p of no slope, as `scipy.stats.linregress`."""
    count = known.sum(axis=1)
    time = np.arange(values.shape[1]) - _mean(np.broadcast_to(np.arange(values.shape[1]), values.shape), known)
    x, y = np.where(known, time, 0.0), np.where(known, values - _mean(values, known), 0.0)
    xx, yy, xy = (x * x).sum(axis=1), (y * y).sum(axis=1), (x * y).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.clip(np.where(yy > 0, xy / np.sqrt(xx * yy), 0.0), -1, 1)
        t = r * np.sqrt((count - 2) / ((1 - r + 1e-20) * (1 + r + 1e-20)))
        p = np.where(count > 2, 2 * stats.t.sf(np.abs(t), np.maximum(count - 2, 1)), np.nan)
        return np.where(xx > 0, xy / xx, 0.0), p


def spikes(values: Float[np.ndarray, "windows time"], deviations: float) -> Bool[np.ndarray, "windows time"]:
    """True at a step whose jump from the step before is an outlier among the window's jumps."""
    jumps = np.abs(np.diff(values, axis=1, prepend=np.nan))
    known = np.isfinite(jumps)
    mean = _mean(jumps, known)
    deviation = np.sqrt(_mean((jumps - mean) ** 2, known))
    return known & (jumps > mean + deviations * deviation)


def shift(
    values: Float[np.ndarray, "windows time"],
    first: Bool[np.ndarray, "windows time"],
    second: Bool[np.ndarray, "windows time"],
) -> Float[np.ndarray, "windows"]:
    """P of equal means, as `scipy.stats.ttest_ind`; NaN where a half has too few values, or nothing varies."""
    (n, mean, squares), (m, other, other_squares) = _moments(values, first), _moments(values, second)
    freedom = n + m - 2
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (squares + other_squares) / freedom
        t = (mean - other) / np.sqrt(variance * (1 / n + 1 / m))
        p = 2 * stats.t.sf(np.abs(t), np.maximum(freedom, 1))
    return np.where((n > 0) & (m > 0) & (freedom > 0), p, np.nan)


def volatility(
    values: Float[np.ndarray, "windows time"],
    first: Bool[np.ndarray, "windows time"],
    second: Bool[np.ndarray, "windows time"],
) -> tuple[Float[np.ndarray, "windows"], Bool[np.ndarray, "windows"]]:
    """P of equal spread, as `scipy.stats.levene` (around medians), and whether the second half spreads more."""
    spread = np.where(first, np.abs(values - _median(values, first)), np.abs(values - _median(values, second)))
    (n, mean, squares), (m, other, other_squares) = _moments(spread, first), _moments(spread, second)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = n * m / (n + m) * (mean - other) ** 2
        w = (n + m - 2) * between / (squares + other_squares)
        p = stats.f.sf(w, 1, np.maximum(n + m - 2, 1))
    return np.where((n > 0) & (m > 0) & (n + m > 2), p, np.nan), other > mean


def _moments(
    values: Float[np.ndarray, "windows time"], known: Bool[np.ndarray, "windows time"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number, mean and sum of squared deviations of each window's known values."""
    mean = _mean(values, known)
    return known.sum(axis=1), mean[:, 0], np.where(known, (values - mean) ** 2, 0.0).sum(axis=1)


def _mean(
    values: Num[np.ndarray, "windows time"], known: Bool[np.ndarray, "windows time"]
) -> Float[np.ndarray, "windows 1"]:
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    return np.where(known, values, 0.0).sum(axis=1, keepdims=True) / count


def _median(
    values: Float[np.ndarray, "windows time"], known: Bool[np.ndarray, "windows time"]
) -> Float[np.ndarray, "windows 1"]:
    ordered = np.sort(np.where(known, values, np.inf), axis=1)
    count = known.sum(axis=1, keepdims=True)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, values.shape[1] - 1)
    return (np.take_along_axis(ordered, low, axis=1) + np.take_along_axis(ordered, high, axis=1)) / 2


def _corrected(p: Float[np.ndarray, "windows"], correction: str) -> Float[np.ndarray, "windows"]:
    """p-values made comparable with the level of a single test; NaN where there was no test."""
    tested = np.flatnonzero(np.isfinite(p))
    if correction == "none" or not len(tested):
        return p
    corrected = np.full(len(p), np.nan)
    if correction == "benjamini_hochberg":
        corrected[tested] = stats.false_discovery_control(p[tested], method="bh")
        return corrected
    order = tested[np.argsort(p[tested], kind="stable")]  # Holm: the i-th smallest times the tests left
    left = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(left * p[order]), 1)
    return corrected
