"""T-SMOTE step by step on small cases computed by hand, and its properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.data.labels import tsmote
from spear_jax.data.series import Series


def series(length: int, *intervals: tuple[int, int]) -> Series:
    labels = np.zeros(length, bool)
    for first, last in intervals:
        labels[first : last + 1] = True
    return Series("s", np.arange(length, dtype=np.float32), labels)


def test_a_sample_ends_with_an_anomaly_and_has_room_for_its_window() -> None:
    samples = tsmote.find_positive_samples(
        [series(30, (2, 3), (10, 14), (27, 29)), series(20, (7, 7))], window=8, max_lead=5
    )
    assert samples.series.tolist() == [0, 0, 1]  # the interval that ends at step 3 has no 8 steps before it
    assert samples.end.tolist() == [15, 30, 8]
    assert samples.leads.tolist() == [6, 6, 1]  # leading times 0 to 5; the last one's window begins the series


class Scripted(np.random.Generator):
    """A generator with a fixed permutation, whose integers are all 0."""

    def __init__(self, order: list[int]) -> None:
        super().__init__(np.random.PCG64(0))
        self.order = order

    def permutation(self, size: int) -> np.ndarray:
        assert size == len(self.order)
        return np.array(self.order)

    def integers(self, low: int, high: int, size: int) -> np.ndarray:
        return np.zeros(size, int)


def test_spies_set_the_threshold() -> None:
    # One feature: positives at 10, normal windows at 0, but one of them at 6. As a spy it scores highest.
    positives, negatives = np.full((4, 1), 10.0), np.array([[0.0], [0.1], [0.2], [6.0], [0.3], [-0.1], [0.0], [0.2]])
    low, _ = tsmote.spy_threshold(positives, negatives, 0.25, Scripted([0, 1, 2, 4, 5, 6, 7, 3]))
    high, classifier = tsmote.spy_threshold(positives, negatives, 0.25, Scripted([3, 1, 2, 4, 5, 6, 7, 0]))
    assert low < 0.5 < high
    assert high == pytest.approx(classifier.predict_proba([[6.0]])[0, 1])  # the largest of the spies


def test_leading_times_end_before_the_mean_falls_below_the_threshold() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.2], [0.9, 0.4, 0.3, np.nan]])
    assert tsmote.last_lead(scores, 0.65) == 0  # means .9, .6, .5, .2
    assert tsmote.last_lead(scores, 0.55) == 1
    assert tsmote.last_lead(scores, 0.5) == 2  # not below it
    assert tsmote.last_lead(scores, 0.1) == 3  # the mean of those that have a window
    assert tsmote.last_lead(scores, 0.95) == -1
    assert tsmote.last_lead(np.array([[0.9, np.nan]]), 0.5) == 0  # no window fits


def test_counts_by_hand() -> None:
    # floor(10 x .6 / 1.0), floor(10 x .4 / 1.0); floor(10 x .5 / .8), floor(10 x .3 / .8)
    assert tsmote.mixing_counts(np.array([[0.6, 0.4], [0.5, 0.3]]), 10.0).tolist() == [[6, 4], [6, 3]]
    assert tsmote.mixing_counts(np.array([[0.6, np.nan]]), 2.5).tolist() == [[2, 0]]


def problem(samples: int, leads: int, window: int, negatives: int, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    near = np.linspace(1.0, 0.3, leads)[:, None]
    windows = 3 * near + rng.normal(0, 0.1, (samples, leads, window))
    labels = rng.random((samples, leads, window)) < 0.4
    return windows, labels, rng.normal(0, 0.1, (negatives, window))


@settings(deadline=None, max_examples=25)
@given(
    samples=st.integers(2, 6),
    leads=st.integers(1, 5),
    window=st.integers(2, 8),
    negatives=st.integers(8, 60),
    seed=st.integers(0, 99),
)
def test_properties(samples: int, leads: int, window: int, negatives: int, seed: int) -> None:
    windows, labels, normal = problem(samples, leads, window, negatives, seed)
    drawn = tsmote.draw_samples(windows, labels, normal, spy_share=0.15, rng=np.random.default_rng(seed))
    assert drawn is not None
    assert drawn.values.shape == drawn.labels.shape == normal.shape  # exactly as many as there are normal ones
    late = windows[drawn.sample, drawn.lead]
    early = windows[drawn.sample, np.minimum(drawn.lead + 1, leads - 1)]
    single = drawn.weight == 1
    np.testing.assert_array_equal(drawn.values[single], late[single])
    low, high = np.minimum(late, early), np.maximum(late, early)
    assert ((low[~single] - 1e-9 <= drawn.values[~single]) & (drawn.values[~single] <= high[~single] + 1e-9)).all()
    mixed = drawn.weight[:, None] * late + (1 - drawn.weight[:, None]) * early
    np.testing.assert_allclose(drawn.values[~single], mixed[~single])
    from_late = drawn.weight >= 0.5
    np.testing.assert_array_equal(drawn.labels[from_late], labels[drawn.sample, drawn.lead][from_late])
    assert (drawn.lead + (~single) <= drawn.report["last_lead"]).all()
    assert drawn.report["drawn_synthetic"] == (~single).sum()


def test_missing_windows_are_never_drawn() -> None:
    windows, labels, normal = problem(5, 4, 6, 40, 0)
    windows[2, 1:] = np.nan
    drawn = tsmote.draw_samples(windows, labels, normal, spy_share=0.15, rng=np.random.default_rng(0))
    assert drawn is not None
    assert np.isfinite(drawn.values).all()
    assert (drawn.lead[drawn.sample == 2] == 0).all()


def test_anomalies_that_look_normal_are_not_resampled() -> None:
    rng = np.random.default_rng(0)
    windows, normal = rng.normal(size=(4, 3, 5)), rng.normal(size=(60, 5))
    assert tsmote.draw_samples(windows, windows > 0, normal, spy_share=0.5, rng=rng) is None
