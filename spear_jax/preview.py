"""What was understood of a data set, before anything is trained."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from spear_jax.data.dataset import Dataset
from spear_jax.data.series import Series
from spear_jax.data.windows import stitch

MOST_ROWS = 30


def table(series: Sequence[Series]) -> str:
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


def divided(dataset: Dataset) -> list[str]:
    """How the series are divided, a line for each split."""
    said = []
    for split, part in dataset.windows.items():
        steps = stitch(part, np.zeros(part.real.shape), dataset.recorded)  # each once, where windows overlap
        lengths = sorted(set(dataset.examples[split].lengths.tolist()))
        said.append(
            f"{split:>10}: {len(set(part.series.tolist()))} series, {len(part)} windows of"
            f" {' or '.join(map(str, lengths))}, {len(steps.step):,} steps,"
            f" base rate {steps.label.mean():.3f}"
        )
    return said


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


def shortened(tokens: Sequence[str | Sequence[str]]) -> str:
    """The first three tokens and the last; those of one number side by side."""
    words = [one if isinstance(one, str) else "+".join(one) for one in tokens]
    return " ".join(words if len(words) <= 4 else [*words[:3], "...", words[-1]])
