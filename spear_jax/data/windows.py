"""Cuts stretches of series into windows of equal length."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from spear_jax.data.series import Series, series_offsets


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of one split, padded on the right if a stretch is shorter than a window.

    Attributes:
      values: values in the source's own unit; NaN where nothing was recorded, and in padding.
      labels: True where the step is anomalous.
      real: True where the step exists, False in padding.
      series: index of the recorded series; -1 for a synthesized window.
      start: the window's first step in the recorded series; -1 for a synthesized window.
    """

    values: Float[np.ndarray, "windows time"]
    labels: Bool[np.ndarray, "windows time"]
    real: Bool[np.ndarray, "windows time"]
    series: Int[np.ndarray, "windows"]
    start: Int[np.ndarray, "windows"]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def lengths(self) -> Int[np.ndarray, "windows"]:
        """Returns the number of real steps of each window; they come before its padding."""
        return self.real.sum(axis=1)

    def select(self, chosen: Bool[np.ndarray, "windows"]) -> "Windows":
        """Returns the chosen windows."""
        return Windows(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


def window_starts(length: int, window: int, stride: int) -> Int[np.ndarray, "windows"]:
    """Returns the first steps of the windows over `length` steps; the last window ends with the series."""
    if length <= window:
        return np.zeros(min(length, 1), int)
    starts = np.arange(0, length - window + 1, stride)
    return starts if starts[-1] == length - window else np.append(starts, length - window)


def cut_windows(stretches: Sequence[Series], names: Sequence[str], window: int, stride: int) -> Windows:
    """Cuts stretches into windows, in their order; the last window of a stretch ends with it.

    Args:
      stretches: stretches of recorded series, of any length.
      names: names of the recorded series, in the order in which `Windows.series` counts them.
      window: steps in a window.
      stride: steps from one window to the next.
    """
    numbers = {name: i for i, name in enumerate(names)}
    values, labels, real, series, start = [], [], [], [], []
    for stretch in stretches:
        starts = window_starts(len(stretch), window, stride)
        padding = (0, max(window - len(stretch), 0))
        values.append(_cut(np.pad(stretch.values, padding, constant_values=np.nan), window, starts))
        labels.append(_cut(np.pad(stretch.labels, padding), window, starts))
        real.append(_cut(np.pad(np.ones(len(stretch), bool), padding), window, starts))
        series.append(np.full(len(starts), numbers[stretch.name]))
        start.append(stretch.start + starts)
    return Windows(
        values=np.concatenate(values),
        labels=np.concatenate(labels),
        real=np.concatenate(real),
        series=np.concatenate(series),
        start=np.concatenate(start),
    )


def cut_views(
    stretches: Sequence[Float[np.ndarray, "_time views"]], window: int, stride: int
) -> Float[np.ndarray, "windows time views"]:
    """Cuts numbers per step of stretches into the windows that `cut_windows` cuts of them; NaN is padding."""
    parts = []
    for numbers in stretches:
        padded = np.pad(numbers, ((0, max(window - len(numbers), 0)), (0, 0)), constant_values=np.nan)
        cut = np.lib.stride_tricks.sliding_window_view(padded, window, axis=0)
        parts.append(cut[window_starts(len(numbers), window, stride)].transpose(0, 2, 1))
    return np.concatenate(parts)


def windows_at(
    stretches: Sequence[Series],
    names: Sequence[str],
    numbers: Int[np.ndarray, "windows"],
    starts: Int[np.ndarray, "windows"],
    window: int,
) -> Windows:
    """Cuts a window at each of the given starts.

    Args:
      stretches: stretches of recorded series.
      names: names of the recorded series.
      numbers: index of the stretch that each window lies in.
      starts: first step of each window in its stretch; a window that would begin before its stretch is all padding.
      window: steps in a window.
    """
    steps = (series_offsets(stretches)[numbers] + np.maximum(starts, 0))[:, None] + np.arange(window)
    real = np.broadcast_to((starts >= 0)[:, None], steps.shape)
    indices = {name: i for i, name in enumerate(names)}
    values = np.concatenate([stretch.values for stretch in stretches])[steps]
    return Windows(
        values=np.where(real, values, np.nan).astype(values.dtype),
        labels=np.concatenate([stretch.labels for stretch in stretches])[steps] & real,
        real=real,
        series=np.array([indices[stretch.name] for stretch in stretches])[numbers],
        start=np.array([stretch.start for stretch in stretches])[numbers] + starts,
    )


def flat_steps(windows: Windows, recorded: Sequence[Series]) -> Int[np.ndarray, "real_steps"]:
    """Returns the index of each real step of the windows in the concatenation of the recorded series."""
    steps = (series_offsets(recorded)[windows.series] + windows.start)[:, None] + np.arange(windows.real.shape[1])
    return steps[windows.real]


def _cut(
    steps: Shaped[np.ndarray, "time"], window: int, starts: Int[np.ndarray, "windows"]
) -> Shaped[np.ndarray, "windows window"]:
    return np.lib.stride_tricks.sliding_window_view(steps, window)[starts]
