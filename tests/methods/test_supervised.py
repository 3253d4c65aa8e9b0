"""Tests that the step classifiers read a step's surroundings inside its window, and no data that judge them."""

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
every_method = pytest.mark.parametrize("method", supervised.CLASSIFIERS.values(), ids=supervised.CLASSIFIERS)


def telemetry(windows: int, seed: int, *, gaps: bool = False) -> Examples:
    """Returns windows of values around a level each, which scatter five times as wide at labelled stretches."""
    rng = np.random.default_rng(seed)
    begin = rng.integers(0, T, (windows, 1))
    labels = (np.arange(T) >= begin) & (np.arange(T) < begin + 12)
    level = rng.uniform(0.3, 0.7, (windows, 1))
    values = level + np.where(labels, 0.15, 0.03) * rng.normal(size=(windows, T))
    bins = np.clip(values * BINS, 0, BINS - 1).astype(np.int32)
    mask = np.ones(bins.shape, bool)
    if gaps:  # padding and missing values
        mask = np.arange(T) < rng.integers(T // 2, T + 1, (windows, 1))
        bins = np.where(mask & (rng.random(bins.shape) > 0.1), bins, BINS)
    return Examples(
        bins, np.zeros((*bins.shape, 0), np.int32), mask, (labels & mask).astype(np.float32), np.full(windows, T)
    )


def auroc(examples: Examples, scores: np.ndarray) -> float:
    return float(roc_auc_score(examples.targets[examples.mask], scores[examples.mask]))


@settings(deadline=None, max_examples=40)
@given(steps=st.integers(1, 90), recorded=st.floats(0, 1), seed=st.integers(0, 100))
def test_statistics_equal_their_definitions(steps: int, recorded: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bins = np.where(rng.random((2, steps)) < recorded, rng.integers(0, BINS, (2, steps)), BINS)
    features = statistics(bins, BINS)
    assert features.shape == (2, steps, 18)
    values = np.where(bins < BINS, bins / BINS, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of means of nothing
        for row, t in np.ndindex(bins.shape):
            expected = [values[row, t], values[row, t] - values[row, t - 1] if t else np.nan]
            for reach in (2, 8, 32, steps):
                near = values[row, max(t - reach, 0) : t + reach + 1]
                expected += [np.nanmean(near), np.nanstd(near), np.nanmin(near), np.nanmax(near)]
            np.testing.assert_allclose(features[row, t], expected, rtol=1e-5, atol=1e-6)


def test_a_constant_window_has_a_deviation_of_exactly_zero() -> None:
    bins = np.repeat(np.arange(BINS)[:, None], T, axis=1)
    assert not statistics(bins, BINS)[..., 3::4].any()


def test_statistics_depend_on_their_window_alone() -> None:
    bins = telemetry(8, 0, gaps=True).bins
    alone = np.concatenate([statistics(window[None], BINS) for window in bins])
    np.testing.assert_array_equal(statistics(bins, BINS), alone)


@every_method
@pytest.mark.parametrize("gaps", [False, True])
def test_a_planted_anomaly_is_found(method: Callable, gaps: bool) -> None:
    train, test = telemetry(100, 0, gaps=gaps), telemetry(40, 1, gaps=gaps)
    scores = method(train, {"train": train, "test": test}, BINS, seed=0)
    assert {split: array.shape for split, array in scores.items()} == {"train": (100, T), "test": (40, T)}
    for array in scores.values():
        assert ((array >= 0) & (array <= 1)).all()
    assert auroc(train, scores["train"]) > 0.9
    assert auroc(test, scores["test"]) > 0.9


def tables(train: Examples, test: Examples) -> list[np.ndarray]:
    """Returns the features of real steps: training means for missing ones, and indicators of what is missing."""
    x, test_x = (statistics(part.bins, BINS)[part.mask].astype(float) for part in (train, test))
    incomplete, mean = np.isnan(x).any(axis=0), np.nanmean(x, axis=0)
    return [
        np.column_stack([np.where(np.isnan(part), mean, part), np.isnan(part[:, incomplete])]) for part in (x, test_x)
    ]


def test_gradient_boosting_is_scikit_learn_s_on_the_statistics() -> None:
    train, test = telemetry(60, 0, gaps=True), telemetry(20, 1, gaps=True)
    x, test_x = tables(train, test)
    trees = HistGradientBoostingClassifier(early_stopping=False, random_state=5)
    trees.fit(x, train.targets[train.mask] > 0)
    scores = gradient_boosting(train, {"test": test}, BINS, seed=5)["test"]
    np.testing.assert_allclose(scores[test.mask], trees.predict_proba(test_x)[:, 1], atol=1e-6)


def test_logistic_regression_is_scikit_learn_s_on_standardized_statistics() -> None:
    train, test = telemetry(60, 0, gaps=True), telemetry(20, 1, gaps=True)
    x, test_x = tables(train, test)
    centre, width = x.mean(axis=0), x.std(axis=0)
    regression = LogisticRegression(max_iter=10_000, tol=1e-9).fit((x - centre) / width, train.targets[train.mask] > 0)
    scores = logistic_regression(train, {"test": test}, BINS, seed=0)["test"]
    np.testing.assert_allclose(scores[test.mask], regression.predict_proba((test_x - centre) / width)[:, 1], atol=1e-3)


def make_dataset(factor: float, split: str, *, missing: str = "bin") -> dataset.Dataset:
    """Returns a data set of six series, whose values outside the training split are multiplied by a factor."""
    rng = np.random.default_rng(0)
    recorded = []
    for i in range(6):
        values = rng.normal(size=400)
        labels = (np.arange(400) % 100) >= 85
        values[labels] *= 4
        values[rng.random(400) < 0.05] = np.nan
        if split == "time":
            values[240:] *= factor
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
            dataclasses.replace(series, values=series.values * np.float32(factor))
            if series.name in held_out
            else series
            for series in recorded
        ]
    return dataset.build_dataset(config, LoadedSeries("made", recorded))


@every_method
@pytest.mark.parametrize("split", ["time", "series"])
def test_validation_and_test_do_not_reach_training(method: Callable, split: str) -> None:
    plain, changed = make_dataset(1, split), make_dataset(-30, split)
    assert (plain.windows["test"].values != changed.windows["test"].values).any()
    bins = plain.quantizer.bins
    features = [statistics(data.training.bins, data.quantizer.bins) for data in (plain, changed)]
    np.testing.assert_array_equal(*features)
    scores = [method(data.training, data.examples, bins, seed=0) for data in (plain, changed)]
    np.testing.assert_array_equal(scores[0]["train"], scores[1]["train"])
    if split == "time":
        assert (scores[0]["test"] != scores[1]["test"]).any()


@every_method
def test_masked_steps_are_not_fitted(method: Callable) -> None:
    data = make_dataset(1, "series", missing="mask")
    train = data.training
    assert not train.mask.all()
    flipped = dataclasses.replace(train, targets=np.where(train.mask, train.targets, 1 - train.targets))
    splits, bins = {"test": data.examples["test"]}, data.quantizer.bins
    np.testing.assert_array_equal(
        method(train, splits, bins, seed=0)["test"], method(flipped, splits, bins, seed=0)["test"]
    )


@every_method
def test_labels_of_scored_splits_are_not_read(method: Callable) -> None:
    train, test = telemetry(30, 0), telemetry(10, 1)
    flipped = dataclasses.replace(test, targets=1 - test.targets)
    scores = method(train, {"test": test, "flipped": flipped}, BINS, seed=0)
    np.testing.assert_array_equal(scores["test"], scores["flipped"])


@every_method
@pytest.mark.parametrize("label", [0, 1])
def test_training_with_one_class_gives_one_score_and_a_warning(method: Callable, label: int) -> None:
    train = telemetry(5, 0, gaps=True)
    train = dataclasses.replace(train, targets=np.full(train.targets.shape, label, np.float32))
    with pytest.warns(UserWarning, match="one class only"):
        scores = method(train, {"train": train, "test": telemetry(3, 1)}, BINS, seed=0)
    assert {split: array.shape for split, array in scores.items()} == {"train": (5, T), "test": (3, T)}
    for array in scores.values():
        assert (array == label).all()


@every_method
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("every", [1, 2])
def test_a_window_without_values_is_scored(method: Callable, every: int) -> None:
    train = telemetry(30, 0)  # every=1: training has no gaps; every=2: it has no two consecutive values
    train = dataclasses.replace(train, bins=np.where(np.arange(T) % every == 0, train.bins, BINS))
    empty = dataclasses.replace(telemetry(2, 1), bins=np.full((2, T), BINS, np.int32))
    assert np.isfinite(method(train, {"empty": empty}, BINS, seed=0)["empty"]).all()


@every_method
def test_a_sample_of_the_steps_suffices_and_depends_on_the_seed(
    method: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "MAX_STEPS", 2000)
    monkeypatch.setattr(supervised, "CHUNK_STEPS", 7 * T)
    train, test = telemetry(100, 0, gaps=True), telemetry(40, 1, gaps=True)
    first, again, other = (method(train, {"test": test}, BINS, seed=seed)["test"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert auroc(test, first) > 0.9
