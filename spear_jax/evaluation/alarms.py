"""Turns predicted time steps into alarms: intervals, after closing short gaps and dropping short alarms.

An operator is paged once per interval, not once per step. The `AlarmRule` is chosen on validation data, like the
threshold.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from spear_jax.data import find_runs
from spear_jax.evaluation.interval_metrics import event_wise

GAPS = (0, 1, 2, 4, 8, 16, 32)
LENGTHS = (1, 2, 3, 4, 8, 16)
NO_TIME = np.iinfo(np.int64).min  # NumPy's NaT


class AlarmRule(NamedTuple):
    """Turns predicted steps into alarms.

    Attributes:
      merge_gap: two alarms with at most this many steps between them are merged.
      min_length: an alarm of fewer steps is dropped, after merging.
    """

    merge_gap: int = 0
    min_length: int = 1


class Alarm(NamedTuple):
    """An interval of one series.

    Attributes:
      start: its first step.
      end: its last step, inclusive.
      peak: the step with the highest score.
      score: the score at the peak.
      times: times of start, end and peak, in nanoseconds since 1970.
    """

    start: int
    end: int
    peak: int
    score: float
    times: tuple[int, int, int] = (NO_TIME, NO_TIME, NO_TIME)


class Alarms:
    """The alarms of one series, which may arrive in pieces."""

    def __init__(self, rule: AlarmRule) -> None:
        """Starts with no steps."""
        self._rule = rule
        self._open: Alarm | None = None  # may still grow

    def add(
        self,
        first: int,
        scores: Float[np.ndarray, "steps"],
        predicted: Bool[np.ndarray, "steps"],
        times: Int[np.ndarray, "stamps"] | None = None,
    ) -> list[Alarm]:
        """Adds the next piece of the series; returns the alarms that later steps cannot change.

        Args:
          first: index of the piece's first step; pieces follow one another without gaps.
          scores: scores of the piece's steps.
          predicted: True where an anomaly is predicted.
          times: times of the steps, in nanoseconds since 1970.
        """
        final: list[Alarm] = []
        for begin, end in zip(*find_runs(predicted), strict=True):
            peak = begin + int(np.argmax(scores[begin:end]))
            steps = np.array([begin, end - 1, peak])
            start, last, highest = (first + steps).tolist()
            alarm = Alarm(start, last, highest, float(scores[peak]))
            if times is not None and len(times):
                alarm = alarm._replace(times=tuple(times[steps].tolist()))
            if self._open is not None and alarm.start - self._open.end - 1 <= self._rule.merge_gap:
                alarm = _merge(self._open, alarm)
            else:
                final += self.finish()
            self._open = alarm
        if self._open is not None and first + len(scores) - 1 - self._open.end > self._rule.merge_gap:
            final += self.finish()
        return final

    def finish(self) -> list[Alarm]:
        """Closes the alarm that is still open; returns it if it is long enough."""
        last, self._open = self._open, None
        return [last] if last is not None and last.end - last.start + 1 >= self._rule.min_length else []


def _merge(first: Alarm, second: Alarm) -> Alarm:
    highest = max(first, second, key=lambda alarm: alarm.score)
    times = (first.times[0], second.times[1], highest.times[2])
    return Alarm(first.start, second.end, highest.peak, highest.score, times)


def find_alarms(
    scores: Float[np.ndarray, "steps"], predicted: Bool[np.ndarray, "steps"], rule: AlarmRule
) -> list[Alarm]:
    """Returns the alarms of a complete series."""
    alarms = Alarms(rule)
    return alarms.add(0, scores, predicted) + alarms.finish()


class Stretch(NamedTuple):
    """Consecutive steps of one series, on which alarms are evaluated."""

    labels: Bool[np.ndarray, "steps"]
    scores: Float[np.ndarray, "steps"]
    predicted: Bool[np.ndarray, "steps"]


def choose_alarm_rule(
    validation: Sequence[Stretch], gaps: Sequence[int] = GAPS, lengths: Sequence[int] = LENGTHS
) -> AlarmRule:
    """Returns the rule with the best mean event F1 on validation data; the first one if tied or without anomalies."""
    best_f1, best_rule = -1.0, AlarmRule(gaps[0], lengths[0])
    seen = set()
    for gap in gaps:
        found = [find_alarms(stretch.scores, stretch.predicted, AlarmRule(gap)) for stretch in validation]
        for length in lengths:
            kept = tuple(tuple(alarm for alarm in one if alarm.end - alarm.start + 1 >= length) for one in found)
            if kept in seen:  # a rule with the alarms of an earlier one is tied with it
                continue
            seen.add(kept)
            scores = [
                event_wise(stretch.labels, _alarm_mask(len(stretch.labels), one)).f1
                for stretch, one in zip(validation, kept, strict=True)
            ]
            defined = [f1 for f1 in scores if f1 is not None]
            if defined and np.mean(defined) > best_f1 + 1e-12:
                best_f1, best_rule = float(np.mean(defined)), AlarmRule(gap, length)
    return best_rule


def alarm_metrics(stretches: Iterable[Stretch], rule: AlarmRule) -> dict[str, float | None]:
    """Computes the metrics that matter to an operator on call.

    Returns:
      'false_alarms', the alarms that overlap no anomaly, per 10,000 steps; 'detection_delay', the mean number of steps
      from the start of a detected anomaly to its first alarm, None if no anomaly is detected.
    """
    false = steps = 0
    delays: list[int] = []
    for stretch in stretches:
        alarms = find_alarms(stretch.scores, stretch.predicted, rule)
        alarm_starts = np.array([alarm.start for alarm in alarms], int)
        alarm_ends = np.array([alarm.end for alarm in alarms], int)
        steps += len(stretch.labels)
        false += sum(not stretch.labels[alarm.start : alarm.end + 1].any() for alarm in alarms)
        for start, end in zip(*find_runs(stretch.labels), strict=True):
            touching = np.flatnonzero((alarm_starts < end) & (alarm_ends >= start))
            if len(touching):
                delays.append(max(0, int(alarm_starts[touching[0]]) - int(start)))
    return {
        "false_alarms": 1e4 * false / steps if steps else None,
        "detection_delay": float(np.mean(delays)) if delays else None,
    }


def _alarm_mask(steps: int, alarms: Iterable[Alarm]) -> Bool[np.ndarray, "steps"]:
    mask = np.zeros(steps, bool)
    for alarm in alarms:
        mask[alarm.start : alarm.end + 1] = True
    return mask
