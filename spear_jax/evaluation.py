"""Scores to results.json: one table of honest numbers, with the controls beside it."""

import dataclasses
import importlib.metadata
import io
import itertools
import json
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from etils import epath
from jaxtyping import Bool, Float
from ml_collections import ConfigDict

from spear_jax import alarms, thresholds
from spear_jax.backbones.backbone import Backbone
from spear_jax.baselines.classical import bin_lookup, rolling_zscores
from spear_jax.confidence import bootstrap
from spear_jax.data.dataset import Dataset
from spear_jax.data.splits import SPLITS
from spear_jax.data.windows import StepScores, combine, stitch
from spear_jax.files import write_whole
from spear_jax.interval_metrics import mean_over_series, per_series_metrics, point_adjusted_at_k
from spear_jax.metrics import Metrics, point_metrics
from spear_jax.model import Assembled, count
from spear_jax.nab_score import PROFILES, ScoredFile, sweep
from spear_jax.thresholds import Threshold

SCHEMA = 1
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "scikit-learn",
    "spear_jax",
)


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


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a method says of every split.

    Attributes:
      steps: one score per time step, by split.
      windows: a window head's scores per window, by split; else empty.
      controls: scores of controls that take the method's own model, by name and split.
      warnings: what every output has to say about these scores.
    """

    steps: dict[str, StepScores]
    windows: dict[str, Float[np.ndarray, "windows"]] = dataclasses.field(default_factory=dict)
    controls: dict[str, dict[str, StepScores]] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def by_windows(dataset: Dataset, scores: Mapping[str, Float[np.ndarray, "windows time"]]) -> dict[str, StepScores]:
    """One score per time step and split, from one per step of every window."""
    return {split: stitch(dataset.windows[split], scores[split], dataset.recorded) for split in SPLITS}


def by_series(dataset: Dataset, scores: Float[np.ndarray, "all_steps"]) -> dict[str, StepScores]:
    """One score per time step and split, from one per step of all recorded series, laid end to end."""
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in dataset.recorded])])
    found = by_windows(dataset, {split: np.zeros(dataset.windows[split].real.shape) for split in SPLITS})
    return {
        split: dataclasses.replace(steps, score=scores[offsets[steps.series] + steps.step])
        for split, steps in found.items()
    }


def evaluate(
    config: ConfigDict,
    dataset: Dataset,
    scored: Scored,
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
        return {split: combine(one, dataset.recorded, config.data.combine) for split, one in found.items()}

    steps = combined(scored.steps)
    threshold = threshold or choose(config, steps["validation"].label, steps["validation"].score)
    alarm_rule = alarm_rule or choose_alarms(config, steps["validation"], threshold)
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
            split: bootstrap(
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


def choose(config: ConfigDict, labels: Bool[np.ndarray, "n"], scores: Float[np.ndarray, "n"]) -> Threshold:
    """The threshold that the config's rule picks on validation scores."""
    rule = config.threshold
    return thresholds.choose(
        rule.rule, labels, scores, false_positive_rate=rule.false_positive_rate, precision=rule.precision
    )


def choose_alarms(config: ConfigDict, validation: StepScores, threshold: Threshold) -> alarms.Rule:
    """The config's alarm rule; of what it leaves open, the best on validation."""
    given = config.alarms
    gaps = alarms.GAPS if given.merge_gap < 0 else (given.merge_gap,)
    lengths = (given.min_length,) if given.min_length else alarms.LENGTHS
    return alarms.choose(_judged(validation, threshold), gaps, lengths)


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
        **alarms.metrics(_judged(steps, threshold), alarm_rule),
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
    cut = np.flatnonzero((np.diff(steps.series) != 0) | (np.diff(steps.step) != 1)) + 1
    return [slice(begin, end) for begin, end in itertools.pairwise([0, *cut.tolist(), len(steps.series)])]


def _window_metrics(
    dataset: Dataset, scores: Mapping[str, Float[np.ndarray, "windows"]], threshold: Threshold
) -> dict[str, Metrics]:
    """Metrics of windows at the threshold of the steps, the one that a detector carries."""
    labels = {split: dataset.examples[split].targets[:, 0] > 0 for split in SPLITS}
    return {
        split: point_metrics(f"{split} windows", labels[split], scores[split], scores[split] >= threshold.value)
        for split in SPLITS
    }


