"""Numbers over intervals against the authors' programs, against their definitions and against their properties."""

import itertools
import time

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.evaluation.interval_metrics import (
    PER_SERIES,
    affiliation,
    event_wise,
    mean_over_series,
    per_series_metrics,
    point_adjusted_at_k,
    range_based,
)
from spear_jax.evaluation.volumes import default_window, vus

NOTHING = (None, None, None)
SERIES = {
    "inside": (150, [(10, 13), (40, 52), (55, 59), (110, 125)]),
    "borders": (70, [(0, 5), (30, 31), (61, 70)]),
}
# Made with prts 1.0.0.3 (range), TSB-AD 1.5 (event), TSB-AD 1.5 and vus 0.0.6 (affiliation, VUS), tadpak 0.3.3 (PA%K),
# all under numpy 1.26.4, and aeon 1.6.0 (range F1) under numpy 2.3.5. TSB-AD loses the last step of an event that ends
# the series; here no event is found by that step alone.
GOLDEN = {
    "inside": {
        "range": (0.35135135135135137, 0.2597222222222222),
        "range_f1": 0.2986669942871184,
        "event_f1": 0.6,
        "affiliation": (0.6670081345462916, 0.9795434701313931),
        "vus": {  # window, thresholds: ROC, PR
            (0, 250): (0.7989350912778904, 0.650603203607244),
            (1, 250): (0.7989350912778904, 0.650603203607244),
            (7, 250): (0.8432474546252514, 0.7013090602668672),
            (20, 250): (0.8925012497139354, 0.7713669581731197),
            (7, 20): (0.8436032708479546, 0.6655867379961891),
        },
        "point_adjusted": {  # k: precision, recall
            0: (0.5862068965517241, 1.0),
            20: (0.5862068965517241, 1.0),
            50: (0.5555555555555556, 0.8823529411764706),
            100: (0.42857142857142855, 0.5294117647058824),
        },
    },
    "borders": {
        "range": (0.34375, 0.46172839506172836),
        "range_f1": 0.3940990516332982,
        "event_f1": 0.5925925925925921,
        "affiliation": (0.6556418824839877, 0.9831944444444445),
        "vus": {
            (0, 250): (0.7818181818181817, 0.6071162985417424),
            (1, 250): (0.7818181818181817, 0.6071162985417424),
            (7, 250): (0.8374848187503435, 0.6772143632390051),
            (20, 250): (0.8976703806636559, 0.7675138244294608),
            (7, 20): (0.8382377579667482, 0.6336424415229225),
        },
        "point_adjusted": {
            0: (0.5769230769230769, 1.0),
            20: (0.5769230769230769, 1.0),
            50: (0.5217391304347826, 0.8),
            100: (0.42105263157894735, 0.5333333333333333),
        },
    },
}


def flags(steps, intervals):
    found = np.zeros(steps, bool)
    for start, end in intervals:
        found[start:end] = True
    return found


def golden_series(name):
    """Scores made of whole numbers, the same on every machine."""
    labels = flags(*SERIES[name])
    scores = (np.arange(len(labels)) * 37 % 101) / 101 + 0.4 * labels
    return labels, scores, scores >= 0.8


@st.composite
def series(draw, steps=60):
    """Labels of both classes, scores with ties, predictions by a threshold that may predict nothing or everything."""
    size = draw(st.integers(2, steps))
    edges = sorted(draw(st.sets(st.integers(1, size - 1), min_size=1, max_size=8)))
    first = draw(st.booleans())
    labels = (np.searchsorted(edges, np.arange(size), side="right") + first) % 2 == 1
    noise = np.array(draw(st.lists(st.integers(0, 9), min_size=size, max_size=size)))
    scores = (noise + labels * draw(st.integers(0, 10))).astype(float)
    return labels, scores, scores >= draw(st.integers(0, 20))


def intervals(found):
    """First and last step of each run of True, counted step by step."""
    runs, start = [], None
    for step, flag in enumerate([*found, False]):
        if flag and start is None:
            start = step
        elif not flag and start is not None:
            runs.append((start, step - 1))
            start = None
    return runs


@pytest.mark.parametrize("name", SERIES)
def test_numbers_of_the_authors_programs(name):
    labels, scores, predicted = golden_series(name)
    golden = GOLDEN[name]
    assert range_based(labels, predicted)[:2] == pytest.approx(golden["range"], abs=1e-12)
    assert range_based(labels, predicted).f1 == pytest.approx(golden["range_f1"], abs=1e-12)
    assert event_wise(labels, predicted).f1 == pytest.approx(golden["event_f1"], abs=1e-12)
    assert affiliation(labels, predicted)[:2] == pytest.approx(golden["affiliation"], abs=1e-12)
    for (window, thresholds), expected in golden["vus"].items():
        assert vus(labels, scores, window, thresholds) == pytest.approx(expected, abs=1e-12)
    for k, expected in golden["point_adjusted"].items():
        assert point_adjusted_at_k(labels, predicted, k)[:2] == pytest.approx(expected, abs=1e-12)


