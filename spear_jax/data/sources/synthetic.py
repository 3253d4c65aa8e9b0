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
    """Generates labelled series.

    Args:
      series: how many.
      length: labelled steps in each.
      past: anomaly-free steps before them, kept as `Series.reference`.
      rate: expected share of anomalous steps.
      seed: the same seed gives the same series; series i does not depend on how many are asked for.
      shortest: 0 gives all series the same length; else lengths are drawn evenly from `shortest` to `length`.

    Returns:
      Series 'synthetic-000', 'synthetic-001', ...

    Raises:
      InputError: `shortest` is above `length`.
    """
    if shortest > length:
        raise InputError(
            f"config.data.synthetic.shortest={shortest} must be 0 to config.data.synthetic.length={length}"
        )

    def one(i: int) -> Series:
        rng = np.random.default_rng((seed, i))
        own = int(rng.integers(shortest, length + 1)) if shortest else length
        return _one(f"synthetic-{i:03d}", own, past, rate, rng)

    return [one(i) for i in range(series)]


def _one(name: str, length: int, past: int, rate: float, rng: np.random.Generator) -> Series:
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
        # Away from the nearer end of the range, so that the step lands among values that are normal elsewhere.
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
