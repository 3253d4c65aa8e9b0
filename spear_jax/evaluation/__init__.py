"""Evaluates scores: metrics, thresholds, alarms, controls, results.json."""

from spear_jax.evaluation.alarms import Alarm, AlarmRule, Alarms
from spear_jax.evaluation.bootstrap import paired_interval
from spear_jax.evaluation.judge import DecisionRule, Evaluation, choose_rule, judge_scores
from spear_jax.evaluation.pointwise import point_metrics, ranking_metrics
from spear_jax.evaluation.readout import Readout, ReadoutStream, read_out
from spear_jax.evaluation.record import RunRecord
from spear_jax.evaluation.results import (
    compose_results,
    per_series,
    read_results,
    read_table,
    versions,
    write_results,
)
from spear_jax.evaluation.thresholds import Threshold

__all__ = [
    "Alarm",
    "AlarmRule",
    "Alarms",
    "DecisionRule",
    "Evaluation",
    "Readout",
    "ReadoutStream",
    "RunRecord",
    "Threshold",
    "choose_rule",
    "compose_results",
    "judge_scores",
    "paired_interval",
    "per_series",
    "point_metrics",
    "ranking_metrics",
    "read_out",
    "read_results",
    "read_table",
    "versions",
    "write_results",
]
