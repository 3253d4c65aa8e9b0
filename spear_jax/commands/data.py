"""What was understood of a data set, before anything is trained."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.data import Series, build_dataset, load_series, prepare_dataset
from spear_jax.parallel import plain_warnings
from spear_jax.report import describe_notes, describe_splits

MOST_ROWS = 30


def series_table(series: Sequence[Series]) -> str:
    """Series, lengths, range, missing values, times and share of anomalous steps, a line for each series."""
    rows = [_row(one) for one in series[:MOST_ROWS]]
    text = pd.DataFrame(rows).fillna("").to_string(index=False)
    left = len(series) - len(rows)
    return text + (f"\n... and {left} more" if left > 0 else "")


def total(series: Sequence[Series]) -> str:
    """All series in one line."""
    lengths = np.array([len(one) for one in series])
    steps = int(lengths.sum())
    said = (
        f"{len(series)} series, {steps:,} steps ({lengths.min()} to {lengths.max()}, median {np.median(lengths):g}),"
        f" {sum(int((~np.isfinite(one.values)).sum()) for one in series):,} missing"
    )
    if not all(one.labelled for one in series):
        return f"{said}, no labels"
    anomalous = sum(int(one.labels.sum()) for one in series)
    return f"{said}, {anomalous:,} anomalous (base rate {anomalous / max(steps, 1):.4f})"


def _row(one: Series) -> dict[str, object]:
    known = one.values[np.isfinite(one.values)]
    row: dict[str, object] = {
        "series": one.name,
        "steps": len(one),
        "past": len(one.reference),
        "missing": int(len(one) - len(known)),
        "min": f"{known.min():.4g}" if len(known) else "",
        "median": f"{np.median(known):.4g}" if len(known) else "",
        "max": f"{known.max():.4g}" if len(known) else "",
        "anomalous": f"{one.labels.mean():.4f}" if one.labelled and len(one) else "no labels",
    }
    if len(one.timestamps):
        steps = np.diff(one.timestamps.astype(np.int64))
        forward = steps[steps > 0]  # as the remarks on a file count its gaps
        row |= {
            "from": str(one.timestamps.min())[:19],
            "to": str(one.timestamps.max())[:19],
            "every": f"{np.median(forward) / 1e9:g} s" if len(forward) else "",
        }
    return row


def prepare_data(config: ConfigDict) -> None:
    """Downloads and prepares the data, and does nothing else."""
    parallel.say(prepare_dataset(config))


def preview_data(config: ConfigDict) -> None:
    """Prints what was understood of the data, and how they would be divided, before anything is trained."""
    loaded = load_series(config)
    parallel.say(f"{loaded.name}: {total(loaded.series)}\n\n{series_table(loaded.series)}\n")
    for warning in loaded.warnings:  # before the split, which may be refused for what they say
        parallel.say(f"WARNING: {warning}")
    with plain_warnings():
        dataset = build_dataset(config, loaded)
    for line in (*describe_splits(dataset), *describe_notes(dataset.notes)):
        parallel.say(line)
    for warning in dataset.warnings[len(loaded.warnings) :]:
        parallel.say(f"WARNING: {warning}")