def _controls(
    config: ConfigDict, dataset: Dataset, steps: Mapping[str, StepScores]
) -> dict[str, dict[str, StepScores]]:
    """The controls that stand beside every method, for the same steps."""
    rng = np.random.default_rng((config.seed, 2))
    bins = dataset.quantizer.bins

    def scoring(score: Mapping[str, np.ndarray]) -> dict[str, StepScores]:
        return {split: dataclasses.replace(steps[split], score=score[split]) for split in SPLITS}

    return {
        "random_scores": scoring({split: rng.random(len(steps[split].score)) for split in SPLITS}),
        "always_normal": scoring({split: np.zeros(len(steps[split].score)) for split in SPLITS}),
        "bin_lookup": by_windows(
            dataset, {split: bin_lookup(dataset.training, bins, dataset.examples[split]) for split in SPLITS}
        ),
        "rolling_zscore": by_series(dataset, rolling_zscores(dataset.recorded, config.controls.zscore_steps)),
    }


def _control_metrics(
    config: ConfigDict, name: str, steps: Mapping[str, StepScores]
) -> dict[str, dict[str, float | None]]:
    """Each control gets its own threshold and alarm rule from validation, as the model does."""
    never = name == "always_normal"
    validation = steps["validation"]
    threshold = Threshold(np.inf, "never") if never else choose(config, validation.label, validation.score)
    rule = choose_alarms(config, validation, threshold)
    return {split: step_metrics(config, f"{name}, {split}", steps[split], threshold, rule) for split in SPLITS}


def _nab_scores(
    config: ConfigDict, dataset: Dataset, found: Mapping[str, Mapping[str, StepScores]]
) -> dict[str, dict[str, dict[str, float | None]]]:
    """NAB's own score by detector and profile, with a threshold that is best on validation for each of them.

    Defined for whole files with labelled windows only; where validation has none, or test, the score is None.
    """
    data = config.data
    if dataset.name != "nab" or (data.split, data.labels, data.nab.labels) != ("series", "recorded", "windows"):
        return {}

    def files(steps: StepScores) -> list[ScoredFile]:
        return [ScoredFile(steps.label[here], steps.score[here]) for here in _runs(steps.series)]

    scores: dict[str, dict[str, dict[str, float | None]]] = {}
    for name, steps in found.items():
        scores[name] = {}
        for profile, costs in PROFILES.items():
            validation, test = (sweep(files(steps[split]), costs) for split in ("validation", "test"))
            best = validation.best() if validation else None
            scores[name][profile] = {
                "threshold": best if best is None or np.isfinite(best) else None,
                "validation": validation.at(best) if validation and best is not None else None,
                "test": test.at(best) if test and best is not None else None,
            }
    return scores


def _runs(series: np.ndarray) -> list[slice]:
    """Where each series begins and ends among steps in order of series."""
    edges = [0, *(np.flatnonzero(np.diff(series)) + 1).tolist(), len(series)]
    return [slice(begin, end) for begin, end in itertools.pairwise(edges)]


