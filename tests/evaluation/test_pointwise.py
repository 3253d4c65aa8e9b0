"""Numbers against scikit-learn and against their properties; undefined is None, never 0 or 1."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from spear_jax.evaluation.pointwise import point_metrics, ranking_metrics
from spear_jax.evaluation.thresholds import choose_threshold


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(4, 200))
def test_metrics_equal_scikit_learn(seed, n):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.4
    labels[:2] = [True, False]
    scores = rng.integers(0, 8, n) / 8  # with ties
    predicted = scores >= 0.5
    found = point_metrics("x", labels, scores, predicted)
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(labels, scores))
    assert found["aupr"] == pytest.approx(sk.average_precision_score(labels, scores))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert found["recall"] == pytest.approx(sk.recall_score(labels, predicted))
    assert found["f1"] == pytest.approx(sk.f1_score(labels, predicted))
    if predicted.any():
        assert found["precision"] == pytest.approx(sk.precision_score(labels, predicted))
    else:
        assert found["precision"] is None
    assert found["base_rate"] == labels.mean()


def test_perfect_scores_give_1_and_random_scores_the_base_rate():
    rng = np.random.default_rng(0)
    labels = rng.random(50_000) < 0.1
    perfect = point_metrics("x", labels, labels.astype(float), labels)
    assert perfect["auroc"] == perfect["aupr"] == perfect["f1"] == perfect["accuracy"] == 1
    random = point_metrics("x", labels, rng.random(50_000), labels)
    assert random["aupr"] == pytest.approx(0.1, abs=0.01)
    assert random["auroc"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("label", [False, True])
def test_one_class_is_undefined_and_said(label):
    labels = np.full(10, label)
    with pytest.warns(UserWarning, match="here: one class only"):
        found = point_metrics("here", labels, np.arange(10.0), np.zeros(10, bool))
    assert found["auroc"] is None
    assert found["aupr"] is None
    assert found["precision"] is None
    assert found["recall"] == (0.0 if label else None)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.sampled_from([lambda x: x + 3, lambda x: 2 * x, np.exp, np.arctan]))
def test_ranking_metrics_depend_on_the_order_of_scores_only(seed: int, to: Callable[[np.ndarray], np.ndarray]) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.random(100) < 0.3
    labels[:2] = [True, False]
    scores = rng.integers(0, 20, 100) / 16
    plain, mapped = (ranking_metrics(labels, one) for one in (scores, to(scores)))
    assert mapped == pytest.approx(plain)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31))
def test_the_threshold_has_the_best_f1_of_all(seed):
    rng = np.random.default_rng(seed)
    labels = rng.random(60) < 0.3
    labels[:2] = [True, False]
    scores = rng.integers(0, 10, 60) + labels * rng.random()
    chosen = choose_threshold("best_f1", labels, scores)
    best = max(sk.f1_score(labels, scores >= value) for value in np.unique(scores))
    assert sk.f1_score(labels, scores >= chosen.value) == pytest.approx(best)


def test_with_one_class_the_threshold_is_a_percentile_and_says_so():
    chosen = choose_threshold("best_f1", np.zeros(1000, bool), np.arange(1000) / 1000)
    assert chosen.value == pytest.approx(0.99, abs=0.001)
    assert "quantile_0.99" in chosen.rule


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]))
def test_a_fixed_false_positive_rate_is_kept_and_made_use_of(seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.random(80) < rng.choice([0, 0.3])
    labels[0] = False
    scores = rng.integers(0, 12, 80) + labels * rng.random()
    chosen = choose_threshold("false_positive_rate", labels, scores, false_positive_rate=rate)
    normal = scores[~labels]
    assert np.mean(normal >= chosen.value) <= rate
    lower = scores[scores < chosen.value]
    assert not len(lower) or np.mean(normal >= lower.max()) > rate
    assert chosen.rule == f"false_positive_rate {rate:g}"
    assert np.isfinite(chosen.value)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_a_fixed_precision_is_reached_with_the_highest_recall_or_it_is_said(seed: int, precision: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.random(60) < 0.3
    labels[:2] = [True, False]
    scores = rng.integers(0, 10, 60) + labels * rng.random()
    chosen = choose_threshold("precision", labels, scores, precision=precision)
    found = {value: labels[scores >= value].mean() for value in np.unique(scores)}
    enough = [value for value, share in found.items() if share >= precision]
    if enough:
        assert chosen == (min(enough), f"precision {precision:g}")
    else:
        assert "not reached" in chosen.rule
        assert found[chosen.value] == max(found.values())
