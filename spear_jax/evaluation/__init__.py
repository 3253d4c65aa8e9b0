"""Judges scores: metrics, thresholds, alarms, controls, results.json."""

from spear_jax.evaluation.alarms import Alarm, Alarms, Rule
from spear_jax.evaluation.judge import Evaluation, alarm_rule_for, judge_scores, threshold_for
from spear_jax.evaluation.pointwise import ranking_metrics
from spear_jax.evaluation.results import SCHEMA, compose_results, per_series, versions, write_results
from spear_jax.evaluation.thresholds import Threshold

__all__ = [
    "SCHEMA",
    "Alarm",
    "Alarms",
    "Evaluation",
    "Rule",
    "Threshold",
    "alarm_rule_for",
    "compose_results",
    "judge_scores",
    "per_series",
    "ranking_metrics",
    "threshold_for",
    "versions",
    "write_results",
]
