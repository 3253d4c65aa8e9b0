"""Labels series by rules or by injected anomalies, instead of with recorded labels.

`data.labels='rules'` labels windows by the context rules, 'injected' injects known anomalies into the series. The train
and validation splits get these labels; the test split keeps recorded labels if it has any, so that results show how
well a detector trained on artificial labels does on real ones.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from spear_jax.data.labels.context_rules import RULES, apply_rules
from spear_jax.data.labels.injection import inject
from spear_jax.data.series import Series, series_offsets
from spear_jax.data.splits import SPLITS
from spear_jax.data.windows import Windows, flat_steps


def relabelled_splits(recorded: Sequence[Series]) -> tuple[str, ...]:
    """Returns the splits that get new labels."""
    return SPLITS[:2] if all(series.labelled for series in recorded) else SPLITS


def label_by_injection(
    data: ConfigDict, recorded: Sequence[Series], parts: Mapping[str, Sequence[Series]]
) -> tuple[list[Series], dict[str, list[Series]]]:
    """Injects anomalies into the stretches of the relabelled splits; returns the changed series and stretches."""
    changed = {
        series.name: dataclasses.replace(series, values=series.values.copy(), labels=series.labels.copy())
        for series in recorded
    }
    new = [split for split in relabelled_splits(recorded) if split in parts]
    stretches = [stretch for split in new for stretch in inject(parts[split], data.injected.rate, data.injected.seed)]
    # Unchanged stretches come last: with data.split='random', a test window may overlap a changed one.
    stretches += [stretch for split, part in parts.items() if split not in new for stretch in part]
    for stretch in stretches:
        steps = slice(stretch.start, stretch.start + len(stretch))
        changed[stretch.name].values[steps] = stretch.values
        changed[stretch.name].labels[steps] = stretch.labels
    series_now = list(changed.values())
    return series_now, {split: recut_stretches(series_now, part) for split, part in parts.items()}


def label_by_rules(
    data: ConfigDict,
    recorded: Sequence[Series],
    windows: Mapping[str, Windows],
    scaled: Mapping[str, Float[np.ndarray, "_windows _time"]],
) -> tuple[list[Series], dict[str, Windows], dict[str, Any]]:
    """Labels windows by the context rules; a step in several windows is anomalous if any of them labels it so.

    Returns:
      The series and the windows with the new labels, and the share of windows in which each rule fired, by split.
    """
    steps = {split: flat_steps(part, recorded) for split, part in windows.items()}
    recorded_labels = np.concatenate([series.labels for series in recorded])
    labels = recorded_labels.copy()
    new = [split for split in relabelled_splits(recorded) if split in windows]
    for split in new:
        labels[steps[split]] = False
    fired: dict[str, Any] = {}
    for split in new:
        ruled = apply_rules(
            scaled[split] if data.rules.values == "scaled" else windows[split].values,
            rules=tuple(name for name in RULES if data.rules[name]),
            slope=data.rules.slope,
            deviations=data.rules.deviations,
            p_value=data.rules.p_value,
            correction=data.rules.correction,
        )
        labels[steps[split][ruled.steps[windows[split].real]]] = True
        fired[split] = {name: float(flags.mean()) for name, flags in ruled.fired.items()}
        fired[split]["windows"] = float(np.any(list(ruled.fired.values()), axis=0).mean())
    for split in windows.keys() - set(new):
        labels[steps[split]] = recorded_labels[steps[split]]

    bounds = series_offsets(recorded)
    relabelled = [
        dataclasses.replace(series, labels=labels[begin:end])
        for series, begin, end in zip(recorded, bounds[:-1], bounds[1:], strict=True)
    ]
    return relabelled, {split: _with_labels(part, labels[steps[split]]) for split, part in windows.items()}, fired


def recut_stretches(recorded: Sequence[Series], stretches: Sequence[Series]) -> list[Series]:
    """Cuts the same stretches out of series whose values or labels have changed."""
    by_name = {series.name: series for series in recorded}
    return [by_name[stretch.name].stretch(stretch.start, stretch.start + len(stretch)) for stretch in stretches]


def _with_labels(windows: Windows, labels: np.ndarray) -> Windows:
    """Returns windows with new labels for all real steps, in order."""
    step_labels = np.zeros(windows.real.shape, bool)
    step_labels[windows.real] = labels
    return dataclasses.replace(windows, labels=step_labels)
