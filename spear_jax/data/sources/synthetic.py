"""Generates telemetry with labelled anomalies, for a first run without a download.

A normal series is the sum of level, drift, oscillation and noise, drawn for each series: levels and units differ by
orders of magnitude, and drifts span several times the oscillation's amplitude. Five kinds of anomaly are injected, each
with the same share of anomalous steps:

  spike      1 to 3 steps jump
  shift      the level jumps and later returns
  trend      the level climbs or falls steadily, then returns
  variance   the noise grows several times
  frequency  the oscillation becomes several times faster

Values beyond the range of the series' normal values are reflected back into it, so that an anomaly shows only in
relation to its neighbours, never in a single value.
"""

import numpy as np

from spear_jax.data.labels import draw_intervals, reflect
from spear_jax.data.series import Series
from spear_jax.errors import InputError


def generate_series(
    *,
    series: int,
    length: int,
    past: int,
    rate: float,
    seed: int,
    shortest: int = 0,
) -> list[Series]:
    """Generates labelled series 'synthetic-000', 'synthetic-001', ...

    Args:
      series: number of series.
      length: labelled steps in each.
      past: anomaly-free steps before them, kept as `Series.reference`.
      rate: expected share of anomalous steps.
      seed: the same seed gives the same series; series i does not depend on their number.
      shortest: 0 makes all series equally long; else lengths are drawn uniformly from `shortest` to `length`.

    Raises:
      InputError: `shortest` is above `length`.
    """
    if shortest > length:
        raise InputError(
            f"config.data.synthetic.shortest={shortest} must be at most config.data.synthetic.length={length}"
        )

    generated = []
    for i in range(series):
        rng = np.random.default_rng((seed, i))
        steps = int(rng.integers(shortest, length + 1)) if shortest else length
        generated.append(_generate_one(f"synthetic-{i:03d}", steps, past, rate, rng))
    return generated


def _generate_one(name: str, length: int, past: int, rate: float, rng: np.random.Generator) -> Series:
    total = past + length
    steps = np.arange(total)
    anomalies = draw_intervals(past, total, rate, rng)

    frequency = np.full(total, 1 / np.exp(rng.uniform(np.log(12), np.log(32))))
    sigma = np.full(total, rng.uniform(0.03, 0.1))
    labels = np.zeros(total, bool)
    for kind, begin, end in anomalies:
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

    for kind, begin, end in anomalies:
        # Away from the nearer end of the range, towards values that are normal in other places.
        jump = -np.sign(values[begin:end].mean()) * rng.uniform(1.5, 2.5)
        if kind in ("spike", "shift"):
            values[begin:end] += jump
        elif kind == "trend":
            values[begin:end] += 1.25 * jump * np.linspace(0, 1, end - begin)
    values += sigma * rng.normal(size=total)

    normal = values[~labels]
    values = reflect(values, float(np.min(normal)), float(np.max(normal)))
    values = (rng.normal(0, 50) + np.exp(rng.uniform(-2, 4)) * values).astype(np.float32)
    return Series(name, values[past:], labels[past:], reference=values[:past])
