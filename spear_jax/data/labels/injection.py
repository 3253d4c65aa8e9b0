"""Anomalies put into recorded series, for data that nobody labelled: what is put in is known exactly.

A detector trained on these finds these; whether it finds what goes wrong in reality is another question, and every
output says that the labels were injected.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from spear_jax.data.series import Series

# Mean steps of an anomaly of each kind.
KINDS = {"spike": 2.0, "shift": 24.0, "trend": 24.0, "variance": 24.0, "frequency": 24.0}


def inject(stretches: Sequence[Series], rate: float, seed: int) -> list[Series]:
    """Puts spikes, level shifts, trends, noisy and sped-up stretches into copies of series.

    Sizes are drawn relative to the range between the 5th and the 95th percentile of the stretch; whatever leaves the
    stretch's own range is reflected back into it, so that no single value gives an anomaly away.

    Args:
      stretches: the series; missing values stay missing.
      rate: expected share of anomalous steps.
      seed: the same seed puts the same anomalies into the same stretch.

    Returns:
      The series with changed values and new labels.
    """
    return [_one(one, rate, np.random.default_rng((seed, *one.name.encode(), one.start))) for one in stretches]


def _one(series: Series, rate: float, rng: np.random.Generator) -> Series:
    values, labels = series.values.astype(np.float64), np.zeros(len(series), bool)
    known = values[np.isfinite(values)]
    if not len(known):
        return dataclasses.replace(series, labels=labels)
    low, high = float(np.min(known)), float(np.max(known))
    size = float(np.subtract(*np.quantile(known, (0.95, 0.05)))) or high - low or max(abs(high), 1.0)
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
            faster = begin + (np.arange(end - begin) * rng.integers(3, 6)) % (end - begin)
            values[begin:end] = values[faster]
    if high > low:  # a constant series has no range to fold into
        values = reflect(values, low, high)
    return dataclasses.replace(series, values=values.astype(series.values.dtype), labels=labels)


def draw_intervals(begin: int, end: int, rate: float, rng: np.random.Generator) -> list[tuple[str, int, int]]:
    """Anomaly intervals in [begin, end), apart from each other, with `rate` of the steps in expectation."""
    found: list[tuple[str, int, int]] = []
    # Each kind holds the same share of anomalous steps, so short kinds come more often.
    kinds = tuple(KINDS)
    odds = np.array([1 / KINDS[kind] for kind in kinds])
    odds /= odds.sum()
    mean = float(sum(p * KINDS[kind] for p, kind in zip(odds, kinds, strict=True)))
    step = begin + rng.exponential(mean * (1 - rate) / rate)
    while True:
        kind = kinds[rng.choice(len(kinds), p=odds)]
        size = rng.integers(1, 4) if kind == "spike" else rng.integers(16, 33)
        first = int(step)
        if first + size >= end:
            return found
        found.append((kind, first, int(first + size)))
        step = first + size + max(2.0, rng.exponential(mean * (1 - rate) / rate))


def reflect(values: Float[np.ndarray, "time"], low: float, high: float) -> Float[np.ndarray, "time"]:
    """Folds values back into [low, high] at its ends."""
    width = high - low
    folded = np.mod(values - low, 2 * width)
    return low + np.where(folded > width, 2 * width - folded, folded)
