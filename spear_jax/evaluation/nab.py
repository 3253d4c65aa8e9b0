"""Computes the NAB score (Lavin and Ahmad, ICMLA 2015, arXiv:1510.03336): rewards earliness, penalizes false alarms.

A detection at relative position y of a labelled window (-1 at its start, 0 at its end) earns sigma(y) / sigma(-1), with
sigma(y) = 2 / (1 + exp(5y)) - 1. Only the earliest detection in a window counts, and a missed window costs A_FN. A
false detection y window widths after the end of the last window costs A_FP |sigma(y)|; it costs A_FP if y >= 3 or no
window came before. The first 15 % of a file, at most 750 rows, are not counted. The sum over all files is rescaled so
that no detection at all scores 0, and detecting exactly the first row of each window scores 100.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from spear_jax.data import Dataset, StepScores, find_runs

PROBATION_SHARE, PROBATION_ROWS = 0.15, 750


class Profile(NamedTuple):
    """The cost of a missed window and of a false detection."""

    missed: float
    false: float


PROFILES = {
    "standard": Profile(missed=1.0, false=0.11),
    "reward_low_fp": Profile(missed=1.0, false=0.22),
    "reward_low_fn": Profile(missed=2.0, false=0.11),
}


class ScoredFile(NamedTuple):
    """The labels (True inside the labelled windows) and the score of each row of a file."""

    labels: Bool[np.ndarray, "rows"]
    scores: Float[np.ndarray, "rows"]


class Sweep(NamedTuple):
    """The NAB score as a function of the threshold.

    Attributes:
      thresholds: descending from infinity; a row is detected if its score is at least the threshold.
      scores: the NAB score at each threshold, at most 100.
    """

    thresholds: Float[np.ndarray, "thresholds"]
    scores: Float[np.ndarray, "thresholds"]

    def best(self) -> float:
        """Returns the threshold with the best score; of several, the highest."""
        return float(self.thresholds[np.argmax(self.scores)])

    def at(self, threshold: float) -> float:
        """Returns the NAB score at a threshold."""
        return float(self.scores[np.flatnonzero(self.thresholds >= threshold)[-1]])


def sweep(files: Sequence[ScoredFile], profile: Profile) -> Sweep | None:
    """Computes the NAB score of a detector at every threshold.

    Returns:
      The sweep; None if no file has a window, since the score is then undefined.
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
            # Gain of each row over the best so far as the threshold falls; the first also refunds the cost of a miss.
            best = np.maximum.accumulate(worth[rows])
            gains.append(np.diff(best, prepend=-profile.missed))
            scores.append(file.scores[rows])
    if not windows:
        return None
    order = np.argsort(-np.concatenate(scores), kind="stable")
    sorted_scores = np.concatenate(scores)[order]
    totals = np.cumsum(np.concatenate(gains)[order]) - profile.missed * windows
    last = np.append(np.diff(sorted_scores) != 0, True)  # rows with the same score are detected together
    nothing, perfect = -profile.missed * windows, float(windows)
    raw = np.concatenate([[nothing], totals[last]])
    return Sweep(
        thresholds=np.concatenate([[np.inf], sorted_scores[last]]),
        scores=100 * (raw - nothing) / (perfect - nothing),
    )


def _worth(labels: Bool[np.ndarray, "rows"]) -> tuple[Float[np.ndarray, "rows"], Int[np.ndarray, "rows"]]:
    """Returns the unweighted value of a detection at each row, and the index of the window around the row, or -1."""
    first, end = find_runs(labels)
    rows = np.arange(len(labels))
    before = np.searchsorted(first, rows, side="right") - 1  # the last window to have started
    window = np.where(labels, before, -1)
    worth = np.full(len(labels), -1.0)
    if len(first):
        width, last = (end - first)[before], (end - 1)[before]
        inside = -(last - rows + 1) / width
        # A window of one row has no width, so every later row counts as far away.
        after = np.where(width > 1, np.abs(rows - last) / np.maximum(width - 1, 1), np.inf)
        past = np.where(before < 0, np.inf, after)
        worth = np.where(labels, _sigma(inside) / _sigma(np.full(1, -1.0)), np.where(past >= 3, -1.0, _sigma(past)))
    return worth, window


def _sigma(position: Float[np.ndarray, "*rows"]) -> Float[np.ndarray, "*rows"]:
    return 2 / (1 + np.exp(np.minimum(5 * position, 50))) - 1


def nab_scores(
    config: ConfigDict, dataset: Dataset, detectors: Mapping[str, Mapping[str, StepScores]]
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Computes NAB's score by detector and profile, each at the threshold that is best on validation.

    Returns:
      Scores of validation and test, None if the split has no labelled window; empty unless the data are whole files of
      NAB with labelled windows.
    """
    data = config.data
    if dataset.name != "nab" or (data.split, data.labels, data.nab.labels) != ("series", "recorded", "windows"):
        return {}

    def files(steps: StepScores) -> list[ScoredFile]:
        return [ScoredFile(series.label, series.score) for series in steps.by_series()]

    scores: dict[str, dict[str, dict[str, float | None]]] = {}
    for name, steps in detectors.items():
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
