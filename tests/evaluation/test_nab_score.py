"""Tests NAB's score against its formula row by row, and against published values."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.evaluation.nab import PROFILES, Profile, ScoredFile, sweep

STANDARD = PROFILES["standard"]


def sigma(position: float) -> float:
    return 2 / (1 + math.exp(5 * position)) - 1


def score_by_formula(files: list[ScoredFile], profile: Profile, threshold: float) -> float:
    """Returns the NAB score, computed row by row as the paper defines it."""
    raw, windows = 0.0, 0
    for labels, scores in files:
        probation = min(math.floor(0.15 * len(labels)), 750)
        ranges, row = [], 0
        while row < len(labels):
            if labels[row]:
                first = row
                while row < len(labels) and labels[row]:
                    row += 1
                ranges.append((first, row - 1))
            row += 1
        for first, last in ranges:
            windows += 1
            hit = [i for i in range(max(first, probation), last + 1) if scores[i] >= threshold]
            raw += sigma(-(last - hit[0] + 1) / (last - first + 1)) / sigma(-1) if hit else -profile.missed
        for i in range(probation, len(labels)):
            if scores[i] >= threshold and not labels[i]:
                before = [(first, last) for first, last in ranges if last < i]
                if not before or before[-1][0] == before[-1][1]:
                    raw -= profile.false
                    continue
                first, last = before[-1]
                position = (i - last) / (last - first)
                raw += profile.false * (-1 if position >= 3 else sigma(position))
    return 100 * (raw + profile.missed * windows) / (windows + profile.missed * windows)


def make(rows: int, ranges: list[tuple[int, int]], scores: np.ndarray) -> ScoredFile:
    labels = np.zeros(rows, bool)
    for first, last in ranges:
        labels[first : last + 1] = True
    return ScoredFile(labels, scores)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_equals_the_formula_at_every_threshold(profile: Profile, data: st.DataObject) -> None:
    files = []
    for _ in range(data.draw(st.integers(1, 3))):
        rows = data.draw(st.integers(20, 90))
        ends = sorted(data.draw(st.sets(st.integers(rows // 5 + 1, rows - 1), min_size=2, max_size=6)))
        ranges = [(a, b - 1) for a, b in zip(ends[::2], ends[1::2], strict=False)]
        scores = data.draw(st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.9]), min_size=rows, max_size=rows))
        files.append(make(rows, ranges, np.array(scores)))
    curve = sweep(files, profile)
    assert curve is not None
    for threshold in (2.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.0):
        assert curve.at(threshold) == pytest.approx(score_by_formula(files, profile, threshold), abs=1e-9)
    assert curve.at(curve.best()) == curve.scores.max()


def test_published_values() -> None:
    # arXiv:1510.03336: 0.98661 at the left edge of a window, 0.84828 in its middle, 0 at the right one.
    scores = np.zeros(100)
    scores[50] = 1.0
    left = make(100, [(50, 59)], scores)
    assert sweep([left], STANDARD).at(1.0) == pytest.approx(100)
    scores = np.zeros(100)
    scores[55] = 1.0  # five of ten rows are left
    middle = make(100, [(50, 59)], scores)
    relative_worth = 0.8482836399575131 / 0.9866142981514305
    assert sweep([middle], STANDARD).at(1.0) == pytest.approx(100 * (relative_worth + 1) / 2)
    assert sweep([middle], PROFILES["reward_low_fn"]).at(1.0) == pytest.approx(100 * (relative_worth + 2) / 3)
    assert sweep([middle], STANDARD).at(2.0) == 0  # nothing is detected


def test_false_detections_cost_more_the_farther_they_are() -> None:
    def score(row: int) -> float:
        scores = np.zeros(200)
        scores[[60, row]] = 1.0
        return sweep([make(200, [(60, 69)], scores)], STANDARD).at(1.0)

    assert score(10) == pytest.approx(100)  # within the first 15 %
    assert score(40) == pytest.approx(100 * (2 - 0.11) / 2)  # before any window
    assert score(100) == pytest.approx(100 * (2 - 0.11) / 2)  # more than three widths behind
    assert 100 > score(70) > score(72) > score(80) > score(100)


def test_undefined_without_windows() -> None:
    assert sweep([make(100, [], np.ones(100))], STANDARD) is None


@pytest.mark.skipif("SPEAR_DATA_DIR" not in os.environ, reason="NAB is not in $SPEAR_DATA_DIR/nab")
def test_random_scores_on_the_real_corpus_are_near_the_published_ones() -> None:
    from spear_jax.data.sources.nab import nab_parser

    # NAB's scoreboard gives a random detector 11.0 (standard), 1.2 (low FP) and 19.5 (low FN).
    files = nab_parser.parse_nab(Path(os.environ["SPEAR_DATA_DIR"]) / "nab")
    best_scores = {name: [] for name in PROFILES}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        scored = [ScoredFile(file.labels("windows"), rng.random(len(file.values))) for file in files]
        for name, profile in PROFILES.items():
            best_scores[name].append(sweep(scored, profile).scores.max())
    means = {name: float(np.mean(values)) for name, values in best_scores.items()}
    assert means["standard"] == pytest.approx(11.0, abs=6)
    assert means["reward_low_fp"] == pytest.approx(1.2, abs=3)
    assert means["reward_low_fn"] == pytest.approx(19.5, abs=6)
    assert means["reward_low_fp"] < means["standard"] < means["reward_low_fn"]
