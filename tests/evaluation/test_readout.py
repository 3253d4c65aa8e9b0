"""The readout: a moving average of logits and distances, chosen on validation data, the same for files and streams."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score

from spear_jax.config.fields import OWN_PAST, default_config
from spear_jax.data.step_scores import StepScores
from spear_jax.evaluation.pointwise import average_precision
from spear_jax.evaluation.readout import (
    LEVEL_STEPS,
    SMOOTHINGS,
    Readout,
    ReadoutStream,
    choose_readout,
    moving_average,
    take_off_level,
)

SEEDS = st.integers(0, 2**32 - 1)
WIDTHS = st.integers(1, 40)


def scored(scores: Any, labels: Any = None, series: Any = None, step: Any = None) -> StepScores:
    """Returns the scores of consecutive steps, by default of one series without anomalies."""
    scores = np.asarray(scores, float)
    zeros = np.zeros(len(scores), int)
    return StepScores(
        series=zeros if series is None else np.asarray(series),
        step=np.arange(len(scores)) if step is None else np.asarray(step),
        value=np.zeros(len(scores)),
        label=zeros > 0 if labels is None else np.asarray(labels, bool),
        score=scores,
    )


def average(numbers: Any, width: int, begins: Any = (0,)) -> np.ndarray:
    return moving_average(np.asarray(numbers, float)[:, None], width, np.asarray(begins))[:, 0]


CAUTIOUS = Readout(16, 16.0, 0.0)


def open_config(smoothing: int = 0, distance_weight: float = -1.0, level: float = 0.0) -> ConfigDict:
    config = default_config()
    config.quantizer.views = OWN_PAST
    config.score.update(smoothing=smoothing, distance_weight=distance_weight, level=level)
    return config


def test_an_average_has_as_many_steps_before_as_after_and_an_even_one_more_after() -> None:
    numbers = [1, 2, 4, 8, 16]
    np.testing.assert_allclose(average(numbers, 3), [1.5, 7 / 3, 14 / 3, 28 / 3, 12])
    np.testing.assert_allclose(average(numbers, 2), [1.5, 3, 6, 12, 16])
    np.testing.assert_allclose(average(numbers, 4), [7 / 3, 15 / 4, 30 / 4, 28 / 3, 12])
    np.testing.assert_array_equal(average(numbers, 1), numbers)
    np.testing.assert_allclose(average(numbers, 100), [6.2] * 5)


def test_an_average_ends_with_its_stretch() -> None:
    np.testing.assert_allclose(average([1, 3, 10, 20, 60], 3, [0, 2]), [2, 2, 15, 30, 40])
    steps = scored(expit([1, 3, 10, 12, 7]), series=[0, 0, 0, 0, 1], step=[4, 5, 7, 8, 9])
    scores = Readout(3).apply(steps, np.zeros(5)).score
    np.testing.assert_allclose(logit(scores), [2, 2, 11, 11, 7])


@settings(max_examples=60, deadline=None)
@given(SEEDS, WIDTHS, st.integers(1, 5))
def test_an_average_is_the_mean_of_the_steps_that_exist(seed: int, width: int, stretches: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=rng.integers(1, 60)) for _ in range(stretches)]
    begins = np.cumsum([0, *map(len, parts)])[:-1]
    expected = [
        part[max(step - (width - 1) // 2, 0) : step + width // 2 + 1].mean()
        for part in parts
        for step in range(len(part))
    ]
    np.testing.assert_allclose(average(np.concatenate(parts), width, begins), expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(WIDTHS, st.floats(-30, 30), st.integers(1, 100))
def test_a_constant_stays_the_constant(width: int, constant: float, length: int) -> None:
    np.testing.assert_allclose(average(np.full(length, constant), width), constant, rtol=1e-14)


@settings(max_examples=60, deadline=None)
@given(SEEDS, WIDTHS)
def test_the_mean_is_preserved_where_no_end_is_near(seed: int, width: int) -> None:
    numbers = np.zeros(200)
    numbers[80:120] = np.random.default_rng(seed).normal(size=40)
    np.testing.assert_allclose(average(numbers, width).sum(), numbers.sum(), atol=1e-12)


def test_a_score_by_hand() -> None:
    steps, distances = scored([0.2, 0.5, 0.9]), np.array([3.0, 0.0, -1.0])
    # Logits of -log 4, 0 and log 9.
    evidence = np.array([-np.log(4) + 2 * 3, 0, np.log(9) - 2]) / 3
    np.testing.assert_allclose(Readout(1, 2.0).apply(steps, distances).score, expit(evidence))
    means = [evidence[:2].mean(), evidence.mean(), evidence[1:].mean()]
    np.testing.assert_allclose(Readout(3, 2.0).apply(steps, distances).score, expit(means))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([0.5, 1.0]), st.lists(st.integers(1, 900), min_size=1, max_size=3))
def test_the_level_is_the_median_of_what_came_before_a_block(seed: int, level: float, lengths: list[int]) -> None:
    rng = np.random.default_rng(seed)
    stretches = [rng.normal(size=length) for length in lengths]
    begins = np.cumsum([0, *lengths[:-1]])
    taken_off = take_off_level(np.concatenate(stretches)[:, None], level, begins)[:, 0]
    for begin, stretch in zip(begins, stretches, strict=True):
        for step in range(len(stretch)):
            before = stretch[: step // LEVEL_STEPS * LEVEL_STEPS] if step >= LEVEL_STEPS else stretch[:LEVEL_STEPS]
            median = np.quantile(before, 0.5, method="inverted_cdf")
            # The median is read from a histogram with 64 bins a unit.
            assert abs(taken_off[begin + step] - (stretch[step] - level * median) / (1 + level)) < 1 / 64


def test_a_series_that_is_always_high_is_no_anomaly_with_its_level_taken_off() -> None:
    low, high = np.full(600, 0.01), np.full(600, 0.9)
    low[500] = 0.8
    both = scored(np.concatenate([low, high]), series=np.repeat([0, 1], 600), step=np.tile(np.arange(600), 2))
    scores = Readout(level=1.0).apply(both, np.zeros(1200)).score
    assert np.argmax(scores) == 500 and scores[500] > 0.9
    np.testing.assert_allclose(scores[600:], 0.5, atol=0.01)


def test_the_papers_readout_leaves_scores_as_they_are() -> None:
    steps = scored(np.random.default_rng(0).random(50, np.float32))
    assert Readout.of(default_config()).apply(steps, np.ones(50)) is steps
    stream = ReadoutStream(Readout(), 1)
    assert stream.add(steps.score[:, None], np.ones((50, 1))).tolist() == steps.score[:, None].tolist()
    assert stream.finish().shape == (0, 1)


def test_certain_scores_stay_finite_and_in_order() -> None:
    steps = scored(np.array([0, 1e-30, 0.5, 1 - 2.0**-24, 1], np.float32))
    scores = Readout(1, 4.0).apply(steps, np.array([-6.0, -6.0, 0.0, 8.0, 8.0])).score
    assert (scores > 0).all() and (scores < 1).all()
    assert (np.diff(scores.astype(np.float32)) >= 0).all() and scores[4] > scores[3] > scores[2] > scores[1]


def test_scores_that_are_no_probabilities_are_averaged_as_they_are() -> None:
    scores = Readout(3, 2.0).apply(scored([-5, 1, 400]), np.ones(3), probabilities=False).score
    np.testing.assert_allclose(scores, [-2, 132, 200.5])


@settings(max_examples=40, deadline=None)
@given(SEEDS, WIDTHS, st.sampled_from([0.0, 0.5, 4.0]), st.sampled_from([0.0, 1.0]), st.data())
def test_rows_are_read_out_the_same_however_they_arrive(
    seed: int, width: int, weight: float, level: float, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    sizes = data.draw(st.lists(st.integers(0, 400 if level else 30), max_size=12))
    rows, readout = sum(sizes), Readout(width, weight, level)
    scores, distances = rng.random((rows, 2)), rng.normal(size=(rows, 2))
    stream = ReadoutStream(readout, 2)
    parts = [np.zeros((0, 2))]
    for begin, end in zip(np.cumsum([0, *sizes[:-1]]), np.cumsum(sizes), strict=True) if sizes else ():
        parts.append(stream.add(scores[begin:end], distances[begin:end]))
        final = max(end - readout.look_ahead, 0)
        assert sum(map(len, parts)) == (final if final >= readout.awaited_rows else 0)
    streamed = np.concatenate([*parts, stream.finish()])
    for column in range(2):
        whole = readout.apply(scored(scores[:, column]), distances[:, column]).score
        np.testing.assert_array_equal(streamed[:, column], whole)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 60))
def test_average_precision_is_the_usual_one(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    labels, scores = rng.random(length) < 0.3, rng.integers(0, 12, length) / 4
    labels[rng.integers(length)] = True
    np.testing.assert_allclose(average_precision(labels, scores), average_precision_score(labels, scores))


def planted(width: int, weight: float) -> tuple[StepScores, np.ndarray]:
    """Returns five series whose labels an average of this width and weight tells apart."""
    rng = np.random.default_rng(width)
    parts, distances = [], []
    for series in range(5):
        noise, distance = rng.normal(size=(2, 900))
        evidence = average(noise + weight * distance, width)
        parts.append(scored(expit(noise), evidence > np.quantile(evidence, 0.9), np.full(900, series)))
        distances.append(distance)
    arrays = {f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in dataclasses.fields(StepScores)}
    return StepScores(**arrays), np.concatenate(distances)


@pytest.mark.parametrize(("width", "weight"), [(1, 0.0), (16, 0.0), (1, 2.0), (32, 1.0), (64, 4.0), (128, 0.5)])
def test_the_best_on_validation_is_chosen(width: int, weight: float) -> None:
    validation, distances = planted(width, weight)
    readout, notes = choose_readout(open_config(), validation, distances, True)
    assert readout == Readout(width, weight)
    assert notes["smoothing"] == width and notes["distance_weight"] == weight
    assert notes["validation_aupr"]["with"] == pytest.approx(1)
    without = [average_precision_score(part.label, part.score) for part in validation.by_series()]
    assert notes["validation_aupr"]["without"] == pytest.approx(np.mean(without))
    fixed, _ = choose_readout(open_config(smoothing=7), validation, distances, True)
    assert fixed.smoothing == 7
    fixed, _ = choose_readout(open_config(distance_weight=3.0), validation, distances, True)
    assert fixed.distance_weight == 3 and fixed.smoothing in SMOOTHINGS


def test_a_level_is_chosen_where_it_helps() -> None:
    """Anomalies of a series that rises stand out once the level so far is taken off."""
    rng = np.random.default_rng(0)
    rise = np.repeat(np.linspace(-4, 4, 8), LEVEL_STEPS)
    labels = rng.random(len(rise)) < 0.05
    validation = scored(expit(rise + 2 * labels + 0.1 * rng.normal(size=len(rise))), labels)
    readout, notes = choose_readout(open_config(1, 0.0, -1.0), validation, np.zeros(len(rise)), True)
    assert readout.level and notes["level"] == readout.level
    assert notes["validation_aupr"]["with"] > notes["validation_aupr"]["without"]
    assert choose_readout(open_config(1, 0.0, 0.25), validation, np.zeros(len(rise)), True)[0].level == 0.25


def test_the_smaller_of_equally_good_ones_is_chosen() -> None:
    labels = np.arange(400) % 40 >= 30
    validation = scored(np.where(labels, 0.9, 0.1), labels)
    assert choose_readout(open_config(), validation, labels * 1.0, True)[0] == Readout()


@pytest.mark.parametrize("label", [False, True])
def test_nothing_is_chosen_without_a_series_of_both_classes(label: bool) -> None:
    # Two series of one class each.
    labels = np.arange(40) >= 20 if label else np.zeros(40, bool)
    validation = scored(np.random.default_rng(0).random(40), labels, labels.astype(int) if label else None)
    readout, notes = choose_readout(open_config(), validation, np.ones(40), True)
    assert readout == CAUTIOUS and notes["validation_aupr"] == {"without": None, "with": None}
    assert choose_readout(open_config(8, 0.5, 0.5), validation, np.ones(40), True)[0] == Readout(8, 0.5, 0.5)


@pytest.mark.parametrize("level", [0.0, -1.0])
def test_nothing_is_chosen_by_few_anomalies_or_by_injected_ones(level: float) -> None:
    """However much better the scores alone seem to be on validation."""
    for anomalies, labels_are, preset in (
        (9, "column", "validation has 9 of the 10 anomalies that a choice needs"),
        (10, "column", ""),
        (10, "rules", ""),
        (10, "injected", "the anomalies were injected"),
    ):
        labels = np.repeat(np.arange(2 * anomalies) % 2, 50)
        validation = scored(np.where(labels, 0.9, 0.1), labels)
        config = open_config(level=level)
        config.data.labels = labels_are
        readout, notes = choose_readout(config, validation, 1.0 - labels, True)
        assert readout == (CAUTIOUS if preset else Readout()) and notes["preset"] == preset
        assert notes["validation_aupr"]["without"] == 1
        config = Readout(1, 0.5, 0.5).write_to(config)
        assert choose_readout(config, validation, 1.0 - labels, True)[1]["preset"] == ""


def test_no_distance_is_added_to_scores_that_are_no_probabilities() -> None:
    validation, distances = planted(16, 0.0)
    raw = dataclasses.replace(validation, score=100 * logit(validation.score))
    assert choose_readout(open_config(), raw, distances, False)[0] == Readout(16)
