"""Windows of equal length cut from stretches of series, and scores per window put back in their places."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from spear_jax.data.series import Series
from spear_jax.data.splits import window_starts


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of one split, padded on the right where a stretch is shorter than a window.

    Attributes:
      values: scaled or raw values; NaN where nothing was recorded and in padding.
      labels: True where the step is anomalous.
      real: True where the step exists, False in padding.
      series: index of the recorded series.
      start: the window's first step in the recorded series.
    """

    values: Float[np.ndarray, "windows time"]
    labels: Bool[np.ndarray, "windows time"]
    real: Bool[np.ndarray, "windows time"]
    series: Int[np.ndarray, "windows"]
    start: Int[np.ndarray, "windows"]

    def __len__(self) -> int:
        return len(self.values)


@dataclasses.dataclass(frozen=True)
class StepScores:
    """One score per time step of a split, in order of series and step.

    Attributes:
      series: index of the recorded series.
      step: the step in the recorded series.
      value: the recorded value, in the source's unit.
      label: True where the step is anomalous.
      score: higher is more anomalous.
    """

    series: Int[np.ndarray, "steps"]
    step: Int[np.ndarray, "steps"]
    value: Float[np.ndarray, "steps"]
    label: Bool[np.ndarray, "steps"]
    score: Float[np.ndarray, "steps"]


def cut(stretches: Sequence[Series], names: Sequence[str], window: int, stride: int) -> Windows:
    """Cuts stretches into windows; the last window of a stretch ends with it.

    Args:
      stretches: stretches of recorded series, of any length.
      names: names of the recorded series; a stretch is found in them by its name.
      window: steps in a window.
      stride: steps from one window to the next.

    Returns:
      All windows, in the order of the stretches.
    """
    index = {name: i for i, name in enumerate(names)}
    values, labels, real, series, start = [], [], [], [], []
    for stretch in stretches:
        starts = window_starts(len(stretch), window, stride)
        steps = starts[:, None] + np.arange(window)
        exists = steps < len(stretch)
        inside = np.minimum(steps, len(stretch) - 1)
        values.append(np.where(exists, stretch.values[inside], np.nan).astype(np.float32))
        labels.append(stretch.labels[inside] & exists)
        real.append(exists)
        series.append(np.full(len(starts), index[stretch.name]))
        start.append(stretch.start + starts)
    return Windows(
        values=np.concatenate(values),
        labels=np.concatenate(labels),
        real=np.concatenate(real),
        series=np.concatenate(series),
        start=np.concatenate(start),
    )


def stitch(windows: Windows, scores: Float[np.ndarray, "windows time"], recorded: Sequence[Series]) -> StepScores:
    """Scores per window and step to one score per step: the mean where windows overlap.

    Args:
      windows: the windows that were scored.
      scores: a score per step of every window; what stands in padding is not read.
      recorded: the recorded series that `windows.series` counts in.

    Returns:
      Every step that lies in a window, exactly once.
    """
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in recorded])])
    place = (offsets[windows.series] + windows.start)[:, None] + np.arange(scores.shape[1])
    place, flat = place[windows.real], scores[windows.real]
    total = np.bincount(place, flat.astype(np.float64), minlength=int(offsets[-1]))
    count = np.bincount(place, minlength=int(offsets[-1]))
    covered = np.flatnonzero(count)
    series = np.searchsorted(offsets, covered, side="right") - 1
    return StepScores(
        series=series,
        step=covered - offsets[series],
        value=np.concatenate([one.values for one in recorded])[covered],
        label=np.concatenate([one.labels for one in recorded])[covered],
        score=total[covered] / count[covered],
    )
