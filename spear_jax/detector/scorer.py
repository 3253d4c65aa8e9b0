"""Puts a detector on its devices: windows of raw values in, scores out."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from spear_jax.backbones import Backbone
from spear_jax.config import check_length, view_names
from spear_jax.data import Examples, TableScaler, TableViews, Windows, quantize_views
from spear_jax.detector.artifact import Detector
from spear_jax.errors import InputError
from spear_jax.model import PlacedModel


class Column(NamedTuple):
    """A column of a table that is scored as a series: the names of both."""

    series: str
    name: str


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A detector and its model on all devices.

    A window has as many steps as in training, or the maximum of the backbone if training used whole series.
    """

    detector: Detector
    model: PlacedModel
    window: int

    @classmethod
    def place(cls, detector: Detector, backbone: Backbone, batch_size: int) -> "Scorer":
        """Puts a detector on all devices.

        Raises:
          InputError: the backbone is not the one that it was trained with, or too short for the detector's window.
        """
        config = detector.config
        check_length(config, config.data.window, backbone.max_positions)
        model = detector.assemble(backbone).with_batch_size(batch_size)
        positions = backbone.max_positions - config.prompt.length - 1
        window = config.data.window or positions * config.quantizer.patch
        return cls(detector, model, window)

    def with_batch_size(self, batch_size: int) -> "Scorer":
        """Returns the scorer of `batch_size` windows at a time."""
        return dataclasses.replace(self, model=self.model.with_batch_size(batch_size))

    def stride_or_window(self, stride: int) -> int:
        """Returns the stride, or the window if it is 0.

        Raises:
          InputError: the stride is longer than the window, so that some rows would lie in no window.
        """
        if stride > self.window:
            raise InputError(
                f"config.score.stride={stride} must be at most {self.window}, the steps in the detector's window, so"
                " that every row lies in one"
            )
        return stride or self.window

    def scaler(self, columns: Sequence[Column]) -> TableScaler:
        """Makes the scaler of a new table; a series that the detector was trained on keeps its range."""
        quantizer = self.detector.config.quantizer
        return TableScaler(
            quantizer.scale,
            [self.detector.range_of(column.series, column.name) for column in columns],
            reference_steps=quantizer.reference_steps,
            margin=quantizer.margin,
            typical_width=self.detector.typical_width,
        )

    def views(self, columns: Sequence[Column]) -> TableViews:
        """Makes the views of a new table; a series that the detector was trained on keeps its reference."""
        quantizer = self.detector.config.quantizer
        return TableViews(
            view_names(self.detector.config)[1:],
            [self.detector.reference_of(column.series, column.name) for column in columns],
            reference_steps=quantizer.reference_steps,
            typical_width=self.detector.typical_width,
            whole=quantizer.scale == "series",
        )

    def score(
        self,
        values: Float[np.ndarray, "windows time"],
        views: Float[np.ndarray, "windows time views"],
        real: Bool[np.ndarray, "windows time"],
        columns: Int[np.ndarray, "windows"],
        scaler: TableScaler,
    ) -> Float[np.ndarray, "windows time"]:
        """Returns P(anomalous) for windows of raw values and further views of one column each; NaN in padding."""
        windows = Windows(values, np.zeros_like(real), real, columns, np.zeros(len(values), int))
        quantizer = self.detector.config.quantizer
        examples = Examples(
            bins=self.detector.quantizer(scaler(windows)),
            views=quantize_views(view_names(self.detector.config)[1:], views, quantizer.bins),
            mask=real & np.isfinite(values) if quantizer.missing == "mask" else real,
            targets=np.zeros(values.shape, np.float32),
            lengths=np.full(len(values), values.shape[1]),
        )
        return self.model.score(examples)
