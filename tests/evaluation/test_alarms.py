"""Alarms: the same whether steps come at once or piece by piece, and judged as a person on call would."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from spear_jax.evaluation.alarms import Alarm, AlarmRule, Alarms, Stretch, alarm_metrics, choose_alarm_rule, find_alarms

SCORES = np.array([0.1, 0.9, 0.8, 0.2, 0.95, 0.1, 0.1, 0.1, 0.7, 0.1])
PREDICTED = SCORES > 0.5


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (AlarmRule(), [Alarm(1, 2, 1, 0.9), Alarm(4, 4, 4, 0.95), Alarm(8, 8, 8, 0.7)]),
        (AlarmRule(merge_gap=1), [Alarm(1, 4, 4, 0.95), Alarm(8, 8, 8, 0.7)]),
        (AlarmRule(merge_gap=3), [Alarm(1, 8, 4, 0.95)]),
        (AlarmRule(min_length=2), [Alarm(1, 2, 1, 0.9)]),
        (AlarmRule(merge_gap=1, min_length=2), [Alarm(1, 4, 4, 0.95)]),
    ],
)
def test_gaps_are_closed_then_short_alarms_are_dropped(rule: AlarmRule, expected: list[Alarm]) -> None:
    assert find_alarms(SCORES, PREDICTED, rule) == expected


@given(
    st.lists(st.booleans(), max_size=60),
    st.integers(0, 5),
    st.integers(1, 5),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_pieces_give_the_alarms_of_the_whole(flags: list[bool], gap: int, length: int, cuts: list[int]) -> None:
    predicted = np.array(flags, bool)
    scores = np.random.default_rng(0).random(len(flags))
    rule = AlarmRule(gap, length)
    whole = find_alarms(scores, predicted, rule)
    # Independently: mathematical morphology closes the gaps, and labels the runs.
    closed = np.pad(predicted, gap + 1)
    closed = ndimage.binary_closing(closed, np.ones(gap + 1)) if gap else closed
    runs, count = ndimage.label(closed[gap + 1 : len(closed) - gap - 1])
    sizes = [(int(np.flatnonzero(runs == i)[0]), int(np.flatnonzero(runs == i)[-1])) for i in range(1, count + 1)]
    assert [(one.start, one.end) for one in whole] == [(a, b) for a, b in sizes if b - a + 1 >= length]
    assert all(one.score == scores[one.start : one.end + 1][predicted[one.start : one.end + 1]].max() for one in whole)

    alarms, found = Alarms(rule), []
    edges = sorted({0, len(flags), *(cut for cut in cuts if cut < len(flags))})
    for begin, end in itertools.pairwise(edges):
        found += alarms.add(begin, scores[begin:end], predicted[begin:end])
    assert found + alarms.finish() == whole


def test_an_alarm_is_given_out_as_soon_as_nothing_can_change_it() -> None:
    alarms = Alarms(AlarmRule(merge_gap=2))
    assert alarms.add(0, np.array([0.9]), np.array([True])) == []
    assert alarms.add(1, np.array([0.1, 0.1]), np.array([False, False])) == []
    assert alarms.add(3, np.array([0.1]), np.array([False])) == [Alarm(0, 0, 0, 0.9)]


def stretch(labels: str, predicted: str) -> Stretch:
    flags = np.array([mark == "x" for mark in predicted])
    return Stretch(np.array([mark == "x" for mark in labels]), flags.astype(float), flags)


def test_false_alarms_and_delay() -> None:
    found = [
        stretch("..xxxx....xxx...", "x...xx..x......."),  # found after 2 steps; two false alarms; one missed
        stretch("...xx...", "..xxxxx."),  # the alarm was up before the anomaly began
    ]
    assert alarm_metrics(found, AlarmRule()) == {"false_alarms": pytest.approx(1e4 * 2 / 24), "detection_delay": 1.0}
    assert alarm_metrics([stretch("....", "....")], AlarmRule()) == {"false_alarms": 0.0, "detection_delay": None}


def test_the_rule_is_the_best_on_validation() -> None:
    noisy = stretch("....xxxxxxxx....x...", "x.x..xx.xxx.......x.")
    rule = choose_alarm_rule([noisy])
    assert rule.min_length > 1  # drops the single steps that are wrong
    assert choose_alarm_rule([stretch("....", "x.x.")]) == AlarmRule()  # nothing to choose by
    assert choose_alarm_rule([noisy], gaps=(7,), lengths=(1,)) == AlarmRule(7, 1)
