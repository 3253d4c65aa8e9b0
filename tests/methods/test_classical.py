"""Tests the cheap controls against their definitions."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.data.batches import Examples
from spear_jax.data.series import Series
from spear_jax.evaluation.controls import bin_lookup, rolling_zscore


@settings(deadline=None, max_examples=50)
@given(
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=60),
    past=st.integers(0, 20),
    steps=st.integers(2, 30),
)
def test_rolling_zscore_equals_its_definition(values, past, steps):
    rng = np.random.default_rng(len(values))
    reference = rng.normal(size=past).astype(np.float32)
    series = Series("a", np.float32(values), np.zeros(len(values), bool), reference=reference)
    scores = rolling_zscore(series, steps)
    both = np.concatenate([reference[-steps:] if past else reference, np.float32(values)]).astype(float)
    floor = 1e-3 * both.std() + 1e-12
    for i, score in enumerate(scores, start=len(both) - len(values)):
        window = both[max(0, i - steps) : i]
        expected = abs(both[i] - window.mean()) / max(window.std(), floor) if len(window) > 1 else 0
        np.testing.assert_allclose(score, expected, rtol=1e-3, atol=1e-3 * (1 + expected))


def test_rolling_zscore_of_a_jump_after_a_constant_past_is_large_and_finite():
    values = np.float32([5] * 50 + [6] + [5] * 49)
    score = rolling_zscore(Series("a", values, np.zeros(100, bool)), 20)
    assert np.isfinite(score).all()
    assert score.argmax() == 50


def test_rolling_zscore_skips_missing_values():
    values = np.float32([1, 2, 1, 2, np.nan, 1, 2, 9])
    score = rolling_zscore(Series("a", values, np.zeros(8, bool)), 4)
    assert np.isfinite(score).all()
    assert score[4] == 0
    assert score.argmax() == 7


def test_bin_lookup_counts_the_training_split_alone():
    def examples(bins, targets, mask=None):
        bins = np.array([bins])
        mask = np.ones(bins.shape, bool) if mask is None else np.array([mask])
        return Examples(
            bins, np.zeros((*bins.shape, 0), np.int32), mask, np.array([targets], np.float32), np.array([bins.shape[1]])
        )

    train = examples([0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 0, 1], [True] * 5 + [False])
    scores = bin_lookup(train, 3, examples([0, 1, 2, 3], [1, 1, 1, 1]))
    base = 1 / 5
    np.testing.assert_allclose(scores[0], [base / 4, (1 + base) / 3, base, base])
