"""Composes results.json and writes a run's numbers."""

import dataclasses
import importlib.metadata
import json
import platform
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pandas as pd
from etils import epath
from ml_collections import ConfigDict

from spear_jax.data import Dataset, StepScores
from spear_jax.evaluation.interval_metrics import mean_over_series
from spear_jax.evaluation.judge import Evaluation, interval_metrics
from spear_jax.evaluation.pointwise import Metrics, point_metrics
from spear_jax.storage import write_parquet, write_whole

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


# Said of a method that trains no model of ours.
WITHOUT_MODEL = {
    "trained": [],
    "embedding": {},
    "parameters": {"trainable": None, "frozen": 0, "prompt_bytes": 0},
}


def compose_results(
    config: ConfigDict,
    model: Mapping[str, Any],
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
        **(model or WITHOUT_MODEL),
        "training": dict(training),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        # Of all cores: it does not mind what else the machine does.
        "cpu_seconds": round(cpu_seconds + time.process_time(), 1),
        "versions": versions(),
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


def write_results(
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
