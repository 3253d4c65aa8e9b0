"""Evaluates scores: metrics of a method and its controls, each at a threshold chosen on validation data."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from spear_jax.data import SPLITS, Dataset, MethodScores, StepScores, combine_columns
from spear_jax.evaluation import alarms, thresholds
from spear_jax.evaluation.bootstrap import confidence_intervals
from spear_jax.evaluation.controls import score_controls
from spear_jax.evaluation.interval_metrics import mean_over_series, per_series_metrics, point_adjusted_at_k
from spear_jax.evaluation.nab import nab_scores
from spear_jax.evaluation.pointwise import Metrics, point_metrics
from spear_jax.evaluation.thresholds import Threshold


class DecisionRule(NamedTuple):
    """Turns scores into predicted steps, and those into alarms.

    Attributes:
      threshold: steps with at least this score are predicted anomalous.
      alarms: turns predicted steps into alarms.
      chosen_on: name of the data set on whose validation split both were chosen.
    """

    threshold: Threshold
    alarms: alarms.AlarmRule
    chosen_on: str

    def predict(self, steps: StepScores) -> np.ndarray:
        """Returns True for each step that is predicted anomalous."""
        return steps.score >= self.threshold.value


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores of every split and the metrics computed from them.

    Attributes:
      steps: one score per time step, by split.
      names: names of the series, indexed by `steps.series`; file names if the columns of a file share a score.
      rule: the decision rule applied to the scores.
      metrics: metrics over steps, by split.
      by_series: interval metrics of each series, in the order of `StepScores.by_series`, by split.
      window_metrics: metrics over windows, by split; empty for step heads.
      controls: metrics by control and split, each at its own threshold from validation.
      confidence: confidence intervals by split and metric, for validation and test.
      nab_scores: NAB scores of the method and the controls if whole files of NAB were scored, else empty.
      control_steps: the controls' scores on the test split, by control.
    """

    steps: dict[str, StepScores]
    names: tuple[str, ...]
    rule: DecisionRule
    metrics: dict[str, dict[str, float | None]]
    by_series: dict[str, list[dict[str, float | None]]]
    window_metrics: dict[str, Metrics]
    controls: dict[str, dict[str, dict[str, float | None]]]
    confidence: dict[str, dict[str, list[float] | None]]
    nab_scores: dict[str, Any]
    control_steps: dict[str, StepScores]


def judge_scores(
    config: ConfigDict,
    dataset: Dataset,
    scores: MethodScores,
    rule: DecisionRule,
) -> Evaluation:
    """Evaluates the scores of a method and of all controls."""
    steps = _combined(config, dataset, scores.steps)
    controls = {
        name: _combined(config, dataset, control)
        for name, control in {**score_controls(config, dataset, scores.steps), **scores.controls}.items()
    }
    by_column = config.data.combine == "none"
    by_series = {split: interval_metrics_by_series(steps[split], rule.threshold) for split in SPLITS}
    return Evaluation(
        steps=steps,
        names=tuple(series.name if by_column else series.group or series.name for series in dataset.recorded),
        rule=rule,
        metrics={split: step_metrics(config, split, steps[split], rule, by_series[split]) for split in SPLITS},
        by_series=by_series,
        window_metrics=_window_metrics(dataset, scores.windows, rule.threshold) if scores.windows else {},
        controls={name: _control_metrics(config, name, control) for name, control in controls.items()},
        confidence={
            split: confidence_intervals(
                steps[split].series,
                steps[split].label,
                steps[split].score,
                rule.predict(steps[split]),
                by_series[split],
                seed=config.seed,
            )
            for split in ("validation", "test")
        },
        nab_scores=nab_scores(config, dataset, {config.method: steps, **controls}),
        control_steps={name: control["test"] for name, control in controls.items()},
    )


def choose_rule(config: ConfigDict, dataset: Dataset, validation: StepScores) -> DecisionRule:
    """Chooses threshold and alarm rule on the validation split; `config.alarms` may fix parts of the latter."""
    steps = _combined(config, dataset, {"validation": validation})["validation"]
    return _choose_rule(config, dataset.name, steps)


