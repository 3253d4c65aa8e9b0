"""Scores per time step: stitched from windows, combined over columns."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from spear_jax.data.dataset import Dataset
from spear_jax.data.runs import find_equal_runs
from spear_jax.data.series import Series, series_offsets
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

    def take(self, steps: slice | Int[np.ndarray, "taken"]) -> "StepScores":
        """Returns the selected steps."""
        return StepScores(*(getattr(self, field.name)[steps] for field in dataclasses.fields(self)))

    def by_series(self) -> list["StepScores"]:
        """Returns the steps of each series."""
        # Rows of combined columns belong to the first column that has a score, which may change along a file.
        ordered = self.take(np.argsort(self.series, kind="stable"))
        return [ordered.take(slice(*run)) for run in zip(*find_equal_runs(ordered.series), strict=True)]

    def stretches(self) -> list["StepScores"]:
        """Returns the longest runs of consecutive steps of one series; a split in time may leave gaps in a series."""
        # Within a run of consecutive steps, the step minus its index in the array is constant.
        runs = find_equal_runs(self.series, self.step - np.arange(len(self.step)))
        return [self.take(slice(*run)) for run in zip(*runs, strict=True)]


@dataclasses.dataclass(frozen=True)
class MethodScores:
    """A method's scores of every split.

    Attributes:
      steps: one score per time step, by split.
      windows: a window head's scores per window, by split; empty for other heads.
      controls: scores of controls that use the method's own model, by name and split.
    """

    steps: dict[str, StepScores]
    windows: dict[str, Float[np.ndarray, "_windows"]] = dataclasses.field(default_factory=dict)
    controls: dict[str, dict[str, StepScores]] = dataclasses.field(default_factory=dict)


def stitch(windows: Windows, scores: Float[np.ndarray, "windows time"], recorded: Sequence[Series]) -> StepScores:
    """Stitches scores per window into one score per step: the mean where windows overlap, without padding.

    Returns:
      Every step that lies in a window, exactly once.
    """
    sums = ScoreSums(sum(map(len, recorded)))
    sums.add(flat_steps(windows, recorded), scores[windows.real][:, None])
    covered = np.flatnonzero(sums.scored)
    return _at_flat_steps(covered, sums.means(covered)[:, 0], recorded)


def stitch_splits(dataset: Dataset, scores: Mapping[str, Float[np.ndarray, "_windows _time"]]) -> dict[str, StepScores]:
    """Stitches the windows of the scored splits; see `stitch`."""
    return {
        split: stitch(dataset.windows[split], split_scores, dataset.recorded) for split, split_scores in scores.items()
    }


def scores_by_split(dataset: Dataset, scores: Float[np.ndarray, "all_steps"]) -> dict[str, StepScores]:
    """Divides the concatenated scores of all recorded series into those of each split."""
    covered = {split: np.unique(flat_steps(windows, dataset.recorded)) for split, windows in dataset.windows.items()}
    return {split: _at_flat_steps(steps, scores[steps], dataset.recorded) for split, steps in covered.items()}


def combine_columns(steps: StepScores, recorded: Sequence[Series], how: str) -> StepScores:
    """Combines the scores of several columns into one score per row, their 'max' or 'mean'.

    The columns of one file share a `group`.

    Returns:
      A score per row, with the series and the value of the group's first column. A row is anomalous if it is anomalous
      in any column.
    """
    names = [series.group or series.name for series in recorded]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    group = np.array([numbers[name] for name in names])[steps.series]
    order = np.lexsort((steps.series, steps.step, group))
    first, end = find_equal_runs(group[order], steps.step[order])
    score = steps.score[order]
    combined = np.maximum.reduceat(score, first) if how == "max" else np.add.reduceat(score, first) / (end - first)
    return StepScores(
        series=steps.series[order][first],
        step=steps.step[order][first],
        value=steps.value[order][first],
        label=np.logical_or.reduceat(steps.label[order], first),
        score=combined,
    )


def _at_flat_steps(
    steps: Int[np.ndarray, "steps"], scores: Float[np.ndarray, "steps"], recorded: Sequence[Series]
) -> StepScores:
    """Returns the scores of steps given as indices into the concatenation of all recorded series."""
    offsets = series_offsets(recorded)
    series = np.searchsorted(offsets, steps, side="right") - 1
    return StepScores(
        series=series,
        step=steps - offsets[series],
        value=np.concatenate([item.values for item in recorded])[steps],
        label=np.concatenate([item.labels for item in recorded])[steps],
        score=scores,
    )
