"""Labels for data that have none, or that are to be learned without those they have.

`data.labels='rules'` labels windows by the context rules, 'injected' puts known anomalies into the series. Train and
validation get such labels; test keeps recorded ones where there are any, so that it can be seen what the made-up ones
are worth.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from spear_jax.data.labels import context_rules
from spear_jax.data.labels.injection import inject
from spear_jax.data.series import Series
from spear_jax.data.splits import SPLITS
from spear_jax.data.windows import Windows, flat_steps


def relabelled_splits(recorded: Sequence[Series]) -> tuple[str, ...]:
    """The splits that get made-up labels."""
    return SPLITS[:2] if all(one.labelled for one in recorded) else SPLITS


def by_injection(data: ConfigDict, recorded: Sequence[Series], parts: Mapping[str, Sequence[Series]]) -> list[Series]:
    """Puts anomalies into the stretches of the splits that are relabelled.

    Args:
      data: `config.data`.
      recorded: the series as recorded.
      parts: stretches of them by split.

    Returns:
      The series with the changed values and their labels.
    """
    splits = [split for split in relabelled_splits(recorded) if split in parts]
    whole = {one.name: dataclasses.replace(one, values=one.values.copy(), labels=one.labels.copy()) for one in recorded}
    for split in splits:
        for stretch in inject(parts[split], data.injected.rate, data.injected.seed):
            here = slice(stretch.start, stretch.start + len(stretch))
            whole[stretch.name].values[here] = stretch.values
            whole[stretch.name].labels[here] = stretch.labels
    # Where data.split='random' lets a window of the test overlap one of the others, the test stays as recorded.
    for stretch in (one for split, part in parts.items() if split not in splits for one in part):
        here = slice(stretch.start, stretch.start + len(stretch))
        whole[stretch.name].values[here] = stretch.values
        whole[stretch.name].labels[here] = stretch.labels
    return [whole[one.name] for one in recorded]


def by_rules(
    data: ConfigDict,
    recorded: Sequence[Series],
    windows: Mapping[str, Windows],
    scaled: Mapping[str, np.ndarray],
) -> tuple[list[Series], dict[str, Any]]:
    """Labels windows by the context rules; where windows overlap, a step is anomalous if it is in any of them.

    Args:
      data: `config.data`.
      recorded: the series as recorded.
      windows: of each split.
      scaled: their scaled values.

    Returns:
      The series with the new labels, and how often each rule fired, by split.
    """
    rules = data.rules
    splits = [split for split in relabelled_splits(recorded) if split in windows]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in recorded])])
    labels = np.concatenate([one.labels for one in recorded])
    fired: dict[str, Any] = {}
    kept = labels.copy()
    for split in splits:
        labels[flat_steps(windows[split], recorded)[windows[split].real]] = False
    for split in splits:
        part = windows[split]
        found = context_rules.apply_rules(
            scaled[split] if rules.values == "scaled" else part.values,
            rules=tuple(name for name in context_rules.RULES if rules[name]),
            slope=rules.slope,
            deviations=rules.deviations,
            p_value=rules.p_value,
            correction=rules.correction,
        )
        labels[flat_steps(part, recorded)[part.real & found.steps]] = True
        any_rule = np.any(list(found.fired.values()), axis=0)
        fired[split] = {name: float(one.mean()) for name, one in found.fired.items()} | {
            "windows": float(any_rule.mean())
        }
    for split in set(windows) - set(splits):
        untouched = flat_steps(windows[split], recorded)[windows[split].real]
        labels[untouched] = kept[untouched]
    whole = [
        dataclasses.replace(one, labels=labels[begin:end])
        for one, begin, end in zip(recorded, offsets, offsets[1:], strict=False)
    ]
    return whole, fired


def take_over(recorded: Sequence[Series], parts: Mapping[str, Sequence[Series]]) -> dict[str, list[Series]]:
    """The same stretches of series whose values or labels have changed."""
    whole = {one.name: one for one in recorded}
    return {
        split: [whole[one.name].stretch(one.start, one.start + len(one)) for one in part]
        for split, part in parts.items()
    }
