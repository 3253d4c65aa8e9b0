"""Where 0 and 1 lie for each series."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from spear_jax.data.series import Series
from spear_jax.data.windows import Windows

LOOKS_AHEAD = (
    "quantizer.scale='series' takes minimum and maximum over the whole series, future included: offline use only"
)


_FARTHEST = 1e30  # from the range, in its widths: beyond, float32 would be infinite


_NO_CHANGE = 1e-9  # of a value, relative to it


class Scaler:
    """Minimum and maximum of a reference stretch of each series, mapped to [0, 1].

    The reference of scale='train' is the same for a series seen in training and for a new one, so that the model
    meets at test time what it met in training: `Series.reference` where the source has an anomaly-free past; else
    the stretches in the training split when series are cut in time; else `reference_steps` steps from the first value.
    A reference that does not vary says nothing about the size of a change: its value is put in the middle of a
    range as wide as the median range of the training series.
    """

    def __init__(
        self,
        scale: str,
        recorded: Sequence[Series],
        train: Sequence[Series],
        *,
        reference_steps: int,
        margin: float,
        typical_width: float = 0.0,
        ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """Fits the ranges.

        Args:
          scale: 'train', 'series' (the whole series: looks ahead) or 'window' (each window on its own).
          recorded: every series that will be scaled.
          train: stretches of the training split; empty when a finished detector scales new series.
          reference_steps: steps of a series without a past that serve as its reference.
          margin: share of the range that is added below and above it.
          typical_width: width for a reference that does not vary; 0 means: the median over `train`.
          ranges: where 0 and 1 lie for series of these names, whatever their reference is.
        """
        self.scale, self.margin = scale, margin
        references = _references(scale, recorded, train, reference_steps)
        limits = np.array([_limits(reference) for reference in references])
        self._low, self._width = limits[:, 0], limits[:, 1] - limits[:, 0]
        # What sums and conversions leave behind is no change; the unit says nothing of what is.
        constant = ~(self._width > _NO_CHANGE * np.abs(limits).max(axis=1))
        in_training = {one.name for one in train}
        known = [
            width
            for one, width, same in zip(recorded, self._width, constant, strict=True)
            if not same and (one.name in in_training or not train)
        ]
        self.typical_width = typical_width or (float(np.median(known)) if known else 1.0)
        self._low = np.where(constant, limits.mean(axis=1) - self.typical_width / 2, self._low)
        self._width = np.where(constant, self.typical_width, self._width)
        for i, one in enumerate(recorded):
            if ranges and one.name in ranges:
                self._low[i], self._width[i] = ranges[one.name][0], ranges[one.name][1] - ranges[one.name][0]

    @property
    def ranges(self) -> list[tuple[float, float]]:
        """Where 0 and 1 lie for each recorded series, margin left out."""
        return list(zip(self._low.tolist(), (self._low + self._width).tolist(), strict=True))

    def __call__(self, windows: Windows) -> Float[np.ndarray, "windows time"]:
        """Scaled values: within [0, 1] inside the reference range, beyond it outside; NaN stays NaN."""
        if self.scale == "window":
            limits = np.array([_limits(values) for values in windows.values])
            low, width = limits[:, 0], limits[:, 1] - limits[:, 0]
            low, width = np.where(width > 0, low, low - 0.5), np.where(width > 0, width, 1.0)
        else:
            low, width = self._low[windows.series], self._width[windows.series]
        low, width = low - self.margin * width, width * (1 + 2 * self.margin)
        return np.clip((windows.values - low[:, None]) / width[:, None], -_FARTHEST, _FARTHEST).astype(np.float32)


def _references(
    scale: str, recorded: Sequence[Series], train: Sequence[Series], reference_steps: int
) -> list[Float[np.ndarray, "steps"]]:
    if scale != "train":
        return [one.values for one in recorded]
    whole = {one.name: len(one) for one in recorded}
    seen: Mapping[str, list[np.ndarray]] = {}
    for stretch in train:
        if len(stretch) < whole[stretch.name]:  # cut in time: the rest of it is validation or test
            seen.setdefault(stretch.name, []).append(stretch.values)  # type: ignore[attr-defined]
    references = []
    for one in recorded:
        if len(one.reference):
            references.append(one.reference)
        elif one.name in seen:
            references.append(np.concatenate(seen[one.name]))
        else:
            references.append(from_first_value(one.values)[:reference_steps])
    return references


def from_first_value(values: Float[np.ndarray, "time"]) -> Float[np.ndarray, "rest"]:
    """What comes after the missing values at the beginning; nothing where all are missing."""
    known = np.isfinite(values)
    return values[int(np.argmax(known)) :] if known.any() else values[:0]


def _limits(values: Float[np.ndarray, "steps"]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