def test_the_example_of_the_affiliation_paper():
    """Minutes instead of its seconds: chances have no unit. The second zone, minutes 30 to 120, is the printed one."""
    labels = flags(180, [(0, 10), (50, 70), (170, 175)])
    predicted = flags(180, [(5, 6), (7, 10), (11, 12), (40, 60), (115, 130), (135, 140), (165, 170)])
    assert affiliation(labels[30:120], predicted[30:120])[:2] == pytest.approx((0.672222222, 0.944444444), abs=1e-9)
    whole = affiliation(labels, predicted)
    assert whole.precision == pytest.approx((0.9233333333 + 0.6722222222 + 0.3229166667) / 3, abs=1e-9)
    assert whole.recall == pytest.approx((0.9358333333 + 0.9444444444 + 0.9166666667) / 3, abs=1e-9)


@pytest.mark.parametrize("way", [1, -1])
def test_a_prediction_that_ends_where_the_next_zone_begins_is_not_in_it(way):
    labels, predicted = flags(20, [(0, 2), (6, 8)])[::way], flags(20, [(2, 4)])[::way]
    # In the zone of 0 ... 4 the interval is y = 0 ... 2, and a random time is no nearer with the chance
    # 1 - (min(2 - y, y) + 2 - y) / 4: 5/8 in the mean. In the other zone nothing is predicted.
    assert affiliation(labels, predicted).recall == pytest.approx((5 / 8 + 0) / 2)


def test_range_based_by_hand():
    labels = flags(20, [(2, 6), (10, 14)])
    predicted = flags(20, [(3, 4), (5, 8), (18, 19)])
    # Of 2 ... 5 two steps are predicted in two pieces, 2/4 / 2; of 10 ... 13 none. Predicted: 1/1, 1/3 and 0.
    assert range_based(labels, predicted)[:2] == pytest.approx(((1 + 1 / 3) / 3, 0.25 / 2))


def test_events_and_point_adjustment_by_hand():
    labels = flags(12, [(0, 4), (6, 11)])
    predicted = flags(12, [(3, 6)])
    assert event_wise(labels, predicted)[:2] == pytest.approx((1 / 3, 1 / 2))
    # One of four steps is 25 %, which is more than 24 % and not more than 25 %.
    assert point_adjusted_at_k(labels, predicted, 24)[:2] == pytest.approx((4 / 6, 4 / 9))
    assert point_adjusted_at_k(labels, predicted, 25)[:2] == pytest.approx((1 / 3, 1 / 9))


def volumes_by_definition(labels, scores, window):
    """Threshold by threshold, buffer by buffer, step by step."""
    n, positives, runs = len(labels), labels.sum(), intervals(labels)
    areas = []
    for length in range(window + 1):
        reach = length // 2
        weight = labels.astype(float)
        for start, end in runs:
            for away in range(1, reach + 1):
                for step in (start - away, end + away):
                    if 0 <= step < n:
                        weight[step] = min(weight[step] + np.sqrt(1 - away / length), 1)
        joined = []
        for start, end in runs:
            if joined and start - reach <= joined[-1][1]:
                joined[-1][1] = end + reach
            else:
                joined.append([max(start - reach, 0), end + reach])
        curve, pr = [(0, 0)], 0
        for threshold in np.unique(scores)[::-1]:
            predicted = scores >= threshold
            hits, buffer = weight[predicted].sum(), weight[predicted & ~labels].sum()
            existence = np.mean([predicted[start : end + 1].any() for start, end in joined])
            tpr = min(hits / (positives + buffer / 2), 1) * existence
            fpr = (predicted.sum() - hits) / (n - positives - buffer / 2)
            pr += (tpr - curve[-1][1]) * hits / predicted.sum()
            curve.append((fpr, tpr))
        fprs, tprs = zip(*curve, (1, 1), strict=True)
        areas.append((np.trapezoid(tprs, fprs), pr))
    return tuple(np.mean(areas, axis=0))


@settings(deadline=None, max_examples=60)
@given(series(40), st.integers(0, 14))
def test_vus_equals_its_definition(drawn, window):
    labels, scores, _ = drawn
    assert vus(labels, scores, window) == pytest.approx(volumes_by_definition(labels, scores, window))
    # The authors' 250 ranks are all ranks of a short series.
    assert vus(labels, scores, window, 250) == pytest.approx(vus(labels, scores, window))


