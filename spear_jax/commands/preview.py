"""Shows how a data set is read and split, before anything is trained."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.data import ColumnRole, Series, build_dataset, find_extremes, find_runs, fullest_part, load_series
from spear_jax.errors import listed
from spear_jax.parallel import plain_warnings
from spear_jax.report import counted, describe_notes, describe_splits

MAX_ROWS = 30
MAX_TABLES = 5
MAX_INTERVALS = 5


def preview_data(config: ConfigDict) -> None:
    """Prints the series that a config names and how they are split.

    Raises:
      InputError: the data are not there, or cannot be used or split.
    """
    as_recorded = config.copy_and_resolve_references()
    if config.data.labels == "column":  # a file without labels is shown before it is refused
        as_recorded.data.labels = "injected"
    loaded = load_series(as_recorded)
    parallel.say(f"{loaded.name}: {summarize(loaded.series)}\n")
    for part in (roles_table(loaded.roles), series_table(loaded.series), *label_lines(loaded.series)):
        if part:
            parallel.say(f"{part}\n")
    for warning in loaded.warnings:  # before the split, which may fail for the reason they give
        parallel.say(f"WARNING: {warning}")
    if not all(series.labelled for series in loaded.series):
        loaded = load_series(config)
    with plain_warnings():
        dataset = build_dataset(config, loaded)
    for line in (*describe_splits(dataset), *describe_notes(dataset.notes)):
        parallel.say(line)
    for warning in dataset.warnings[len(loaded.warnings) :]:
        parallel.say(f"WARNING: {warning}")


def roles_table(roles: Sequence[ColumnRole]) -> str:
    """Returns a table of the columns of own files: role, and why; files with the same columns count once."""
    columns: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for table, group in itertools.groupby(roles, key=lambda role: role.table):
        columns.setdefault(tuple(role[1:] for role in group), []).append(table)
    parts = []
    for rows, tables in columns.items():
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        lines = [f"  {row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}" for row in rows[:MAX_ROWS]]
        hidden = [f"  ... and {len(rows) - MAX_ROWS} more"] if len(rows) > MAX_ROWS else []
        parts.append("\n".join([f"columns of {listed(tables, 3)}:", *lines, *hidden]))
    return "\n".join(parts[:MAX_TABLES])


def label_lines(recorded: Sequence[Series]) -> list[str]:
    """Returns a line with the first anomaly intervals of the first series that have any."""
    lines = []
    for series in recorded:
        if not (series.labelled and series.labels.any()):
            continue
        starts, ends = find_runs(series.labels)
        shown = [_interval(series, int(first), int(end) - 1) for first, end in zip(starts, ends, strict=True)]
        lines.append(
            f"anomalies of {series.name}: {counted(len(shown), 'interval')}: {', '.join(shown[:MAX_INTERVALS])}"
        )
        lines[-1] += ", ..." if len(shown) > MAX_INTERVALS else ""
    return ["\n".join(lines[:MAX_TABLES])] if lines else []


def _interval(series: Series, first: int, last: int) -> str:
    rows = f"rows {first} to {last}"
    if not len(series.timestamps):
        return rows
    return f"{rows} ({pd.Timestamp(series.timestamps[first])} to {pd.Timestamp(series.timestamps[last])})"


def series_table(recorded: Sequence[Series]) -> str:
    """Returns a table of the first series: length, missing values, range, anomalous share and times.

    'extremes' are values that stretch the range, such as -9999; 'fullest' is the share of values in the fullest of 100
    equal parts of the range.
    """
    table = pd.DataFrame([_row(series) for series in recorded[:MAX_ROWS]]).fillna("").to_string(index=False)
    hidden = len(recorded) - MAX_ROWS
    return table + (f"\n... and {hidden} more" if hidden > 0 else "")


def summarize(recorded: Sequence[Series]) -> str:
    """Returns number, lengths, missing values and base rate of all series in one line."""
    lengths = np.array([len(series) for series in recorded])
    steps = int(lengths.sum())
    missing = sum(int((~np.isfinite(series.values)).sum()) for series in recorded)
    summary = (
        f"{len(recorded)} series, {steps:,} steps ({lengths.min()} to {lengths.max()}, median {np.median(lengths):g}),"
        f" {missing:,} missing"
    )
    if not all(series.labelled for series in recorded):
        return f"{summary}, no labels"
    anomalous = sum(int(series.labels.sum()) for series in recorded)
    return f"{summary}, {anomalous:,} anomalous (base rate {anomalous / max(steps, 1):.4f})"


def _row(series: Series) -> dict[str, object]:
    finite = series.values[np.isfinite(series.values)]
    row: dict[str, object] = {
        "series": series.name,
        "steps": len(series),
        "past": len(series.reference),
        "missing": len(series) - len(finite),
        "min": f"{finite.min():.4g}" if len(finite) else "",
        "median": f"{np.median(finite):.4g}" if len(finite) else "",
        "max": f"{finite.max():.4g}" if len(finite) else "",
        "extremes": " ".join(f"{value:g}" for value in find_extremes(series.values)),
        "fullest": f"{fullest_part(series.values):.0%}" if len(finite) else "",
        "anomalous": f"{series.labels.mean():.4f}" if series.labelled and len(series) else "no labels",
    }
    if len(series.timestamps):
        intervals = np.diff(series.timestamps.astype(np.int64))
        intervals = intervals[intervals > 0]  # as for the warnings about gaps in a file
        row |= {
            "from": str(pd.Timestamp(series.timestamps.min())),
            "to": str(pd.Timestamp(series.timestamps.max())),
            "every": f"{np.median(intervals) / 1e9:g} s" if len(intervals) else "",
        }
    return row
