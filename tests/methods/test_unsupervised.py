"""Tests that the detectors without labels find planted anomalies and agree with other implementations."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from spear_jax.data.series import Series
from spear_jax.errors import InputError
from spear_jax.methods import unsupervised
from spear_jax.methods.unsupervised import isolation_forest, matrix_profile, nearest_neighbours, sub_pca

every_method = pytest.mark.parametrize("method", unsupervised.DETECTORS.values(), ids=unsupervised.DETECTORS)


def telemetry(past: int = 400) -> Series:
    """Returns a noisy oscillation with 60 anomalous steps of stronger noise alone."""
    rng = np.random.default_rng(0)
    step = np.arange(past + 1200)
    values = np.sin(step / 5) + rng.normal(0, 0.1, len(step))
    labels = np.zeros(len(step), bool)
    labels[past + 700 : past + 760] = True
    values[labels] = rng.normal(0, 1.5, 60)
    values = values.astype(np.float32)
    return Series("a", values[past:], labels[past:], reference=values[:past])


def small() -> Series:
    """Returns integers that oscillate, stand still, and oscillate differently; the past is like the beginning."""
    values = "3718592637285936444444444444443718692519905527085926"
    past = "371859262718492638185936"
    return Series("a", np.float32(list(values)), np.zeros(len(values), bool), reference=np.float32(list(past)))


def windows(series: Series, window: int, *, past: bool = True) -> np.ndarray:
    """Returns the windows of the past, then those of the series, standardized together."""
    both = np.concatenate([series.reference, series.values]).astype(float)
    parts = [series.reference, series.values] if past else [series.values]
    return np.concatenate([sliding_window_view((part - both.mean()) / both.std(), window) for part in parts])


def step_means(scores: np.ndarray, window: int) -> np.ndarray:
    """Returns each step's mean score over the windows around it."""
    steps = len(scores) + window - 1
    return np.array([scores[max(t - window + 1, 0) : t + 1].mean() for t in range(steps)])


@every_method
@pytest.mark.parametrize("past", [0, 400])
@pytest.mark.parametrize("window", [0, 20])
def test_a_planted_anomaly_is_found(method: Callable, past: int, window: int) -> None:
    series = telemetry(past)
    score = method(series, window, seed=0)
    assert score.shape == series.values.shape
    assert roc_auc_score(series.labels, score) > 0.9


@every_method
def test_labels_are_not_read(method: Callable) -> None:
    series = telemetry()
    shuffled = dataclasses.replace(series, labels=np.random.default_rng(1).permutation(series.labels))
    np.testing.assert_array_equal(method(series, seed=0), method(shuffled, seed=0))


@every_method
def test_the_unit_does_not_matter(method: Callable) -> None:
    series = telemetry()
    values, reference = (part.astype(float) * 1024 + 1e9 for part in (series.values, series.reference))
    other = dataclasses.replace(series, values=values, reference=reference)
    np.testing.assert_allclose(method(other, seed=0), method(series, seed=0), rtol=1e-4)


@every_method
def test_missing_values_score_zero_and_hide_no_anomaly(method: Callable) -> None:
    series = telemetry()
    gaps = np.random.default_rng(1).random(len(series)) < 0.05
    gaps[[0, -1]] = True
    reference = np.where(np.arange(400) < 10, np.nan, series.reference)
    series = dataclasses.replace(series, values=np.where(gaps, np.nan, series.values), reference=reference)
    score = method(series, seed=0)
    assert np.isfinite(score).all()
    assert not score[gaps].any()
    assert roc_auc_score(series.labels[~gaps], score[~gaps]) > 0.9


@every_method
@pytest.mark.parametrize(
    "values",
    [[], [1.0], [1.0, 2.0], [0.1] * 300, [np.nan] * 300, [0.1, np.nan] * 150],
    ids=["empty", "one step", "two steps", "constant", "missing", "constant with gaps"],
)
def test_a_series_without_information_scores_zero(method: Callable, values: list[float]) -> None:
    series = Series("a", np.array(values, float), np.zeros(len(values), bool))
    score = method(series, 30 if len(values) < 30 else 0, seed=0)
    np.testing.assert_array_equal(score, np.zeros(len(values)))


@every_method
@pytest.mark.parametrize("length", range(1, 12))
@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.filterwarnings("error")
def test_every_length_gets_finite_scores(method: Callable, length: int, window: int) -> None:
    values = np.random.default_rng(length).normal(size=length).astype(np.float32)
    score = method(Series("a", values, np.zeros(length, bool)), window, seed=0)
    assert score.shape == (length,)
    assert np.isfinite(score).all()


@every_method
def test_a_constant_series_with_a_varying_past_gets_one_score(method: Callable) -> None:
    series = dataclasses.replace(telemetry(), values=np.full(1200, 0.5, np.float32))
    score = method(series, seed=0)
    assert np.isfinite(score).all()
    np.testing.assert_allclose(score, score[0])


