"""Scores to results.json: one table of honest numbers, with the controls beside it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float
from ml_collections import ConfigDict

from spear_jax.data import SPLITS, Dataset, MethodScores, StepScores, combine_columns, find_equal_runs
from spear_jax.evaluation import alarms, thresholds
from spear_jax.evaluation.bootstrap import confidence_intervals
from spear_jax.evaluation.controls import _controls
from spear_jax.evaluation.interval_metrics import mean_over_series, per_series_metrics, point_adjusted_at_k
from spear_jax.evaluation.nab import _nab_scores
from spear_jax.evaluation.pointwise import Metrics, point_metrics
from spear_jax.evaluation.thresholds import Threshold


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores of every split and the numbers made from them.

    Attributes:
      steps: one score per time step, by split.
      names: of the series that `steps` counts in; of the file where its columns have one score per row.
      threshold: applied to them.
      alarm_rule: makes alarms of what is predicted.
      metrics: per step, by split.
      window_metrics: per window, by split; empty for step heads.
      controls: metrics of each control, by control and split, each at a threshold of its own from validation.
      confidence: intervals of the metrics of validation and test, by split and metric.
      nab_scores: of the model and the controls, where whole files of NAB were scored; else empty.
      control_steps: the controls' scores on the test part, by control.
    """

    steps: dict[str, StepScores]
    names: tuple[str, ...]
    threshold: Threshold
    alarm_rule: alarms.Rule
    metrics: dict[str, dict[str, float | None]]
    window_metrics: dict[str, Metrics]
    controls: dict[str, dict[str, dict[str, float | None]]]
    confidence: dict[str, dict[str, list[float] | None]]
    nab_scores: dict[str, Any]
    control_steps: dict[str, StepScores]


def judge_scores(
    config: ConfigDict,
    dataset: Dataset,
    scored: MethodScores,
    *,
    threshold: Threshold | None = None,
    alarm_rule: alarms.Rule | None = None,
) -> Evaluation:
    """Judges the scores of a method, and those of all controls.

    Args:
      config: a whole config.
      dataset: what was scored.
      scored: by the method.
      threshold: a detector's own; without it one is chosen on the validation split.
      alarm_rule: a detector's own, likewise.
    """

    def combined(found: Mapping[str, StepScores]) -> dict[str, StepScores]:
        if config.data.combine == "none":
            return dict(found)
        return {split: combine_columns(one, dataset.recorded, config.data.combine) for split, one in found.items()}

    steps = combined(scored.steps)
    threshold = threshold or threshold_for(config, steps["validation"].label, steps["validation"].score)
    alarm_rule = alarm_rule or alarm_rule_for(config, steps["validation"], threshold)
    controls = {
        name: combined(found) for name, found in {**_controls(config, dataset, scored.steps), **scored.controls}.items()
    }
    apart = config.data.combine == "none"
    return Evaluation(
        steps=steps,
        names=tuple(one.name if apart else one.group or one.name for one in dataset.recorded),
        threshold=threshold,
        alarm_rule=alarm_rule,
        metrics={split: step_metrics(config, split, steps[split], threshold, alarm_rule) for split in SPLITS},
        window_metrics=_window_metrics(dataset, scored.windows, threshold) if scored.windows else {},
        controls={name: _control_metrics(config, name, found) for name, found in controls.items()},
        confidence={
            split: confidence_intervals(
                steps[split].series,
                steps[split].label,
                steps[split].score,
                steps[split].score >= threshold.value,
                interval_metrics(steps[split], threshold),
                seed=config.seed,
            )
            for split in ("validation", "test")
        },
        nab_scores=_nab_scores(config, dataset, {config.method: steps, **controls}),
        control_steps={name: found["test"] for name, found in controls.items()},
    )


def threshold_for(config: ConfigDict, labels: Bool[np.ndarray, "n"], scores: Float[np.ndarray, "n"]) -> Threshold:
    """The threshold that the config's rule picks on validation scores."""
    rule = config.threshold
    return thresholds.choose_threshold(
        rule.rule, labels, scores, false_positive_rate=rule.false_positive_rate, precision=rule.precision
    )


def alarm_rule_for(config: ConfigDict, validation: StepScores, threshold: Threshold) -> alarms.Rule:
    """The config's alarm rule; of what it leaves open, the best on validation."""
    given = config.alarms
    gaps = alarms.GAPS if given.merge_gap < 0 else (given.merge_gap,)
    lengths = (given.min_length,) if given.min_length else alarms.LENGTHS
    return alarms.choose_alarm_rule(_judged(validation, threshold), gaps, lengths)


def _judged(steps: StepScores, threshold: Threshold) -> list[alarms.Stretch]:
    predicted = steps.score >= threshold.value
    return [alarms.Stretch(steps.label[here], steps.score[here], predicted[here]) for here in _stretches(steps)]


def step_metrics(
    config: ConfigDict, name: str, steps: StepScores, threshold: Threshold, alarm_rule: alarms.Rule
) -> dict[str, float | None]:
    """Metrics of a split: pooled over its steps, those of intervals as the mean over its stretches, and of alarms."""
    predicted = steps.score >= threshold.value
    pooled = point_metrics(name, steps.label, steps.score, predicted)
    found = {
        **cast(dict[str, float | None], pooled),
        **mean_over_series(interval_metrics(steps, threshold)),
        **alarms.alarm_metrics(_judged(steps, threshold), alarm_rule),
    }
    k = config.metrics.point_adjusted_k
    if k >= 0:
        every = [point_adjusted_at_k(steps.label[here], predicted[here], k).f1 for here in _stretches(steps)]
        defined = [one for one in every if one is not None]
        found[f"point_adjusted_f1_at_{k:g}"] = float(np.mean(defined)) if defined else None
    return found


def interval_metrics(steps: StepScores, threshold: Threshold) -> list[dict[str, float | None]]:
    """Metrics of intervals of every series; where it has gaps, the mean over its stretches of consecutive steps."""
    predicted = steps.score >= threshold.value
    of_series: dict[int, list[dict[str, float | None]]] = {}
    for here in _stretches(steps):
        found = per_series_metrics(steps.label[here], steps.score[here], predicted[here])
        of_series.setdefault(int(steps.series[here.start]), []).append(found)
    return [mean_over_series(stretches) for stretches in of_series.values()]


def _stretches(steps: StepScores) -> list[slice]:
    starts, ends = find_equal_runs(steps.series, steps.step - np.arange(len(steps.step)))
    return [slice(start, end) for start, end in zip(starts, ends, strict=True)]


def _window_metrics(
    dataset: Dataset, scores: Mapping[str, Float[np.ndarray, "windows"]], threshold: Threshold
) -> dict[str, Metrics]:
    """Metrics of windows at the threshold of the steps, the one that a detector carries."""
    labels = {split: dataset.examples[split].targets[:, 0] > 0 for split in SPLITS}
    return {
        split: point_metrics(f"{split} windows", labels[split], scores[split], scores[split] >= threshold.value)
        for split in SPLITS
    }


def _control_metrics(
    config: ConfigDict, name: str, steps: Mapping[str, StepScores]
) -> dict[str, dict[str, float | None]]:
    """Each control gets its own threshold and alarm rule from validation, as the model does."""
    never = name == "always_normal"
    validation = steps["validation"]
    threshold = Threshold(np.inf, "never") if never else threshold_for(config, validation.label, validation.score)
    rule = alarm_rule_for(config, validation, threshold)
    return {split: step_metrics(config, f"{name}, {split}", steps[split], threshold, rule) for split in SPLITS}
