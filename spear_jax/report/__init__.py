"""Presents results: tables, figures and one page."""

from spear_jax.report.introduction import describe_notes, describe_splits, introduce
from spear_jax.report.labels import COLUMNS, NAMES, counted, describe_readout, describe_rule, format_number, shortened
from spear_jax.report.page import write_report
from spear_jax.report.score_figure import Envelopes
from spear_jax.report.terminal import results_table

__all__ = [
    "COLUMNS",
    "NAMES",
    "Envelopes",
    "counted",
    "describe_notes",
    "describe_readout",
    "describe_rule",
    "describe_splits",
    "format_number",
    "introduce",
    "results_table",
    "shortened",
    "write_report",
]