@every_method
def test_a_sample_of_references_suffices_and_depends_on_the_seed(
    method: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsupervised, "MAX_REFERENCES", 300)
    series = telemetry()
    score = method(series, 20, seed=1)
    np.testing.assert_array_equal(score, method(series, 20, seed=1))
    assert (score != method(series, 20, seed=2)).any()
    assert roc_auc_score(series.labels, score) > 0.9


@every_method
@pytest.mark.parametrize("window", [-1, 1])
def test_an_impossible_window_is_refused(method: Callable, window: int) -> None:
    with pytest.raises(InputError, match=f"window={window}"):
        method(telemetry(), window, seed=0)


def test_the_default_window_is_128_steps_or_a_quarter() -> None:
    series = telemetry()
    np.testing.assert_array_equal(sub_pca(series, seed=0), sub_pca(series, 128, seed=0))
    series = telemetry(past=40).stretch(0, 200)
    np.testing.assert_array_equal(sub_pca(series, seed=0), sub_pca(series, 60, seed=0))


def test_isolation_forest_is_scikit_learn_s_on_windows() -> None:
    series = telemetry()
    references = windows(series, 20)
    forest = IsolationForest(random_state=3).fit(references)
    expected = step_means(-forest.score_samples(references[-(1200 - 19) :]), 20)
    np.testing.assert_allclose(isolation_forest(series, 20, seed=3), expected, rtol=1e-6)


@pytest.mark.parametrize("past", [True, False])
def test_neighbours_are_those_of_brute_force(past: bool) -> None:
    series, window = small() if past else dataclasses.replace(small(), reference=np.zeros(0, np.float32)), 6
    own = windows(series, window, past=False)
    before = windows(series, window)[: -len(own)] if past else own[:0]
    expected = np.zeros(len(own))
    for i, query in enumerate(own):
        references = [*before, *(other for j, other in enumerate(own) if abs(i - j) >= window)]
        expected[i] = min(np.linalg.norm(query - reference) for reference in references)
    scores = nearest_neighbours(series, window, seed=0)
    np.testing.assert_allclose(scores, step_means(expected, window) / expected.mean(), rtol=1e-9, atol=1e-9)


# stumpy 1.14.1 on `small`: stump(values, 8)[:, 0] and stump(values, 8, past, ignore_trivial=False)[:, 0].
# fmt: off
ALONE = [
    0.303472, 0.270111, 0.95441, 1.573069, 1.891594, 1.891594, 1.246354, 0.381816, 0.325951, 0.270111, 1.29996,
    1.573069, 2.351353, 2.371577, 2.437334, 2.65743, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.680317, 2.649331, 2.451294,
    2.209897, 1.519719, 0.778232, 0.604944, 0.521308, 0.782481, 0.95441, 2.314569, 2.576349, 2.633862, 2.828427,
    2.828427, 2.529759, 2.351353, 2.209897, 1.519719, 0.778232, 0.381816, 0.303472,
]
WITH_PAST = [
    0.0, 0.316387, 0.316387, 0.33836, 0.33836, 0.390867, 0.390867, 0.229135, 0.229135, 0.252227, 1.386682, 1.700853,
    2.444362, 2.422909, 2.634726, 2.690736, 2.828427, 2.828427, 2.828427, 2.828427, 2.828427, 2.828427, 2.828427,
    2.690736, 2.731381, 2.329481, 2.045077, 2.164749, 1.14504, 0.891619, 0.521308, 0.566281, 0.788301, 2.243685,
    3.285051, 3.346776, 3.515011, 3.492662, 3.381542, 3.292334, 3.354901, 2.939201, 1.199387, 0.379088, 0.303472,
]
# fmt: on


@pytest.mark.parametrize("past", [True, False])
def test_the_matrix_profile_is_stumpy_s(past: bool) -> None:
    series = small() if past else dataclasses.replace(small(), reference=np.zeros(0, np.float32))
    profile = np.minimum(ALONE, WITH_PAST) if past else np.array(ALONE)
    np.testing.assert_allclose(matrix_profile(series, 8, seed=0), step_means(profile, 8) / profile.mean(), atol=2e-6)


def test_sub_pca_is_the_residual_of_scikit_learn_s_components() -> None:
    series = telemetry()
    references = windows(series, 20)
    pca = PCA(n_components=0.9).fit(references)
    assert 1 < pca.n_components_ < 19
    own = references[-(1200 - 19) :]
    expected = np.linalg.norm(own - pca.inverse_transform(pca.transform(own)), axis=1)
    np.testing.assert_allclose(sub_pca(series, 20, seed=0), step_means(expected, 20) / expected.mean(), rtol=1e-6)
