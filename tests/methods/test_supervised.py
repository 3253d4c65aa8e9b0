"""Classifiers of steps read the surroundings of a step, inside its window, and nothing of what they are judged on."""

import dataclasses
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from spear_jax.config.fields import default_config
from spear_jax.data import dataset
from spear_jax.data.batches import Examples
from spear_jax.data.series import LoadedSeries, Series
from spear_jax.methods import supervised
from spear_jax.methods.supervised import gradient_boosting, logistic_regression, statistics

BINS, T = 50, 48
every_method = pytest.mark.parametrize("method", [logistic_regression, gradient_boosting])


def telemetry(windows: int, seed: int, *, gaps: bool = False) -> Examples:
    """Values around a level of each window's own; at labelled stretches they scatter five times as wide."""
    rng = np.random.default_rng(seed)
    begin = rng.integers(0, T, (windows, 1))
    labels = (np.arange(T) >= begin) & (np.arange(T) < begin + 12)
    level = rng.uniform(0.3, 0.7, (windows, 1))
    values = level + np.where(labels, 0.15, 0.03) * rng.normal(size=(windows, T))
    bins = np.clip(values * BINS, 0, BINS - 1).astype(np.int32)
    mask = np.ones(bins.shape, bool)
    if gaps:  # padding, and steps that were not recorded
        mask = np.arange(T) < rng.integers(T // 2, T + 1, (windows, 1))
        bins = np.where(mask & (rng.random(bins.shape) > 0.1), bins, BINS)
    return Examples(bins, mask, (labels & mask).astype(np.float32), np.full(windows, T))


def area(part: Examples, scores: np.ndarray) -> float:
    return float(roc_auc_score(part.targets[part.mask], scores[part.mask]))


@settings(deadline=None, max_examples=40)
@given(steps=st.integers(1, 90), known=st.floats(0, 1), seed=st.integers(0, 100))
def test_statistics_equal_their_definitions(steps: int, known: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bins = np.where(rng.random((2, steps)) < known, rng.integers(0, BINS, (2, steps)), BINS)
    found = statistics(bins, BINS)
    assert found.shape == (2, steps, 18)
    values = np.where(bins < BINS, bins / BINS, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of means of nothing
        for row, t in np.ndindex(bins.shape):
            expected = [values[row, t], values[row, t] - values[row, t - 1] if t else np.nan]
            for reach in (2, 8, 32, steps):
                near = values[row, max(t - reach, 0) : t + reach + 1]
                expected += [np.nanmean(near), np.nanstd(near), np.nanmin(near), np.nanmax(near)]
            np.testing.assert_allclose(found[row, t], expected, rtol=1e-5, atol=1e-6)


def test_a_stretch_that_stands_still_has_no_deviation_at_all() -> None:
    bins = np.repeat(np.arange(BINS)[:, None], T, axis=1)
    assert not statistics(bins, BINS)[..., 3::4].any()


def test_a_window_s_statistics_are_its_own() -> None:
    bins = telemetry(8, 0, gaps=True).bins
    alone = np.concatenate([statistics(one[None], BINS) for one in bins])
    np.testing.assert_array_equal(statistics(bins, BINS), alone)


@every_method
@pytest.mark.parametrize("gaps", [False, True])
def test_a_planted_anomaly_is_found(method: Callable, gaps: bool) -> None:
    train, test = telemetry(100, 0, gaps=gaps), telemetry(40, 1, gaps=gaps)
    found = method(train, {"train": train, "test": test}, BINS, seed=0)
    assert {split: scores.shape for split, scores in found.items()} == {"train": (100, T), "test": (40, T)}
    for scores in found.values():
        assert ((scores >= 0) & (scores <= 1)).all()
    assert area(train, found["train"]) > 0.9
    assert area(test, found["test"]) > 0.9


def tables(train: Examples, test: Examples) -> list[np.ndarray]:
    """Statistics of real steps; the training mean where they are missing, with a 1 in a column of its own."""
    x, to_score = (statistics(part.bins, BINS)[part.mask].astype(float) for part in (train, test))
    lacking, mean = np.isnan(x).any(axis=0), np.nanmean(x, axis=0)
    return [
        np.column_stack([np.where(np.isnan(part), mean, part), np.isnan(part[:, lacking])]) for part in (x, to_score)
    ]


def test_gradient_boosting_is_scikit_learn_s_on_the_statistics() -> None:
    train, test = telemetry(60, 0, gaps=True), telemetry(20, 1, gaps=True)
    x, to_score = tables(train, test)
    trees = HistGradientBoostingClassifier(early_stopping=False, random_state=5)
    trees.fit(x, train.targets[train.mask] > 0)
    found = gradient_boosting(train, {"test": test}, BINS, seed=5)["test"]
    np.testing.assert_allclose(found[test.mask], trees.predict_proba(to_score)[:, 1], atol=1e-6)


def test_logistic_regression_is_scikit_learn_s_on_standardized_statistics() -> None:
    train, test = telemetry(60, 0, gaps=True), telemetry(20, 1, gaps=True)
    x, to_score = tables(train, test)
    centre, width = x.mean(axis=0), x.std(axis=0)
    regression = LogisticRegression(max_iter=10_000, tol=1e-9).fit((x - centre) / width, train.targets[train.mask] > 0)
    found = logistic_regression(train, {"test": test}, BINS, seed=0)["test"]
    np.testing.assert_allclose(found[test.mask], regression.predict_proba((to_score - centre) / width)[:, 1], atol=1e-3)


def made(values_after: float, split: str, *, missing: str = "bin") -> dataset.Dataset:
    """A data set out of six series; what lies outside the training part is multiplied."""
    rng = np.random.default_rng(0)
    recorded = []
    for i in range(6):
        values = rng.normal(size=400)
        labels = (np.arange(400) % 100) >= 85
        values[labels] *= 4
        values[rng.random(400) < 0.05] = np.nan
        if split == "time":
            values[240:] *= values_after
        recorded.append(Series(f"s{i}", values.astype(np.float32), labels))
    config = default_config()
    config.data.window = config.data.stride = 32
    config.data.split, config.data.gap, config.quantizer.missing = split, 0, missing
    if split == "series":
        held_out = {
            recorded[i].name
            for part in ("validation", "test")
            for i in dataset.build_dataset(config, LoadedSeries("made", recorded)).windows[part].series
        }
        recorded = [
            dataclasses.replace(one, values=one.values * np.float32(values_after)) if one.name in held_out else one
            for one in recorded
        ]
    return dataset.build_dataset(config, LoadedSeries("made", recorded))


@every_method
@pytest.mark.parametrize("split", ["time", "series"])
def test_validation_and_test_do_not_reach_training(method: Callable, split: str) -> None:
    one, other = made(1, split), made(-30, split)
    assert (one.windows["test"].values != other.windows["test"].values).any()
    bins = one.quantizer.bins
    features = [statistics(data.training.bins, data.quantizer.bins) for data in (one, other)]
    np.testing.assert_array_equal(*features)
    scores = [method(data.training, data.examples, bins, seed=0) for data in (one, other)]
    np.testing.assert_array_equal(scores[0]["train"], scores[1]["train"])
    if split == "time":
        assert (scores[0]["test"] != scores[1]["test"]).any()


@every_method
def test_a_data_set_s_masked_steps_are_not_fitted(method: Callable) -> None:
    data = made(1, "series", missing="mask")
    train = data.training
    assert not train.mask.all()
    flipped = dataclasses.replace(train, targets=np.where(train.mask, train.targets, 1 - train.targets))
    splits, bins = {"test": data.examples["test"]}, data.quantizer.bins
    np.testing.assert_array_equal(
        method(train, splits, bins, seed=0)["test"], method(flipped, splits, bins, seed=0)["test"]
    )


@every_method
def test_the_labels_of_what_is_scored_are_not_read(method: Callable) -> None:
    train, test = telemetry(30, 0), telemetry(10, 1)
    flipped = dataclasses.replace(test, targets=1 - test.targets)
    found = method(train, {"test": test, "flipped": flipped}, BINS, seed=0)
    np.testing.assert_array_equal(found["test"], found["flipped"])


@every_method
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_scores_the_same_everywhere_and_says_so(method: Callable, label: int) -> None:
    train = telemetry(5, 0, gaps=True)
    train = dataclasses.replace(train, targets=np.full(train.targets.shape, label, np.float32))
    with pytest.warns(UserWarning, match="one class only"):
        found = method(train, {"train": train, "test": telemetry(3, 1)}, BINS, seed=0)
    assert {split: scores.shape for split, scores in found.items()} == {"train": (5, T), "test": (3, T)}
    for scores in found.values():
        assert (scores == label).all()


@every_method
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("every", [1, 2])
def test_a_window_without_a_value_is_scored_too(method: Callable, every: int) -> None:
    train = telemetry(30, 0)  # without gaps, so that none was learned from; or without any change from step to step
    train = dataclasses.replace(train, bins=np.where(np.arange(T) % every == 0, train.bins, BINS))
    nothing = dataclasses.replace(telemetry(2, 1), bins=np.full((2, T), BINS, np.int32))
    assert np.isfinite(method(train, {"nothing": nothing}, BINS, seed=0)["nothing"]).all()


@every_method
def test_a_sample_of_the_steps_serves_and_depends_on_the_seed(
    method: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "MAX_STEPS", 2000)
    monkeypatch.setattr(supervised, "CHUNK", 7 * T)
    train, test = telemetry(100, 0, gaps=True), telemetry(40, 1, gaps=True)
    first, again, other = (method(train, {"test": test}, BINS, seed=seed)["test"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert area(test, first) > 0.9
