"""Shows how a data set is read and split, before anything is trained."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.data import Series, build_dataset, load_series
from spear_jax.parallel import plain_warnings
from spear_jax.report import describe_notes, describe_splits

MAX_ROWS = 30


def preview_data(config: ConfigDict) -> None:
    """Prints the series that a config names and how they are split.

    Raises:
      InputError: the data are not there, or cannot be used or split.
    """
    as_recorded = config.copy_and_resolve_references()
    if config.data.labels == "column":  # a file without labels is shown before it is refused
        as_recorded.data.labels = "injected"
    loaded = load_series(as_recorded)
    parallel.say(f"{loaded.name}: {summarize(loaded.series)}\n\n{series_table(loaded.series)}\n")
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


def series_table(recorded: Sequence[Series]) -> str:
    """Returns a table of the first series: length, missing values, range, anomalous share and times."""
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
        "anomalous": f"{series.labels.mean():.4f}" if series.labelled and len(series) else "no labels",
    }
    if len(series.timestamps):
        intervals = np.diff(series.timestamps.astype(np.int64))
        intervals = intervals[intervals > 0]  # as for the warnings about gaps in a file
        row |= {
            "from": str(series.timestamps.min())[:19],
            "to": str(series.timestamps.max())[:19],
            "every": f"{np.median(intervals) / 1e9:g} s" if len(intervals) else "",
        }
    return row