def step_metrics(
    config: ConfigDict, name: str, steps: StepScores, rule: DecisionRule, by_series: list[dict[str, float | None]]
) -> dict[str, float | None]:
    """Returns the metrics of a split, given the interval metrics of its series.

    Returns:
      Point-wise metrics pooled over the steps, interval metrics averaged over the series, and alarm metrics counted
      over all stretches.
    """
    predicted = rule.predict(steps)
    metrics = {
        **cast(dict[str, float | None], point_metrics(name, steps.label, steps.score, predicted)),
        **mean_over_series(by_series),
        **alarms.alarm_metrics(_alarm_stretches(steps, rule.threshold), rule.alarms),
    }
    k = config.metrics.point_adjusted_k
    if k >= 0:
        scores = [point_adjusted_at_k(stretch.label, rule.predict(stretch), k).f1 for stretch in steps.stretches()]
        defined = [score for score in scores if score is not None]
        metrics[f"point_adjusted_f1_at_{k:g}"] = float(np.mean(defined)) if defined else None
    return metrics


def interval_metrics_by_series(steps: StepScores, threshold: Threshold) -> list[dict[str, float | None]]:
    """Returns the interval metrics of each series, averaged over its stretches if it has gaps."""
    return [
        mean_over_series(
            [
                per_series_metrics(stretch.label, stretch.score, stretch.score >= threshold.value)
                for stretch in series.stretches()
            ]
        )
        for series in steps.by_series()
    ]


def _combined(config: ConfigDict, dataset: Dataset, splits: Mapping[str, StepScores]) -> dict[str, StepScores]:
    """Returns one score per row if the config combines the columns of a file, else one per step of every column."""
    if config.data.combine == "none":
        return dict(splits)
    return {split: combine_columns(steps, dataset.recorded, config.data.combine) for split, steps in splits.items()}


def _choose_rule(config: ConfigDict, dataset_name: str, validation: StepScores) -> DecisionRule:
    threshold = thresholds.choose_threshold(
        config.threshold.rule,
        validation.label,
        validation.score,
        false_positive_rate=config.threshold.false_positive_rate,
        precision=config.threshold.precision,
    )
    return DecisionRule(threshold, _choose_alarm_rule(config, validation, threshold), dataset_name)


def _choose_alarm_rule(config: ConfigDict, validation: StepScores, threshold: Threshold) -> alarms.AlarmRule:
    fixed = config.alarms
    gaps = alarms.GAPS if fixed.merge_gap < 0 else (fixed.merge_gap,)
    lengths = (fixed.min_length,) if fixed.min_length else alarms.LENGTHS
    return alarms.choose_alarm_rule(_alarm_stretches(validation, threshold), gaps, lengths)


def _alarm_stretches(steps: StepScores, threshold: Threshold) -> list[alarms.Stretch]:
    return [
        alarms.Stretch(stretch.label, stretch.score, stretch.score >= threshold.value) for stretch in steps.stretches()
    ]


def _window_metrics(
    dataset: Dataset, scores: Mapping[str, Float[np.ndarray, "_windows"]], threshold: Threshold
) -> dict[str, Metrics]:
    """Returns metrics over windows at the threshold of the steps, since that is the one a detector carries."""
    labels = {split: dataset.examples[split].targets[:, 0] > 0 for split in SPLITS}
    return {
        split: point_metrics(f"{split} windows", labels[split], scores[split], scores[split] >= threshold.value)
        for split in SPLITS
    }


def _control_metrics(
    config: ConfigDict, name: str, steps: Mapping[str, StepScores]
) -> dict[str, dict[str, float | None]]:
    """Returns a control's metrics, at its own threshold and alarm rule from validation."""
    if name == "always_normal":
        threshold = Threshold(np.inf, "never")
        rule = DecisionRule(threshold, _choose_alarm_rule(config, steps["validation"], threshold), "")
    else:
        rule = _choose_rule(config, "", steps["validation"])
    by_series = {split: interval_metrics_by_series(steps[split], rule.threshold) for split in SPLITS}
    with warnings.catch_warnings():
        # The labels are those of the method, which warns.
        warnings.filterwarnings("ignore", ".*one class only")
        return {split: step_metrics(config, name, steps[split], rule, by_series[split]) for split in SPLITS}
