"""Windows of equal length cut from stretches of series, and scores per window put back in their places."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

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

    @property
    def lengths(self) -> Int[np.ndarray, "windows"]:
        """Real steps of each window; padding stands behind them."""
        return self.real.sum(axis=1)

    def take(self, chosen: Bool[np.ndarray, "windows"]) -> "Windows":
        """Some of the windows."""
        return Windows(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


def cut_windows(stretches: Sequence[Series], names: Sequence[str], window: int, stride: int) -> Windows:
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
        padding = (0, max(window - len(stretch), 0))
        values.append(_rows(np.pad(stretch.values, padding, constant_values=np.nan), window, starts))
        labels.append(_rows(np.pad(stretch.labels, padding), window, starts))
        real.append(_rows(np.pad(np.ones(len(stretch), bool), padding), window, starts))
        series.append(np.full(len(starts), index[stretch.name]))
        start.append(stretch.start + starts)
    return Windows(
        values=np.concatenate(values),
        labels=np.concatenate(labels),
        real=np.concatenate(real),
        series=np.concatenate(series),
        start=np.concatenate(start),
    )


def windows_at(
    stretches: Sequence[Series],
    names: Sequence[str],
    numbers: Int[np.ndarray, "windows"],
    starts: Int[np.ndarray, "windows"],
    window: int,
) -> Windows:
    """Windows at given places.

    Args:
      stretches: stretches of recorded series.
      names: names of the recorded series.
      numbers: which stretch each window lies in.
      starts: first step of each window in its stretch; windows that begin before it are padding throughout.
      window: steps in a window.
    """
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in stretches])])
    steps = (offsets[numbers] + np.maximum(starts, 0))[:, None] + np.arange(window)
    real = np.broadcast_to((starts >= 0)[:, None], steps.shape)
    index = {name: i for i, name in enumerate(names)}
    values = np.concatenate([one.values for one in stretches])[steps]
    return Windows(
        values=np.where(real, values, np.nan).astype(values.dtype),
        labels=np.concatenate([one.labels for one in stretches])[steps] & real,
        real=real,
        series=np.array([index[one.name] for one in stretches])[numbers],
        start=np.array([one.start for one in stretches])[numbers] + starts,
    )


def concatenate(parts: Sequence[Windows]) -> Windows:
    """Windows of equal length, one after the other."""
    fields = [field.name for field in dataclasses.fields(Windows)]
    return Windows(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


def _rows(steps: np.ndarray, window: int, starts: Int[np.ndarray, "windows"]) -> Shaped[np.ndarray, "windows time"]:
    return np.lib.stride_tricks.sliding_window_view(steps, window)[starts]


def flat_steps(windows: Windows, recorded: Sequence[Series]) -> Int[np.ndarray, "windows time"]:
    """Where each step of each window lies in the recorded series, laid end to end; meaningless in padding."""
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in recorded])])
    return (offsets[windows.series] + windows.start)[:, None] + np.arange(windows.real.shape[1])
