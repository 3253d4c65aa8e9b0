"""Generated telemetry with labelled anomalies, for a first run that needs no download.

A normal series is level + drift + oscillation + noise, each drawn anew per series: levels and units differ by orders
of magnitude, drifts wander over several times the oscillation's amplitude. Five kinds of anomaly are put in, in equal
shares of anomalous steps:

  spike      1 to 3 steps jump
  shift      the level jumps and comes back later
  trend      the level climbs or falls steadily, then returns
  variance   the noise grows several times
  frequency  the oscillation becomes several times faster

Whatever leaves the range of the series' normal values is reflected back into it, so no single value gives an anomaly
away: only its neighbours do.
"""

import numpy as np
from jaxtyping import Float

from spear_jax.data.series import Series

KINDS = ("spike", "shift", "trend", "variance", "frequency")


def generate(*, series: int, length: int, past: int, rate: float, seed: int) -> list[Series]:
    """Generates labelled series.

    Args:
      series: how many.
      length: labelled steps in each.
      past: anomaly-free steps before them, kept as `Series.reference`.
      rate: expected share of anomalous steps.
      seed: the same seed gives the same series; series i does not depend on how many are asked for.

    Returns:
      Series 'synthetic-000', 'synthetic-001', ...
    """
    return [_one(f"synthetic-{i:03d}", length, past, rate, np.random.default_rng((seed, i))) for i in range(series)]


def _one(name: str, length: int, past: int, rate: float, rng: np.random.Generator) -> Series:
    total = past + length
    steps = np.arange(total)
    intervals = _intervals(past, total, rate, rng)

    frequency = np.full(total, 1 / np.exp(rng.uniform(np.log(12), np.log(32))))
    sigma = np.full(total, rng.uniform(0.03, 0.1))
    labels = np.zeros(total, bool)
    for kind, begin, end in intervals:
        labels[begin:end] = True
        if kind == "variance":
            sigma[begin:end] *= rng.uniform(6, 10)
        elif kind == "frequency":
            frequency[begin:end] *= rng.uniform(3, 5)

    phase = 2 * np.pi * (np.cumsum(frequency) + rng.uniform())
    values = rng.uniform(0.7, 1.0) * np.sin(phase)
    for _ in range(3):
        wave = steps / rng.uniform(200, 600) + rng.uniform()
        values += rng.uniform(0.3, 0.7) * np.sin(2 * np.pi * wave)

    for kind, begin, end in intervals:
        # Away from the nearer end of the range, so that the step lands among values that are normal elsewhere.
        jump = -np.sign(values[begin:end].mean()) * rng.uniform(1.5, 2.5)
        if kind in ("spike", "shift"):
            values[begin:end] += jump
        elif kind == "trend":
            values[begin:end] += 1.25 * jump * np.linspace(0, 1, end - begin)
    values += sigma * rng.normal(size=total)

    normal = values[~labels]
    values = _reflect(values, float(np.min(normal)), float(np.max(normal)))
    values = (rng.normal(0, 50) + np.exp(rng.uniform(-2, 4)) * values).astype(np.float32)
    return Series(name, values[past:], labels[past:], reference=values[:past])


def _intervals(begin: int, end: int, rate: float, rng: np.random.Generator) -> list[tuple[str, int, int]]:
    """Anomaly intervals in [begin, end), apart from each other, with `rate` of the steps in expectation."""
    mean_length = {"spike": 2.0, "shift": 24.0, "trend": 24.0, "variance": 24.0, "frequency": 24.0}
    intervals: list[tuple[str, int, int]] = []
    # Each kind holds the same share of anomalous steps, so short kinds come more often.
    odds = np.array([1 / mean_length[kind] for kind in KINDS])
    odds /= odds.sum()
    mean = float(sum(p * mean_length[kind] for p, kind in zip(odds, KINDS, strict=True)))
    step = begin + rng.exponential(mean * (1 - rate) / rate)
    while True:
        kind = KINDS[rng.choice(len(KINDS), p=odds)]
        size = rng.integers(1, 4) if kind == "spike" else rng.integers(16, 33)
        first = int(step)
        if first + size >= end:
            return intervals
        intervals.append((kind, first, int(first + size)))
        step = first + size + max(2.0, rng.exponential(mean * (1 - rate) / rate))


def _reflect(values: Float[np.ndarray, "time"], low: float, high: float) -> Float[np.ndarray, "time"]:
    """Folds values back into [low, high] at its ends."""
    width = high - low
    folded = np.mod(values - low, 2 * width)
    return low + np.where(folded > width, 2 * width - folded, folded)