@settings(deadline=None, max_examples=100)
@given(series())
def test_range_based_equals_its_definition(drawn):
    labels, _, predicted = drawn

    def overlap(one, others):
        own = set(range(one[0], one[1] + 1))
        pieces = [shared for start, end in others if (shared := own & set(range(start, end + 1)))]
        if not pieces:
            return 0
        return sum(len(piece) for piece in pieces) / len(own) / len(pieces)

    true, guessed = intervals(labels), intervals(predicted)
    found = range_based(labels, predicted)
    assert found.recall == pytest.approx(np.mean([overlap(one, guessed) for one in true]))
    if guessed:
        assert found.precision == pytest.approx(np.mean([overlap(one, true) for one in guessed]))


@settings(deadline=None, max_examples=30)
@given(series(20))
def test_affiliation_is_the_chance_that_a_random_time_is_no_nearer(drawn):
    labels, _, predicted = drawn
    fine = (np.arange(16 * len(labels)) + 0.5) / 16
    true = [(start, end + 1) for start, end in intervals(labels)]
    cuts = [0, *((a[1] + b[0]) / 2 for a, b in itertools.pairwise(true)), len(labels)]
    precision, recall = [], []
    for (start, end), (left, right) in zip(true, itertools.pairwise(cuts), strict=True):
        zone = fine[(fine > left) & (fine < right)]
        inside = (zone > start) & (zone < end)
        guessed = zone[predicted[zone.astype(int)]]
        away = np.maximum(np.maximum(start - zone, zone - end), 0)
        if not len(guessed):
            recall.append(0)
            continue
        precision.append(np.mean([(away >= max(start - x, x - end, 0)).mean() for x in guessed]))
        recall.append(np.mean([(abs(zone - y) >= abs(guessed - y).min()).mean() for y in zone[inside]]))
    found = affiliation(labels, predicted)
    assert found.recall == pytest.approx(np.mean(recall), abs=0.05)
    if precision:
        assert found.precision == pytest.approx(np.mean(precision), abs=0.05)
    else:
        assert found.precision is None


def every_number(labels, scores, predicted):
    return [
        *range_based(labels, predicted),
        *event_wise(labels, predicted),
        *affiliation(labels, predicted),
        *(number for k in (0, 30, 100) for number in point_adjusted_at_k(labels, predicted, k)),
        *vus(labels, scores),
        *vus(labels, scores, 9, 10),
    ]


@settings(deadline=None, max_examples=100)
@given(series())
def test_numbers_lie_between_0_and_1_and_do_not_mind_the_direction_of_time_or_the_type(drawn):
    labels, scores, predicted = drawn
    found = every_number(labels, scores, predicted)
    assert all(number is None or 0 <= number <= 1 for number in found)
    assert any(number is None for number in found) == (not predicted.any())
    backwards = every_number(labels[::-1], scores[::-1], predicted[::-1])
    assert backwards == pytest.approx(found)
    assert every_number(labels.astype(int), scores.astype(int), predicted.astype(np.uint8)) == found


@settings(deadline=None, max_examples=50)
@given(series(), st.integers(0, 20))
def test_perfect_predictions_and_rankings_get_1(drawn, window):
    labels, scores, _ = drawn
    assert every_number(labels, labels.astype(float), labels) == pytest.approx([1] * 22)
    assert vus(labels, scores + 100 * labels, window) == pytest.approx((1, 1))


@settings(deadline=None, max_examples=50)
@given(series(), st.integers(0, 20))
def test_vus_depends_on_the_order_of_scores_only(drawn, window):
    labels, scores, _ = drawn
    found = vus(labels, scores, window)
    for same_order in (np.exp(scores / 5), scores**3 - 7, np.where(scores == scores.max(), np.inf, scores)):
        assert vus(labels, same_order, window) == found


@settings(deadline=None, max_examples=50)
@given(series(), st.integers(1, 30))
def test_normal_steps_far_away_change_no_number_that_counts_in_intervals_only(drawn, more):
    labels, _, predicted = drawn
    shifted, shifted_guess = (np.pad(one, (more, 1)) for one in (labels, predicted))
    assert range_based(shifted, shifted_guess) == pytest.approx(range_based(labels, predicted))
    assert event_wise(shifted, shifted_guess) == pytest.approx(event_wise(labels, predicted))
    assert point_adjusted_at_k(shifted, shifted_guess, 40) == point_adjusted_at_k(labels, predicted, 40)


