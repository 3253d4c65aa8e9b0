"""The bootstrap over series: against scikit-learn on drawn series, and its properties."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from spear_jax.evaluation.bootstrap import confidence_intervals


def made(series: int, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(series), steps)
    labels = rng.random(series * steps) < np.repeat(rng.uniform(0.02, 0.4, series), steps)
    scores = (labels + rng.normal(size=len(labels))).round(1)  # with ties
    return owner, labels, scores


def test_each_draw_is_scikit_learn_s_number_on_the_drawn_series(monkeypatch: pytest.MonkeyPatch) -> None:
    owner, labels, scores = made(7, 60, 0)
    monkeypatch.setattr("spear_jax.evaluation.bootstrap.RESAMPLES", 1)
    monkeypatch.setattr("spear_jax.evaluation.bootstrap.COVERAGE", 0.0)
    for seed in range(5):
        found = confidence_intervals(owner, labels, scores, scores > 0.5, [], seed=seed)
        counts = np.random.default_rng(seed).multinomial(7, np.full(7, 1 / 7), 1)[0]
        drawn = np.concatenate([np.flatnonzero(owner == i) for i, count in enumerate(counts) for _ in range(count)])
        expected = {
            "auroc": roc_auc_score(labels[drawn], scores[drawn]),
            "aupr": average_precision_score(labels[drawn], scores[drawn]),
            "f1": f1_score(labels[drawn], scores[drawn] > 0.5),
        }
        for name, value in expected.items():
            assert found[name] == pytest.approx([value, value])


def test_more_series_give_narrower_intervals_around_the_number() -> None:
    widths = []
    for series in (5, 80):
        owner, labels, scores = made(series, 100, 1)
        low, high = confidence_intervals(owner, labels, scores, scores > 0.5, [], seed=0)["auroc"]
        assert low < roc_auc_score(labels, scores) < high
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]


def test_one_series_has_no_spread_and_one_class_no_number() -> None:
    owner, labels, scores = made(1, 200, 2)
    assert confidence_intervals(owner, labels, scores, scores > 0.5, [], seed=0)["auroc"] is None
    nothing = confidence_intervals(owner, np.zeros(200, bool), scores, scores > 0.5, [{"vus_pr": None}], seed=0)
    assert nothing == {"auroc": None, "aupr": None, "f1": None}


def test_means_over_series_are_drawn_by_series() -> None:
    owner, labels, scores = made(4, 50, 3)
    rows = [{"vus_pr": value} for value in (0.2, 0.4, None, 0.6)]
    low, high = confidence_intervals(owner, labels, scores, scores > 0.5, rows, seed=0)["vus_pr"]
    assert 0.2 <= low < 0.4 < high <= 0.6
