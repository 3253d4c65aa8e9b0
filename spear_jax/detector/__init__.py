"""Defines the trained artifact, and scores new series with it."""

from spear_jax.detector.artifact import Detector, load_detector
from spear_jax.detector.file_scores import TIME_FORMAT, AlarmTable, Scoring, list_columns, score_table, write_scores
from spear_jax.detector.scorer import Column, Scorer
from spear_jax.detector.stream import Stream

__all__ = [
    "TIME_FORMAT",
    "AlarmTable",
    "Column",
    "Detector",
    "Scorer",
    "Scoring",
    "Stream",
    "list_columns",
    "load_detector",
    "score_table",
    "write_scores",
]
