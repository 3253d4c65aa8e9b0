"""Holds the trained artifact and scores new series with it."""

from spear_jax.detector.artifact import Detector, load_detector
from spear_jax.detector.file_scores import TIME_FORMAT, AlarmTable, columns, score_file, write_scores
from spear_jax.detector.stream import Column, Scorer, Stream, fit_scaler, rows_for_scale

__all__ = [
    "TIME_FORMAT",
    "AlarmTable",
    "Column",
    "Detector",
    "Scorer",
    "Stream",
    "columns",
    "fit_scaler",
    "load_detector",
    "rows_for_scale",
    "score_file",
    "write_scores",
]
