"""Reads and writes tables of measured runs, one Parquet file per study: a row for each run, split and control."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from spear_jax.config import METHODS, default_config, flatten
from spear_jax.data import SPLITS
from spear_jax.errors import InputError, one_line
from spear_jax.report import NAMES
from spear_jax.storage import write_parquet

_TEXTS = ("run", "dataset", "method", "command", "backbone", "trained_on", "warnings", "error", "split", "control")
_DAMAGED = (LookupError, TypeError, AttributeError, ValueError)


def result_rows(run: str, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the results of a run as rows of a table, one for each split and control.

    `control` is '' in the rows of the method itself. The ends of a metric's 95 % bootstrap interval are METRIC_low and
    METRIC_high; nab_PROFILE are NAB scores.

    Raises:
      InputError: the content is not that of a run of this version.
    """
    try:
        return checked_rows(_rows(run, content))
    except _DAMAGED as error:
        raise InputError(f"{run}: not the results of a run of this version ({one_line(error)})") from error


def checked_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows in which all that is text is text, and can be written; everything else is a number or missing.

    Raises:
      LookupError, TypeError, ValueError: they are others.
    """
    checked = []
    for row in rows:
        for name in (*_TEXTS, "seed", "random_weights", "base_rate"):
            row[name]
        for name, value in row.items():
            text = name in (*_TEXTS, "device", "jax")
            if not isinstance(value, str if text else int | float | None):
                raise TypeError(f"{name} is {type(value).__name__}")
        if row["method"] not in METHODS or row["control"] not in ("", *NAMES):
            raise LookupError(f"method {row['method']!r}, control {row['control']!r}")
        shlex.split(row["command"])
        checked.append(
            {
                name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
                for name, value in row.items()
            }
        )
    return checked


def _rows(run: str, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    speed = content.get("throughput", {}).get("training_windows_per_second")
    windows = content.get("normal_windows", {}).get("training_windows", content["splits"]["train"]["windows"])
    memory = content.get("memory", {})
    shared = {
        "run": run,
        "seed": content["seed"],
        "dataset": content["dataset"],
        "method": content["method"],
        "command": content["command"],
        "backbone": content["backbone"].get("name", ""),
        "random_weights": not content["backbone"].get("pretrained", True),
        "trained_on": content["training"].get("trained_on", ""),
        "trainable": content["parameters"]["trainable"],
        "best_step": content["training"].get("best", {}).get("step"),
        "seconds_per_epoch": windows / speed if speed else None,
        "optimizer_mib": memory["optimizer_bytes"] / 2**20 if memory else None,
        "peak_mib": memory["peak_bytes"] / 2**20 if memory else None,
        "cpu_seconds": content["cpu_seconds"],
        "device": content["versions"]["device"],
        "jax": content["versions"]["jax"],
        "warnings": "\n".join(content["warnings"]),
        "error": "",
    }
    rows = []
    for control in ("", *content["controls"]):
        metrics = content["controls"][control] if control else content
        nab_scores = content.get("nab_score", {}).get(control or content["method"], {})
        for split in SPLITS:
            row = {**shared, "split": split, "control": control, **content["splits"][split], **metrics[split]}
            for metric, ends in content["confidence_intervals"].get(split, {}).items() if not control else ():
                row[f"{metric}_low"], row[f"{metric}_high"] = ends or (None, None)
            row |= {f"nab_{profile}": scores[split] for profile, scores in nab_scores.items() if split in scores}
            rows.append(row)
    return rows


def defaults() -> dict[str, str]:
    """Returns the default of every config field, as text."""
    return {field: repr(value) for field, value in flatten(default_config()).items()}


def changed_defaults(table: pd.DataFrame) -> list[str]:
    """Returns how the current defaults differ from those of a table, which the names of runs do not show.

    Fields added or removed since then are ignored, and those that a run chooses by its machine now ('auto').
    """
    now = defaults()
    return [
        f"{field} was {value}, is {now[field]}"
        for field, value in table.attrs["defaults"].items()
        if now.get(field, value) not in (value, "'auto'")
    ]


def make_table(rows: Sequence[Mapping[str, Any]], path: str) -> pd.DataFrame:
    """Returns a table of rows, with the study's path and the current defaults as attributes."""
    table = pd.DataFrame(rows)
    table.attrs = {"study": path, "defaults": defaults()}
    return table


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Writes a table with its attributes as Parquet."""
    write_parquet(path, table, **table.attrs)


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Reads the tables of all studies in a folder, by file stem; other Parquet files are skipped."""
    tables = {path.stem: read_study_table(path) for path in sorted(folder.glob("*.parquet"))}
    return {name: table for name, table in tables.items() if table is not None}


def read_study_table(path: Path) -> pd.DataFrame | None:
    """Reads the table of a study; returns None if the file is another one.

    Raises:
      InputError: it is damaged.
    """
    try:
        metadata = pyarrow.parquet.read_schema(path).metadata or {}
        if b"defaults" not in metadata:
            return None
        table = pd.read_parquet(path)
        table.attrs = {key: json.loads(metadata[key.encode()]) for key in ("study", "defaults")}
        checked_rows(table[table["error"] == ""].to_dict("records"))
        table.attrs["defaults"].items()
    except (OSError, pa.ArrowException, *_DAMAGED) as error:
        raise InputError(f"{path}: damaged, or no table of a study ({one_line(error)})") from error
    return table
