"""Injects anomalies of known position and kind into series that have no labels.

A detector trained on them finds injected anomalies. Whether it finds real ones is another question, so every output
says that the labels come from injection.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from spear_jax.data.series import Series

MEAN_STEPS = {  # of an anomaly of each kind
    "spike": 2.0,
    "shift": 24.0,
    "trend": 24.0,
    "variance": 24.0,
    "frequency": 24.0,
}


def inject(stretches: Sequence[Series], rate: float, seed: int) -> list[Series]:
    """Injects spikes, level shifts, trends, and noisy and faster stretches into copies of series, and labels them.

    Sizes are drawn relative to the range between the 5th and the 95th percentile of the stretch. Values beyond the
    stretch's own range are reflected back into it, so that no single value gives an anomaly away.

    Args:
      stretches: the series; missing values stay missing.
      rate: expected share of anomalous steps.
      seed: the same seed injects the same anomalies into the same stretch.
    """
    return [
        _inject_into(stretch, rate, np.random.default_rng((seed, *stretch.name.encode(), stretch.start)))
        for stretch in stretches
    ]


def _inject_into(series: Series, rate: float, rng: np.random.Generator) -> Series:
    values, labels = series.values.astype(np.float64), np.zeros(len(series), bool)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return dataclasses.replace(series, labels=labels)
    low, high = float(np.min(finite)), float(np.max(finite))
    size = float(np.subtract(*np.quantile(finite, (0.95, 0.05)))) or high - low or max(abs(high), 1.0)
    for kind, begin, end in draw_intervals(0, len(series), rate, rng):
        labels[begin:end] = True
        jump = rng.choice((-1.0, 1.0)) * rng.uniform(0.4, 0.8) * size
        if kind in ("spike", "shift"):
            values[begin:end] += jump
        elif kind == "trend":
            values[begin:end] += 1.25 * jump * np.linspace(0, 1, end - begin)
        elif kind == "variance":
            values[begin:end] += 0.4 * jump * rng.normal(size=end - begin)
        else:
            sped_up = begin + (np.arange(end - begin) * rng.integers(3, 6)) % (end - begin)
            values[begin:end] = values[sped_up]
    if high > low:  # a constant series has no range to reflect into
        values = reflect(values, low, high)
    return dataclasses.replace(series, values=values.astype(series.values.dtype), labels=labels)


def draw_intervals(begin: int, end: int, rate: float, rng: np.random.Generator) -> list[tuple[str, int, int]]:
    """Draws disjoint anomaly intervals in [begin, end), as kind, first step and the step after the last.

    They cover `rate` of the steps in expectation.
    """
    intervals: list[tuple[str, int, int]] = []
    # Each kind covers the same share of anomalous steps, so short ones occur more often.
    kinds = tuple(MEAN_STEPS)
    odds = np.array([1 / MEAN_STEPS[kind] for kind in kinds])
    odds /= odds.sum()
    mean = float(sum(p * MEAN_STEPS[kind] for p, kind in zip(odds, kinds, strict=True)))
    step = begin + rng.exponential(mean * (1 - rate) / rate)
    while True:
        kind = kinds[rng.choice(len(kinds), p=odds)]
        size = rng.integers(1, 4) if kind == "spike" else rng.integers(16, 33)
        first = int(step)
        if first + size >= end:
            return intervals
        intervals.append((kind, first, int(first + size)))
        step = first + size + max(2.0, rng.exponential(mean * (1 - rate) / rate))


def reflect(values: Float[np.ndarray, "time"], low: float, high: float) -> Float[np.ndarray, "time"]:
    """Reflects values at the ends of [low, high] until they lie within."""
    width = high - low
    folded = np.mod(values - low, 2 * width)
    return low + np.where(folded > width, 2 * width - folded, folded)