def test_without_a_buffer_vus_roc_is_auroc_of_a_single_event():
    """One event of one step is found or not: existence and recall are the same, and so are both curves."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    labels = flags(300, [(120, 121)])
    scores = np.random.default_rng(0).integers(0, 40, 300) + 15 * labels
    found = vus(labels, scores, 0)
    assert found.roc == pytest.approx(roc_auc_score(labels, scores))
    assert found.pr == pytest.approx(average_precision_score(labels, scores))


def test_point_adjustment_is_plain_f1_at_100_and_falls_with_k():
    labels, _, predicted = golden_series("inside")
    hits = (labels & predicted).sum()
    plain = 2 * hits / (labels.sum() + predicted.sum())
    adjusted = [point_adjusted_at_k(labels, predicted, k).f1 for k in range(101)]
    assert adjusted[100] == pytest.approx(plain)
    assert adjusted == sorted(adjusted, reverse=True)


def test_many_random_predictions_get_affiliation_precision_of_a_half_and_recall_of_1():
    labels = flags(8000, [(2000, 2400), (5000, 5300)])
    found = affiliation(labels, np.random.default_rng(0).random(8000) < 0.1)
    assert found.precision == pytest.approx(0.5, abs=0.1)
    assert found.recall > 0.95


def test_undefined_is_none():
    normal, anomalous, nothing = np.zeros(9, bool), np.ones(9, bool), np.zeros(9, bool)
    some, scores = flags(9, [(2, 4)]), np.arange(9.0)
    for metric in (range_based, event_wise, affiliation, lambda *both: point_adjusted_at_k(*both, 50)):
        assert metric(normal, nothing) == NOTHING
        # Nothing was to be found: whatever is predicted is wrong, but there is no recall.
        assert metric(normal, some) == (NOTHING if metric is affiliation else (0, None, None))
        # Nothing was found: no precision, but a recall, and F1 can be nothing but 0.
        assert metric(some, nothing) == (None, 0, 0)
        assert metric(anomalous, anomalous) == (1, 1, 1)
        assert metric(nothing[:0], nothing[:0]) == NOTHING
    for labels in (normal, anomalous, nothing[:0]):
        assert vus(labels, scores[: len(labels)]) == (None, None)
        assert set(per_series_metrics(labels, scores[: len(labels)], labels).values()) == {None}


def test_per_series_metrics_and_their_mean():
    first, second = (per_series_metrics(*golden_series(name)) for name in SERIES)
    assert tuple(first) == PER_SERIES
    labels, scores, predicted = golden_series("inside")
    assert first["range_f1"] == pytest.approx(GOLDEN["inside"]["range_f1"])
    assert first["event_f1"] == pytest.approx(GOLDEN["inside"]["event_f1"])
    assert first["affiliation_f1"] == affiliation(labels, predicted).f1
    volumes = vus(labels, scores, 8)  # the median of 3, 12, 4 and 15 steps
    assert (first["vus_roc"], first["vus_pr"]) == volumes
    undefined = dict.fromkeys(PER_SERIES)
    mean = mean_over_series([first, undefined, second])
    assert mean == {name: pytest.approx((first[name] + second[name]) / 2) for name in PER_SERIES}
    assert mean_over_series([undefined]) == mean_over_series([]) == undefined


def test_default_window_is_the_median_length_within_limits():
    assert default_window(flags(100, [(3, 4), (10, 14), (30, 50)])) == 4
    assert default_window(flags(10, [(3, 4)])) == 1
    assert default_window(flags(3000, [(100, 2500)])) == 500
    with pytest.raises(ValueError, match="no step is anomalous"):
        default_window(np.zeros(5, bool))


def test_250_thresholds_miss_rare_anomalies():
    rng = np.random.default_rng(0)
    labels = flags(50_000, [(20_000, 20_050)])
    scores = rng.normal(size=50_000) + 4 * labels
    assert vus(labels, scores, 20, 250).pr < 0.5 * vus(labels, scores, 20).pr


def test_a_long_series_takes_no_time():
    rng = np.random.default_rng(0)
    labels = np.arange(100_000) % 1000 < 100
    scores = rng.random(100_000) + 0.5 * labels
    begun = time.process_time()
    found = per_series_metrics(labels, scores, scores > 0.9)
    assert time.process_time() - begun < 5  # 0.3 s on an idle core
    assert None not in found.values()


@pytest.mark.parametrize(
    "call",
    [
        lambda: range_based(np.ones(3), np.ones(4)),
        lambda: event_wise(np.ones((2, 2)), np.ones((2, 2))),
        lambda: point_adjusted_at_k(np.ones(3), np.ones(3), 101),
        lambda: vus(np.ones(3), np.ones(2)),
        lambda: vus(np.ones(3), np.array([1, np.nan, 2])),
        lambda: vus(np.ones(3), np.ones(3), -1),
        lambda: vus(np.ones(3), np.ones(3), 3, 1),
    ],
)
def test_what_makes_no_sense_is_refused(call, monkeypatch):
    # As outside the tests, where annotations are not checked before the functions check their arguments.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"shape|=|NaN"):
        call()
