"""Holds one score per time step: windows stitched, columns combined."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from spear_jax.data.dataset import Dataset
from spear_jax.data.series import Series
from spear_jax.data.splits import SPLITS
from spear_jax.data.stitching import ScoreSums
from spear_jax.data.windows import Windows, flat_steps


@dataclasses.dataclass(frozen=True)
class StepScores:
    """One score per time step of a split, in order of series and step.

    Attributes:
      series: index of the recorded series.
      step: the step in the recorded series.
      value: the recorded value, in the source's unit.
      label: True where the step is anomalous.
      score: higher is more anomalous.
    """

    series: Int[np.ndarray, "steps"]
    step: Int[np.ndarray, "steps"]
    value: Float[np.ndarray, "steps"]
    label: Bool[np.ndarray, "steps"]
    score: Float[np.ndarray, "steps"]


def stitch(windows: Windows, scores: Float[np.ndarray, "windows time"], recorded: Sequence[Series]) -> StepScores:
    """Scores per window and step to one score per step: the mean where windows overlap.

    Args:
      windows: the windows that were scored.
      scores: a score per step of every window; what stands in padding is not read.
      recorded: the recorded series that `windows.series` counts in.

    Returns:
      Every step that lies in a window, exactly once.
    """
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in recorded])])
    place, flat = flat_steps(windows, recorded)[windows.real], scores[windows.real]
    sums = ScoreSums(int(offsets[-1]))
    sums.add(place, flat[:, None])
    covered = np.flatnonzero(sums.scored)
    series = np.searchsorted(offsets, covered, side="right") - 1
    return StepScores(
        series=series,
        step=covered - offsets[series],
        value=np.concatenate([one.values for one in recorded])[covered],
        label=np.concatenate([one.labels for one in recorded])[covered],
        score=sums.means(covered)[:, 0],
    )


def combine_columns(steps: StepScores, recorded: Sequence[Series], how: str) -> StepScores:
    """One score per row from the scores of several columns.

    Args:
      steps: a score per step of every column.
      recorded: the columns; those of one file share a `group`.
      how: 'max' or 'mean' over the columns.

    Returns:
      A score per row, with the series and the value of the group's first column; a row is anomalous if it is in any.
    """
    numbers = {name: i for i, name in enumerate(dict.fromkeys(one.group or one.name for one in recorded))}
    group = np.array([numbers[one.group or one.name] for one in recorded])[steps.series]
    order = np.lexsort((steps.series, steps.step, group))
    group, step = group[order], steps.step[order]
    first = np.flatnonzero(np.append(True, (np.diff(group) != 0) | (np.diff(step) != 0)))
    score = steps.score[order]
    if how == "max":
        score = np.maximum.reduceat(score, first)
    else:
        score = np.add.reduceat(score, first) / np.diff(np.append(first, len(score)))
    return StepScores(
        series=steps.series[order][first],
        step=step[first],
        value=steps.value[order][first],
        label=np.logical_or.reduceat(steps.label[order], first),
        score=score,
    )


@dataclasses.dataclass(frozen=True)
class MethodScores:
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


def stitch_splits(dataset: Dataset, scores: Mapping[str, Float[np.ndarray, "windows time"]]) -> dict[str, StepScores]:
    """One score per time step and split, from one per step of every window."""
    return {split: stitch(dataset.windows[split], scores[split], dataset.recorded) for split in SPLITS}


def scores_by_split(dataset: Dataset, scores: Float[np.ndarray, "all_steps"]) -> dict[str, StepScores]:
    """One score per time step and split, from one per step of all recorded series, laid end to end."""
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in dataset.recorded])])
    found = stitch_splits(dataset, {split: np.zeros(dataset.windows[split].real.shape) for split in SPLITS})
    return {
        split: dataclasses.replace(steps, score=scores[offsets[steps.series] + steps.step])
        for split, steps in found.items()
    }