def results(
    config: ConfigDict,
    model: Assembled | None,
    backbone: Mapping[str, Any],
    dataset: Dataset,
    evaluation: Evaluation,
    *,
    command: str,
    threshold_from: str,
    seconds: Mapping[str, float],
    cpu_seconds: float = 0.0,
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of results.json, as the contract names it; `cpu_seconds` are those of earlier processes."""
    return {
        "schema": SCHEMA,
        "dataset": dataset.name,
        "command": command,
        "seed": config.seed,
        "method": config.method,
        "backbone": dict(backbone),
        "warnings": list(dataset.warnings),
        **dataset.notes,
        "splits": {
            split: {
                "series": len(np.unique(steps.series)),
                "windows": len(dataset.windows[split]),
                "steps": len(steps.score),
                "anomalous_steps": int(steps.label.sum()),
            }
            for split, steps in evaluation.steps.items()
        },
        "threshold": {
            **evaluation.threshold._asdict(),
            "chosen_on": "validation",
            "from": threshold_from,
        },
        "alarms": evaluation.alarm_rule._asdict(),
        **evaluation.metrics,
        **({"windows": evaluation.window_metrics} if evaluation.window_metrics else {}),
        "confidence_intervals": evaluation.confidence,
        "per_series": "per_series.parquet",
        "controls": evaluation.controls,
        **({"nab_score": evaluation.nab_scores} if evaluation.nab_scores else {}),
        **_parameters(model),
        "training": dict(training),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        # Of all cores: it does not mind what else the machine does.
        "cpu_seconds": round(cpu_seconds + time.process_time(), 1),
        "versions": versions(),
    }


def _parameters(model: Assembled | None) -> dict[str, Any]:
    if model is None:  # a method without a model of ours
        return {"trained": [], "embedding": {}, "parameters": {"trainable": None, "frozen": 0, "prompt_bytes": 0}}
    return {
        "trained": sorted(model.trainable),
        "embedding": model.embedding,
        "parameters": {
            "trainable": count(model.trainable),
            "frozen": count(model.frozen),
            "prompt_bytes": 4 * count(model.trainable.get("prompt", {})),
        },
    }


def versions() -> dict[str, str]:
    """Versions of what the numbers were made with."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = "not installed"
    return found | {"device": jax.devices()[0].device_kind, "devices": str(jax.device_count())}


def backbone_about(backbone: Backbone | None) -> dict[str, Any]:
    """What is said of a backbone wherever its numbers are; nothing of a method that has none."""
    if backbone is None:
        return {}
    return {
        "name": backbone.name,
        "revision": backbone.revision,
        "sha256": backbone.sha256,
        "dtype": backbone.dtype,
        "int8": backbone.int8,
        "attention": "causal" if backbone.causal else "bidirectional",
        "pretrained": backbone.pretrained,
    }


def per_series(evaluation: Evaluation) -> pd.DataFrame:
    """The metrics of each series of each split, a row each."""
    rows = []
    for split, steps in evaluation.steps.items():
        for series in np.unique(steps.series):
            here = steps.series == series
            one = StepScores(*(getattr(steps, field.name)[here] for field in dataclasses.fields(StepScores)))
            points = point_metrics_quietly(one.label, one.score, one.score >= evaluation.threshold.value)
            intervals = mean_over_series(interval_metrics(one, evaluation.threshold))
            rows.append(
                {"split": split, "series": evaluation.names[series], "steps": len(one.score), **points, **intervals}
            )
    return pd.DataFrame(rows)


def write(
    workdir: epath.Path, content: Mapping[str, Any], dataset: Dataset, evaluation: Evaluation, of_series: pd.DataFrame
) -> None:
    """Writes scores, per-series numbers and, last of all, results.json."""
    (workdir / "scores").mkdir(parents=True, exist_ok=True)
    names = np.array(evaluation.names, object)
    for split, steps in evaluation.steps.items():
        predicted = steps.score >= evaluation.threshold.value
        frame = pd.DataFrame(
            {
                "series": pd.Categorical(names[steps.series], categories=list(dict.fromkeys(evaluation.names))),
                "step": steps.step,
                "timestamp": _timestamps(dataset, steps),
                "value": steps.value,
                "score": steps.score.astype(np.float32),
                "predicted": predicted,
                "label": steps.label,
            }
        )
        write_parquet(workdir / "scores" / f"{split}.parquet", frame, dataset.warnings)
    write_parquet(workdir / "per_series.parquet", of_series, dataset.warnings)
    write_whole(workdir / "results.json", json.dumps(content, indent=2).encode())


def point_metrics_quietly(labels: np.ndarray, scores: np.ndarray, predicted: np.ndarray) -> Metrics:
    """Metrics of one series; most series of a test split have one class only, which is no news."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return point_metrics("series", labels, scores, predicted)


def _timestamps(dataset: Dataset, steps: StepScores) -> np.ndarray:
    stamps = [
        one.timestamps if len(one.timestamps) else np.full(len(one), "NaT", "datetime64[ns]")
        for one in dataset.recorded
    ]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in dataset.recorded])])
    return np.concatenate(stamps)[offsets[steps.series] + steps.step]


def write_parquet(path: epath.Path, frame: pd.DataFrame, warnings: Sequence[str]) -> None:
    """Writes a table whole or not at all; its metadata say what is to be said about its numbers."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), "warnings": json.dumps(list(warnings))})
    buffer = io.BytesIO()
    pa.parquet.write_table(table, buffer)
    write_whole(path, buffer.getvalue())
