"""Generated telemetry: labelled, reproducible, and not solvable from single values."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from spear_jax.data.labels.injection import draw_intervals
from spear_jax.data.sources.synthetic import generate_series
from spear_jax.errors import InputError
from spear_jax.evaluation.controls import rolling_zscore

SETTINGS = {"length": 512, "past": 1024, "rate": 0.1}


def test_series_do_not_depend_on_their_number():
    few, many = generate_series(series=2, seed=5, **SETTINGS), generate_series(series=4, seed=5, **SETTINGS)
    for first, second in zip(few, many, strict=False):
        np.testing.assert_array_equal(first.values, second.values)
        np.testing.assert_array_equal(first.labels, second.labels)
    assert not np.array_equal(few[0].values, generate_series(series=1, seed=6, **SETTINGS)[0].values)


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_the_rate_of_anomalous_steps(rate):
    series = generate_series(series=80, seed=0, **(SETTINGS | {"rate": rate}))
    assert np.mean([item.labels.mean() for item in series]) == pytest.approx(rate, rel=0.15)


def test_the_past_has_its_length_and_levels_differ():
    series = generate_series(series=20, seed=0, **SETTINGS)
    assert {len(item.reference) for item in series} == {1024}
    assert {len(item) for item in series} == {512}
    spread = np.array([np.ptp(item.values) for item in series])
    assert spread.max() > 20 * spread.min()


def test_no_single_value_of_an_anomalous_step_is_unusual():
    for item in generate_series(series=30, seed=1, **SETTINGS):
        normal = np.concatenate([item.reference, item.values[~item.labels]])
        anomalous = item.values[item.labels]
        assert (anomalous >= normal.min()).all()
        assert (anomalous <= normal.max()).all()


def test_a_rolling_zscore_is_a_weak_detector_of_it():
    series = generate_series(series=60, seed=2, **SETTINGS)
    labels = np.concatenate([item.labels for item in series])
    for steps in (16, 32, 64, 128):
        scores = np.concatenate([rolling_zscore(item, steps) for item in series])
        assert roc_auc_score(labels, scores) < 0.75


def test_lengths_are_drawn_between_the_shortest_and_the_longest():
    lengths = [len(item) for item in generate_series(series=60, seed=0, shortest=100, **SETTINGS)]
    assert 100 <= min(lengths) < 150 and 450 < max(lengths) <= 512
    assert {len(item.reference) for item in generate_series(series=5, seed=0, shortest=100, **SETTINGS)} == {1024}


@pytest.mark.parametrize(("kind", "shortest", "longest"), [("spike", 1, 3), ("shift", 16, 32), ("frequency", 16, 32)])
def test_every_kind_has_its_length_and_the_same_share_of_steps(kind, shortest, longest):
    intervals = draw_intervals(100, 200_000, 0.1, np.random.default_rng(0))
    lengths = np.array([end - begin for name, begin, end in intervals if name == kind])
    assert (lengths.min(), lengths.max()) == (shortest, longest)
    assert lengths.sum() / 200_000 == pytest.approx(0.02, abs=0.003)


def test_shortest_series_must_not_be_longer_than_the_longest():
    with pytest.raises(InputError, match=r"shortest=600 must be at most config\.data\.synthetic\.length=512"):
        generate_series(series=2, seed=0, **SETTINGS, shortest=600)
