"""Tests the parts of step scores: those of each series, and runs of consecutive steps."""

import numpy as np

from spear_jax.data.step_scores import StepScores


def make(series: list[int], step: list[int]) -> StepScores:
    count = len(series)
    labels = np.zeros(count, bool)
    return StepScores(np.array(series), np.array(step), np.zeros(count), labels, np.arange(count, dtype=float))


def test_stretches_end_at_gaps_and_with_their_series() -> None:
    steps = make([0, 0, 0, 1, 1, 2], [4, 5, 8, 9, 10, 0])
    assert [stretch.score.tolist() for stretch in steps.stretches()] == [[0, 1], [2], [3, 4], [5]]


def test_the_steps_of_a_series_are_found_wherever_they_are() -> None:
    steps = make([0, 0, 1, 1, 0], [0, 1, 2, 3, 4])
    assert [series.score.tolist() for series in steps.by_series()] == [[0, 1, 4], [2, 3]]
    assert [series.series.tolist() for series in steps.by_series()] == [[0, 0, 0], [1, 1]]
