"""Holds the trained artifact and scores new series with it."""

from spear_jax.detector.artifact import CARRIED, OF_THE_MACHINE, Detector, carry, load_detector
from spear_jax.detector.file_scores import TIME_FORMAT, AlarmTable, columns, score_file, write_scores
from spear_jax.detector.stream import Column, Scorer, Stream, fit_scaler, rows_for_scale

__all__ = [
    "CARRIED",
    "OF_THE_MACHINE",
    "TIME_FORMAT",
    "AlarmTable",
    "Column",
    "Detector",
    "Scorer",
    "Stream",
    "carry",
    "columns",
    "fit_scaler",
    "load_detector",
    "rows_for_scale",
    "score_file",
    "write_scores",
]
