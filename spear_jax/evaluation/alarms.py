"""Alarms: predicted steps as intervals, short gaps closed and short alarms dropped, and how well they serve.

A person is called once per interval, not once per step. Both fields of a `Rule` are chosen on validation, as the
threshold is.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from spear_jax.data import find_runs
from spear_jax.evaluation.interval_metrics import event_wise

GAPS = (0, 1, 2, 4, 8, 16, 32)


LENGTHS = (1, 2, 3, 4, 8, 16)


class Rule(NamedTuple):
    """How predicted steps become alarms.

    Attributes:
      merge_gap: two alarms with at most this many steps between them are one.
      min_length: an alarm of fewer steps is dropped, after merging.
    """

    merge_gap: int = 0
    min_length: int = 1


NO_TIME = np.iinfo(np.int64).min  # as NumPy writes a time that is none


class Alarm(NamedTuple):
    """An interval of one series.

    Attributes:
      start: its first step.
      end: its last step.
      peak: the step with the highest score.
      score: at the peak.
      times: of start, end and peak, in nanoseconds since 1970.
    """

    start: int
    end: int
    peak: int
    score: float
    times: tuple[int, int, int] = (NO_TIME, NO_TIME, NO_TIME)


class Alarms:
    """The alarms of one series, whose steps may come piece by piece."""

    def __init__(self, rule: Rule) -> None:
        """Nothing seen yet."""
        self._rule = rule
        self._open: Alarm | None = None  # may still grow

    def add(
        self,
        first: int,
        scores: Float[np.ndarray, "steps"],
        predicted: Bool[np.ndarray, "steps"],
        times: Int[np.ndarray, "stamps"] | None = None,
    ) -> list[Alarm]:
        """The alarms that no later step can change.

        Args:
          first: number of the first step; one more than the last of the piece before.
          scores: of the piece's steps.
          predicted: True where an anomaly is predicted.
          times: of the steps, in nanoseconds since 1970.
        """
        done: list[Alarm] = []
        for begin, end in zip(*find_runs(predicted), strict=True):
            peak = begin + int(np.argmax(scores[begin:end]))
            where = np.array([begin, end - 1, peak])
            start, last, highest = (first + where).tolist()
            new = Alarm(start, last, highest, float(scores[peak]))
            if times is not None and len(times):
                new = new._replace(times=tuple(times[where].tolist()))
            if self._open is not None and new.start - self._open.end - 1 <= self._rule.merge_gap:
                new = _merged(self._open, new)
            else:
                done += self.finish()
            self._open = new
        if self._open is not None and first + len(scores) - 1 - self._open.end > self._rule.merge_gap:
            done += self.finish()
        return done

    def finish(self) -> list[Alarm]:
        """The alarm that is still open, if there is one and it is long enough."""
        last, self._open = self._open, None
        return [last] if last is not None and last.end - last.start + 1 >= self._rule.min_length else []


def _merged(first: Alarm, second: Alarm) -> Alarm:
    highest = max(first, second, key=lambda one: one.score)
    times = (first.times[0], second.times[1], highest.times[2])
    return Alarm(first.start, second.end, highest.peak, highest.score, times)


def find_alarms(scores: Float[np.ndarray, "steps"], predicted: Bool[np.ndarray, "steps"], rule: Rule) -> list[Alarm]:
    """The alarms of a whole series."""
    alarms = Alarms(rule)
    return alarms.add(0, scores, predicted) + alarms.finish()


class Stretch(NamedTuple):
    """What alarms are judged by: consecutive steps of one series.

    Attributes:
      labels: True where anomalous.
      scores: of the same steps.
      predicted: True where an anomaly is predicted.
    """

    labels: Bool[np.ndarray, "steps"]
    scores: Float[np.ndarray, "steps"]
    predicted: Bool[np.ndarray, "steps"]


def choose_alarm_rule(
    validation: Sequence[Stretch], gaps: Sequence[int] = GAPS, lengths: Sequence[int] = LENGTHS
) -> Rule:
    """The rule with the best mean event F1 on validation; of equal ones, or without any anomaly, the first.

    Args:
      validation: stretches of the validation part.
      gaps: values of `Rule.merge_gap` to choose from.
      lengths: values of `Rule.min_length` to choose from.
    """
    best, chosen = -1.0, Rule(gaps[0], lengths[0])
    for gap, length in itertools.product(gaps, lengths):
        rule = Rule(gap, length)
        values = [event_wise(one.labels, _mask(one, rule)).f1 for one in validation]
        known = [value for value in values if value is not None]
        if known and np.mean(known) > best + 1e-12:
            best, chosen = float(np.mean(known)), rule
    return chosen


def metrics(found: Iterable[Stretch], rule: Rule) -> dict[str, float | None]:
    """What a person on call would ask.

    Returns:
      'false_alarms', alarms that touch no anomaly, per 10 000 steps; 'detection_delay', steps from the start of an
      anomaly to the first alarm in it, the mean over the anomalies that are found; None where none is.
    """
    false = steps = 0
    delays: list[int] = []
    for one in found:
        raised = find_alarms(one.scores, one.predicted, rule)
        starts, ends = find_runs(one.labels)
        steps += len(one.labels)
        begins, lasts = np.array([a.start for a in raised], int), np.array([a.end for a in raised], int)
        false += int(sum(not one.labels[a.start : a.end + 1].any() for a in raised))
        for start, end in zip(starts, ends, strict=True):
            touching = np.flatnonzero((begins < end) & (lasts >= start))
            if len(touching):
                delays.append(max(0, int(begins[touching[0]]) - int(start)))
    return {
        "false_alarms": 1e4 * false / steps if steps else None,
        "detection_delay": float(np.mean(delays)) if delays else None,
    }


def _mask(one: Stretch, rule: Rule) -> Bool[np.ndarray, "steps"]:
    mask = np.zeros(len(one.labels), bool)
    for alarm in find_alarms(one.scores, one.predicted, rule):
        mask[alarm.start : alarm.end + 1] = True
    return mask
