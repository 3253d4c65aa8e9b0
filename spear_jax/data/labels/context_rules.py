"""Labels context anomalies by rule (arXiv 2510.03962), for series without recorded labels.

Four rules judge each window independently. Three of them rest on tests that assume independent steps and are therefore
significant far too often on autocorrelated data: check how often they fire.

  trend       least squares line: |slope| > `slope` per step and p < `p_value`  -> the whole window
  spike       |x_t - x_(t-1)| > mean + `deviations` standard deviations of these jumps  -> the step after the jump
  shift       two-sample t-test of first and second half (equal variances): p < `p_value`  -> the second half
  volatility  Levene's test of the halves (around their medians): p < `p_value`  -> the half that spreads more

The steps after the arrow are labelled anomalous; a window is anomalous if any rule fires. Missing values and padding
are ignored; the halves meet in the middle of the recorded stretch.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num
from scipy import stats

RULES = ("trend", "spike", "shift", "volatility")


class RuleLabels(NamedTuple):
    """The windows in which each rule fired, and the steps that a fired rule labels."""

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
    """Applies the rules to each window independently.

    Args:
      values: NaN where nothing was recorded and in padding.
      rules: some of `RULES`.
      slope: smallest slope of a 'trend', in units of the values per step.
      deviations: threshold of a 'spike', in standard deviations of the population of jumps.
      p_value: significance level of the three tests.
      correction: correction of the p-values of each test over all these windows: 'none', 'holm' (no false alarm in any
        window, with probability 1 - `p_value`) or 'benjamini_hochberg' (the expected share of false alarms is at most
        `p_value`).
    """
    values = np.asarray(values, np.float64)
    finite = np.isfinite(values)
    length = np.where(finite.any(axis=1), values.shape[1] - np.argmax(finite[:, ::-1], axis=1), 0)
    second = np.arange(values.shape[1]) >= (length // 2)[:, None]
    halves = finite & ~second, finite & second

    steps = np.zeros(values.shape, bool)
    fired = {}
    if "trend" in rules:
        line, p = trend(values, finite)
        fired["trend"] = (np.abs(line) > slope) & (_correct(p, correction) < p_value)
        steps |= fired["trend"][:, None] & finite
    if "spike" in rules:
        jumps = spikes(values, deviations)
        fired["spike"] = jumps.any(axis=1)
        steps |= jumps
    if "shift" in rules:
        fired["shift"] = _correct(shift(values, *halves), correction) < p_value
        steps |= fired["shift"][:, None] & halves[1]
    if "volatility" in rules:
        p, spreads_more = volatility(values, *halves)
        fired["volatility"] = _correct(p, correction) < p_value
        steps |= fired["volatility"][:, None] & np.where(spreads_more[:, None], halves[1], halves[0])
    return RuleLabels(fired, steps)


def trend(
    values: Float[np.ndarray, "windows time"], counted: Bool[np.ndarray, "windows time"]
) -> tuple[Float[np.ndarray, "windows"], Float[np.ndarray, "windows"]]:
    """Fits a least squares line; returns its slope and the p-value of no slope, as `scipy.stats.linregress`."""
    count = counted.sum(axis=1)
    time = np.arange(values.shape[1]) - _mean(np.broadcast_to(np.arange(values.shape[1]), values.shape), counted)
    x, y = np.where(counted, time, 0.0), np.where(counted, values - _mean(values, counted), 0.0)
    xx, yy, xy = (x * x).sum(axis=1), (y * y).sum(axis=1), (x * y).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.clip(np.where(yy > 0, xy / np.sqrt(xx * yy), 0.0), -1, 1)
        t = r * np.sqrt((count - 2) / ((1 - r + 1e-20) * (1 + r + 1e-20)))
        p = np.where(count > 2, 2 * stats.t.sf(np.abs(t), np.maximum(count - 2, 1)), np.nan)
        return np.where(xx > 0, xy / xx, 0.0), p


def spikes(values: Float[np.ndarray, "windows time"], deviations: float) -> Bool[np.ndarray, "windows time"]:
    """Returns True at steps whose jump from the step before is an outlier among the window's jumps."""
    jumps = np.abs(np.diff(values, axis=1, prepend=np.nan))
    finite = np.isfinite(jumps)
    mean = _mean(jumps, finite)
    deviation = np.sqrt(_mean((jumps - mean) ** 2, finite))
    return finite & (jumps > mean + deviations * deviation)


def shift(
    values: Float[np.ndarray, "windows time"],
    first: Bool[np.ndarray, "windows time"],
    second: Bool[np.ndarray, "windows time"],
) -> Float[np.ndarray, "windows"]:
    """Returns the p-value of equal means, as `scipy.stats.ttest_ind`.

    It is NaN if a half has too few values, or all values are equal.
    """
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
    """Returns the p-value of equal spread around the medians, as `scipy.stats.levene`.

    Also returns whether the second half spreads more.
    """
    spread = np.where(first, np.abs(values - _median(values, first)), np.abs(values - _median(values, second)))
    (n, mean, squares), (m, other, other_squares) = _moments(spread, first), _moments(spread, second)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = n * m / (n + m) * (mean - other) ** 2
        w = (n + m - 2) * between / (squares + other_squares)
        p = stats.f.sf(w, 1, np.maximum(n + m - 2, 1))
    return np.where((n > 0) & (m > 0) & (n + m > 2), p, np.nan), other > mean


def _moments(
    values: Float[np.ndarray, "windows time"], counted: Bool[np.ndarray, "windows time"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns number, mean and sum of squared deviations of each window's values."""
    mean = _mean(values, counted)
    return counted.sum(axis=1), mean[:, 0], np.where(counted, (values - mean) ** 2, 0.0).sum(axis=1)


def _mean(
    values: Num[np.ndarray, "windows time"], counted: Bool[np.ndarray, "windows time"]
) -> Float[np.ndarray, "windows 1"]:
    count = np.maximum(counted.sum(axis=1, keepdims=True), 1)
    return np.where(counted, values, 0.0).sum(axis=1, keepdims=True) / count


def _median(
    values: Float[np.ndarray, "windows time"], counted: Bool[np.ndarray, "windows time"]
) -> Float[np.ndarray, "windows 1"]:
    ordered = np.sort(np.where(counted, values, np.inf), axis=1)
    count = counted.sum(axis=1, keepdims=True)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, values.shape[1] - 1)
    return (np.take_along_axis(ordered, low, axis=1) + np.take_along_axis(ordered, high, axis=1)) / 2


def _correct(p: Float[np.ndarray, "windows"], correction: str) -> Float[np.ndarray, "windows"]:
    """Corrects p-values for the number of tests; NaN means no test."""
    tested = np.flatnonzero(np.isfinite(p))
    if correction == "none" or not len(tested):
        return p
    corrected = np.full(len(p), np.nan)
    if correction == "benjamini_hochberg":
        corrected[tested] = stats.false_discovery_control(p[tested], method="bh")
        return corrected
    # Holm: each p-value times the number of tests not yet passed.
    order = tested[np.argsort(p[tested], kind="stable")]
    remaining = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(remaining * p[order]), 1)
    return corrected
