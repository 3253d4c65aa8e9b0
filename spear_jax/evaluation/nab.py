"""NAB's own score (Lavin and Ahmad, ICMLA 2015, arXiv:1510.03336): early detections count more, false ones cost.

A detection at relative position y of a labelled window (-1 its beginning, 0 its end) is worth sigma(y) = 2 / (1 +
exp(5y)) - 1, over sigma(-1); only the earliest of a window counts, and a window without one costs A_FN. A false
detection costs A_FP |sigma(y)| at y window widths after the last window's end, and A_FP where y >= 3 or no window came
before. The first 15 % of a file, 750 rows at most, count nothing. The sum over files is mapped so that no detection at
all gives 0 and a detection at the first row of each window, and nowhere else, 100.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from spear_jax.data import Dataset, StepScores, find_equal_runs, find_runs

PROBATION_SHARE, PROBATION_ROWS = 0.15, 750


class Profile(NamedTuple):
    """What an application pays: for a missed window, for a false detection."""

    missed: float
    false: float


PROFILES = {
    "standard": Profile(missed=1.0, false=0.11),
    "reward_low_fp": Profile(missed=1.0, false=0.22),
    "reward_low_fn": Profile(missed=2.0, false=0.11),
}


class ScoredFile(NamedTuple):
    """A whole file: True in the labelled windows, and a score per row."""

    labels: Bool[np.ndarray, "rows"]
    scores: Float[np.ndarray, "rows"]


class Sweep(NamedTuple):
    """The NAB score as a function of the threshold.

    Attributes:
      thresholds: descending; a row is detected if its score is at least the threshold. The first is infinite.
      scores: NAB score at each, at most 100.
    """

    thresholds: Float[np.ndarray, "thresholds"]
    scores: Float[np.ndarray, "thresholds"]

    def best(self) -> float:
        """The highest of the best thresholds."""
        return float(self.thresholds[np.argmax(self.scores)])

    def at(self, threshold: float) -> float:
        """The NAB score at a threshold."""
        return float(self.scores[np.flatnonzero(self.thresholds >= threshold)[-1]])


def sweep(files: Sequence[ScoredFile], profile: Profile) -> Sweep | None:
    """The NAB score of a detector at every threshold.

    Args:
      files: whole files, from their first row on: the first rows are not counted.
      profile: one of `PROFILES`.

    Returns:
      The sweep; None where no file has a window, since the score is undefined then.
    """
    gains, scores, windows = [], [], 0
    for file in files:
        worth, window = _worth(file.labels)
        counted = np.arange(len(worth)) >= min(math.floor(PROBATION_SHARE * len(worth)), PROBATION_ROWS)
        false = counted & (window < 0)
        gains.append(profile.false * worth[false])
        scores.append(file.scores[false])
        for number in np.unique(window[counted & (window >= 0)]):
            windows += 1
            rows = np.flatnonzero(counted & (window == number))
            rows = rows[np.argsort(-file.scores[rows], kind="stable")]
            # What each row adds to the best so far as the threshold sinks: the first also makes good for the miss.
            best = np.maximum.accumulate(worth[rows])
            gains.append(np.diff(best, prepend=-profile.missed))
            scores.append(file.scores[rows])
    if not windows:
        return None
    order = np.argsort(-np.concatenate(scores), kind="stable")
    sorted_scores = np.concatenate(scores)[order]
    totals = np.cumsum(np.concatenate(gains)[order]) - profile.missed * windows
    last = np.append(np.diff(sorted_scores) != 0, True)  # rows of one score are detected together
    nothing, perfect = -profile.missed * windows, float(windows)
    raw = np.concatenate([[nothing], totals[last]])
    return Sweep(
        thresholds=np.concatenate([[np.inf], sorted_scores[last]]),
        scores=100 * (raw - nothing) / (perfect - nothing),
    )


def _worth(labels: Bool[np.ndarray, "rows"]) -> tuple[Float[np.ndarray, "rows"], Int[np.ndarray, "rows"]]:
    """What a detection is worth at each row, before the profile's weights, and the window it lies in or -1."""
    first, end = find_runs(labels)
    rows = np.arange(len(labels))
    before = np.searchsorted(first, rows, side="right") - 1  # the last window that began
    window = np.where(labels, before, -1)
    worth = np.full(len(labels), -1.0)
    if len(first):
        width, last = (end - first)[before], (end - 1)[before]
        inside = -(last - rows + 1) / width
        # A window of one row has no width to measure by: whatever follows it is far away.
        after = np.where(width > 1, np.abs(rows - last) / np.maximum(width - 1, 1), np.inf)
        past = np.where(before < 0, np.inf, after)
        worth = np.where(labels, _sigma(inside) / _sigma(np.full(1, -1.0)), np.where(past >= 3, -1.0, _sigma(past)))
    return worth, window


def _sigma(position: Float[np.ndarray, "*rows"]) -> Float[np.ndarray, "*rows"]:
    return 2 / (1 + np.exp(np.minimum(5 * position, 50))) - 1


def _nab_scores(
    config: ConfigDict, dataset: Dataset, found: Mapping[str, Mapping[str, StepScores]]
) -> dict[str, dict[str, dict[str, float | None]]]:
    """NAB's own score by detector and profile, with a threshold that is best on validation for each of them.

    Defined for whole files with labelled windows only; where validation has none, or test, the score is None.
    """
    data = config.data
    if dataset.name != "nab" or (data.split, data.labels, data.nab.labels) != ("series", "recorded", "windows"):
        return {}

    def files(steps: StepScores) -> list[ScoredFile]:
        return [ScoredFile(steps.label[here], steps.score[here]) for here in _runs(steps.series)]

    scores: dict[str, dict[str, dict[str, float | None]]] = {}
    for name, steps in found.items():
        scores[name] = {}
        for profile, costs in PROFILES.items():
            validation, test = (sweep(files(steps[split]), costs) for split in ("validation", "test"))
            best = validation.best() if validation else None
            scores[name][profile] = {
                "threshold": best if best is None or np.isfinite(best) else None,
                "validation": validation.at(best) if validation and best is not None else None,
                "test": test.at(best) if test and best is not None else None,
            }
    return scores


def _runs(series: np.ndarray) -> list[slice]:
    """Where each series begins and ends among steps in order of series."""
    return [slice(start, end) for start, end in zip(*find_equal_runs(series), strict=True)]
