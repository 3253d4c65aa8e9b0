"""Composes results.json and writes a run's numbers."""

import hashlib
import importlib.metadata
import io
import json
import platform
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from etils import epath
from jaxtyping import Shaped
from ml_collections import ConfigDict

from spear_jax.data import Dataset, StepScores, series_offsets
from spear_jax.errors import InputError, one_line
from spear_jax.evaluation.judge import Evaluation
from spear_jax.evaluation.pointwise import point_metrics
from spear_jax.evaluation.record import RunRecord
from spear_jax.storage import read_sealed, sealed, write_parquet, write_whole

RESULTS_SCHEMA = 1

_KEYS = {
    **dict.fromkeys(("dataset", "command", "method"), str),
    **dict.fromkeys(("backbone", "splits", "test", "confidence_intervals", "controls", "parameters"), dict),
    **dict.fromkeys(("training", "versions"), dict),
    "warnings": list,
    "seed": int,
}
"""Parts that every results.json has, and their types."""

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

# Takes the place of `RunRecord.model` for a method that runs no model itself.
WITHOUT_MODEL = {
    "trained": [],
    "embedding": {},
    "parameters": {"trainable": None, "frozen": 0, "prompt_bytes": 0},
}


def compose_results(config: ConfigDict, dataset: Dataset, evaluation: Evaluation, record: RunRecord) -> dict[str, Any]:
    """Returns the content of results.json."""
    content = {
        "schema": RESULTS_SCHEMA,
        "dataset": dataset.name,
        "command": record.command,
        "seed": config.seed,
        "method": config.method,
        "backbone": record.backbone,
        "warnings": record.warnings,
        **record.notes,
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
            **evaluation.rule.threshold._asdict(),
            "chosen_on": "validation",
            "from": evaluation.rule.chosen_on,
        },
        "alarms": evaluation.rule.alarms._asdict(),
        **evaluation.metrics,
        "windows": evaluation.window_metrics,
        "confidence_intervals": evaluation.confidence,
        "per_series": "per_series.parquet",
        "controls": evaluation.controls,
        "nab_score": evaluation.nab_scores,
        **(record.model or WITHOUT_MODEL),
        "training": record.training,
        "seconds": {stage: round(seconds, 3) for stage, seconds in record.seconds.items()},
        # Summed over all cores, so other load on the machine does not change it.
        "cpu_seconds": round(record.earlier_cpu_seconds + time.process_time(), 1),
        "versions": versions(),
        "throughput": record.throughput,
        "memory": record.memory,
    }
    optional = ("windows", "nab_score", "throughput", "memory")
    return {name: section for name, section in content.items() if section or name not in optional}


def versions() -> dict[str, str]:
    """Returns the versions of the software and the kind of device behind the numbers."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
            installed[package] = "not installed"
    return installed | {"device": jax.devices()[0].device_kind, "devices": str(jax.device_count())}


def per_series(evaluation: Evaluation) -> pd.DataFrame:
    """Returns the metrics of each series of each split, one row each."""
    rows = []
    for split, steps in evaluation.steps.items():
        for series, intervals in zip(steps.by_series(), evaluation.by_series[split], strict=True):
            with warnings.catch_warnings():
                # Most series have one class only, which needs no warning.
                warnings.simplefilter("ignore")
                points = point_metrics("series", series.label, series.score, evaluation.rule.predict(series))
            name = evaluation.names[series.series[0]]
            rows.append({"split": split, "series": name, "steps": len(series.score), **points, **intervals})
    return pd.DataFrame(rows)


def write_results(
    workdir: epath.Path,
    content: Mapping[str, Any],
    dataset: Dataset,
    evaluation: Evaluation,
    series_metrics: pd.DataFrame,
) -> None:
    """Writes scores, metrics per series and, last, results.json, which marks the run as finished."""
    (workdir / "scores").mkdir(parents=True, exist_ok=True)
    digests = {}
    names = np.array(evaluation.names, object)
    for split, steps in evaluation.steps.items():
        frame = pd.DataFrame(
            {
                "series": pd.Categorical(names[steps.series], categories=list(dict.fromkeys(evaluation.names))),
                "step": steps.step,
                "timestamp": _timestamps(dataset, steps),
                "value": steps.value,
                "score": steps.score.astype(np.float32),
                "predicted": evaluation.rule.predict(steps),
                "label": steps.label,
            }
        )
        name = f"scores/{split}.parquet"
        digests[name] = write_parquet(workdir / name, frame, warnings=content["warnings"])
    name = content["per_series"]
    digests[name] = write_parquet(workdir / name, series_metrics, warnings=content["warnings"])
    write_whole(workdir / "results.json", json.dumps(sealed({**content, "files": digests}), indent=2))


def read_results(path: Path | epath.Path) -> dict[str, Any]:
    """Reads the results.json of a finished run.

    Raises:
      InputError: it is damaged, or another program's.
    """
    content = read_sealed(path)
    complete = all(type(content.get(key)) is kind for key, kind in _KEYS.items())
    if content.get("schema") != RESULTS_SCHEMA or not complete:
        raise InputError(f"{path}: not the results of a run of this version")
    return content


def read_table(folder: Path | epath.Path, name: str) -> pd.DataFrame:
    """Reads a table of a finished run: 'per_series.parquet' or 'scores/<split>.parquet'.

    Raises:
      InputError: it is not what the run wrote; earlier versions kept no digests.
    """
    try:
        blob = (folder / name).read_bytes()
        digest = hashlib.sha256(blob).hexdigest()
        if read_results(folder / "results.json").get("files", {}).get(name, digest) != digest:
            raise InputError(f"{folder / name}: damaged, or not the table that its results.json describes")
        return pd.read_parquet(io.BytesIO(blob))
    except OSError as error:
        raise InputError(f"{folder / name}: cannot be read ({one_line(error)})") from error


def _timestamps(dataset: Dataset, steps: StepScores) -> Shaped[np.ndarray, "steps"]:
    stamps = [
        series.timestamps if len(series.timestamps) else np.full(len(series), "NaT", "datetime64[ns]")
        for series in dataset.recorded
    ]
    return np.concatenate(stamps)[series_offsets(dataset.recorded)[steps.series] + steps.step]
