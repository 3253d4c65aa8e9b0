"""Reads scores out: turns the scores of a model into those that are compared with a threshold.

The paper compares P(anomalous) itself. Three fields add to it, in this order; with any of them, a score is still in
(0, 1), but no probability:
  1. The logit of P becomes (logit + w * distance) / (1 + w), with w = `score.distance_weight` and the distance to the
     past, `largest_distance`. The division changes no ranking; it keeps scores away from 1, where all look alike.
  2. It is averaged over `score.smoothing` steps: as many before a step as after it, and one more after it if the number
     is even. Where a stretch begins or ends, there are fewer.
  3. With l = `score.level`, x becomes (x - l * level) / (1 + l): the level is the median of all such averages before
     the step's block of 256 steps, so that what has been usual for the series so far is taken off; the first block has
     its own median.
Scores that are no probabilities, those of methods without labels, are averaged as they are.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict
from scipy.special import expit, logit

from spear_jax.config import DISTANCES, METHODS, view_names
from spear_jax.data import Dataset, MethodScores, StepScores, find_equal_runs, largest_distance, stitch_splits
from spear_jax.errors import InputError
from spear_jax.evaluation.pointwise import average_precision

SMOOTHINGS = (1, 16, 32, 64, 128)  # to choose from, as are the weights
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0)
# With fewer anomalies to choose by, or with injected ones, which real ones do not resemble, any choice may seem best.
# After training on injected ones, the mean AUROC of the model alone was .46 on five series of NAB, that of the distance
# .84. (Ten is a guess, not measured.)
ENOUGH = 10
CAUTIOUS_SMOOTHING, CAUTIOUS_WEIGHT = 16, 16.0
LEVELS = (0.0, 0.5, 1.0)
LEVEL_STEPS = 256  # that share a level
_BINS = 64  # per unit of the histogram that medians are read from, whose memory does not grow
_REACH = 24  # beyond +-24, numbers count as +-24
_LEAST = 2.0**-25  # half of what float32 can tell from 1: limits logits to +-17
_SAME = 1e-9  # a smaller gain is rounding error


@dataclasses.dataclass(frozen=True)
class Readout:
    """The chosen way to read out scores, a part of the detector.

    Attributes:
      smoothing: steps of the moving average; 1 for none.
      distance_weight: weight of the distance to the past.
      level: share of the level so far that is taken off.
    """

    smoothing: int = 1
    distance_weight: float = 0.0
    level: float = 0.0

    @classmethod
    def of(cls, config: ConfigDict) -> "Readout":
        """Returns the readout of a config in which nothing is left to choose."""
        return cls(config.score.smoothing, config.score.distance_weight, config.score.level)

    def write_to(self, config: ConfigDict) -> ConfigDict:
        """Returns a copy of a config that has this readout."""
        chosen = config.copy_and_resolve_references()
        chosen.score.update(dataclasses.asdict(self))
        return chosen

    @property
    def keeps_scores(self) -> bool:
        """Returns whether scores stay what they are, as in the paper."""
        return self == Readout()

    @property
    def look_ahead(self) -> int:
        """Returns the steps after a step that its score depends on, once the first level is known."""
        return self.smoothing // 2

    @property
    def awaited_rows(self) -> int:
        """Returns the averages needed before there is a score."""
        return LEVEL_STEPS if self.level else 1

    def apply(
        self, steps: StepScores, distances: Float[np.ndarray, "steps"], *, probabilities: bool = True
    ) -> StepScores:
        """Reads out the scores of a split.

        Args:
          steps: scores of a model.
          distances: the largest distance of each step.
          probabilities: whether the scores are probabilities.
        """
        if self.keeps_scores:
            return steps
        if not probabilities:
            averages = moving_average(steps.score[:, None], self.smoothing, _begins(steps))
            return dataclasses.replace(steps, score=averages[:, 0])
        evidence = self.weigh(steps.score, distances)[:, None]
        averages = moving_average(evidence, self.smoothing, _begins(steps))
        return dataclasses.replace(steps, score=expit(take_off_level(averages, self.level, _begins(steps)))[:, 0])

    def weigh(
        self, scores: Float[np.ndarray, "*rows"], distances: Float[np.ndarray, "*rows"]
    ) -> Float[np.ndarray, "*rows"]:
        """Returns logits of probabilities with the weighted distances added."""
        return (_finite_logit(scores) + self.distance_weight * distances) / (1 + self.distance_weight)


class ReadoutStream:
    """Reads out the probabilities of consecutive rows as they arrive, in bounded memory.

    The scores are those of all rows at once, bit for bit, however the rows are divided.
    """

    def __init__(self, readout: Readout, columns: int) -> None:
        """Starts before the first row of a table with `columns` series."""
        self._readout = readout
        self._rows = np.zeros((0, columns))
        self._returned = 0  # of these rows, kept since later averages need them
        self._levels = _LevelStream(readout.level, columns)

    def add(
        self, scores: Float[np.ndarray, "rows columns"], distances: Float[np.ndarray, "rows columns"]
    ) -> Float[np.ndarray, "final columns"]:
        """Adds rows; returns the scores of those, of this and earlier calls, that are now final."""
        if self._readout.keeps_scores:
            return scores
        self._rows = np.concatenate([self._rows, self._readout.weigh(scores, distances)])
        return expit(self._levels.add(self._average(max(len(self._rows) - self._readout.look_ahead, self._returned))))

    def finish(self) -> Float[np.ndarray, "rows columns"]:
        """Returns the scores of the remaining rows."""
        return expit(np.concatenate([self._levels.add(self._average(len(self._rows))), self._levels.finish()]))

    def _average(self, end: int) -> Float[np.ndarray, "rows columns"]:
        """Returns the averages of the rows before `end` that were not returned yet."""
        averages = moving_average(self._rows, self._readout.smoothing, np.zeros(1, int))[self._returned : end]
        drop = max(end - (self._readout.smoothing - 1) // 2, 0)
        self._rows, self._returned = self._rows[drop:].copy(), end - drop
        return averages


class _LevelStream:
    """Takes the level off consecutive rows as they arrive."""

    def __init__(self, level: float, columns: int) -> None:
        self._level = level
        self._counts = np.zeros((columns, 2 * _REACH * _BINS + 1), int)
        self._block = np.zeros((0, columns))  # rows of the latest block; those of the first wait until it is full
        self._median = np.full(columns, np.nan)  # of each column; NaN before the first block is full

    def add(self, rows: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "final columns"]:
        """Adds rows; returns those, of this and earlier calls, whose level is known."""
        if not self._level:
            return rows
        parts = [rows[:0]]
        while len(rows):
            new, rows = np.split(rows, [LEVEL_STEPS - len(self._block)])
            self._block = np.concatenate([self._block, new])
            if not np.isnan(self._median).any():
                parts.append(self._take_off(new))
            if len(self._block) == LEVEL_STEPS:
                parts.append(self.finish())
                self._block = rows[:0]
        return np.concatenate(parts)

    def finish(self) -> Float[np.ndarray, "rows columns"]:
        """Counts the latest block; returns its rows if it is the first."""
        if not len(self._block):
            return self._block
        first, columns = np.isnan(self._median).any(), np.arange(len(self._counts))
        bins = np.rint((np.clip(self._block, -_REACH, _REACH) + _REACH) * _BINS).astype(int)
        np.add.at(self._counts, (columns, bins), 1)
        totals = np.cumsum(self._counts, axis=1)
        self._median = np.argmax(2 * totals >= totals[:, -1:], axis=1) / _BINS - _REACH
        return self._take_off(self._block) if first else self._block[:0]

    def _take_off(self, rows: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
        return (rows - self._level * self._median) / (1 + self._level)


def read_out(
    config: ConfigDict, dataset: Dataset, scores: MethodScores
) -> tuple[Readout, MethodScores, dict[str, Any]]:
    """Reads out the scores of a method and of the controls that use its model, each with its own choice.

    Args:
      config: a complete config, whose readout may have to be chosen on the validation split.
      dataset: the data that were scored.
      scores: what the model gives. Scores per window are dropped unless they are kept as they are: the threshold is
        not meant for them.

    Returns:
      The readout of the method; the new scores, with the control 'model_alone' if they are new; and notes.
    """
    probabilities = METHODS[config.method].labels
    distances = _distances(config, dataset, scores)

    def read(steps: Mapping[str, StepScores]) -> tuple[Readout, dict[str, StepScores], dict[str, Any]]:
        readout, notes = choose_readout(config, steps["validation"], distances["validation"], probabilities)
        new = {split: readout.apply(own, distances[split], probabilities=probabilities) for split, own in steps.items()}
        return readout, new, notes

    readout, steps, notes = read(scores.steps)
    for split, own in steps.items():
        if not np.isfinite(own.score).all():
            raise InputError(f"{(~np.isfinite(own.score)).sum()} scores of the {split} split are not finite numbers")
    controls = {} if readout.keeps_scores else {"model_alone": scores.steps}
    for name, control in scores.controls.items():
        _, controls[name], chosen = read(control)
        notes.setdefault("controls", {})[name] = chosen
    return readout, MethodScores(steps, scores.windows if readout.keeps_scores else {}, controls), notes


def choose_readout(
    config: ConfigDict, validation: StepScores, distances: Float[np.ndarray, "steps"], probabilities: bool
) -> tuple[Readout, dict[str, Any]]:
    """Chooses what the config leaves open: the best AUPR, averaged over the validation series with both classes.

    Of equally good ones it takes the one with the least smoothing, then with the lowest weight, then with the lowest
    level. If these series have fewer than `ENOUGH` anomalies, or injected ones, nothing is chosen: the distance
    rules, smoothed a little, and no level is taken off.

    Args:
      config: a complete config.
      validation: scores of the validation split.
      distances: the largest distance of each of its steps.
      probabilities: whether the scores are probabilities.

    Returns:
      The readout; and notes with its values, that AUPR without and with it, None without such a series, and why nothing
      was chosen ('' if something was, or nothing was to be).
    """
    smoothing, weight, level = config.score.smoothing, config.score.distance_weight, config.score.level
    series = [run for run in _series(validation) if 0 < validation.label[run].sum() < run.stop - run.start]
    anomalies = sum(np.count_nonzero(np.diff(validation.label[run], prepend=0) > 0) for run in series)
    preset = ""
    if config.data.labels == "injected":
        preset = "the anomalies were injected"
    elif anomalies < ENOUGH:
        preset = f"validation has {anomalies} of the {ENOUGH} anomalies that a choice needs"
    if smoothing and min(weight, level) >= 0:
        preset = ""
    elif preset:
        smoothing = smoothing or CAUTIOUS_SMOOTHING
        weight = CAUTIOUS_WEIGHT if weight < 0 else weight
        level = max(level, 0.0)
    if not probabilities:
        weight = level = 0.0
    elif not set(DISTANCES) & set(view_names(config)):
        weight = 0.0

    def mean_aupr(scores: Float[np.ndarray, "steps"]) -> float:
        return float(np.mean([average_precision(validation.label[run], scores[run]) for run in series]))

    if not series:
        readout = Readout(smoothing, weight, level)
        return readout, _notes(readout, None, None, preset)
    without = best = mean_aupr(validation.score)
    chosen = None
    terms = np.stack([_finite_logit(validation.score) if probabilities else validation.score, distances], axis=1)
    for width in (smoothing,) if smoothing else SMOOTHINGS:
        averages = moving_average(terms, width, _begins(validation))
        weights, levels = (weight,) if weight >= 0 else WEIGHTS, (level,) if level >= 0 else LEVELS
        for candidate in itertools.starmap(Readout, itertools.product((width,), weights, levels)):
            scores = averages @ (1, candidate.distance_weight) / (1 + candidate.distance_weight)
            scores = take_off_level(scores[:, None], candidate.level, _begins(validation))[:, 0]
            aupr = without if candidate.keeps_scores else mean_aupr(scores)
            if chosen is None or aupr > best + _SAME:
                chosen, best = candidate, aupr
    assert chosen
    return chosen, _notes(chosen, without, best, preset)


def moving_average(
    numbers: Float[np.ndarray, "steps columns"], width: int, begins: Int[np.ndarray, "stretches"]
) -> Float[np.ndarray, "steps columns"]:
    """Averages each step with the (width - 1) // 2 steps before it and the width // 2 after it, as far as they exist.

    An average depends on its own terms alone, to the last bit: equal terms have equal averages.

    Args:
      numbers: numbers of consecutive stretches of steps.
      width: steps in an average.
      begins: the first step of each stretch, ascending from 0.
    """
    before, steps = (width - 1) // 2, np.arange(len(numbers))
    # As many zeros between stretches as a window can reach across.
    places = steps + (np.searchsorted(begins, steps, side="right") - 1) * (width - 1)
    padded = np.zeros((len(numbers) + len(begins) * (width - 1), numbers.shape[1] + 1))
    padded[places + before] = np.pad(numbers, ((0, 0), (0, 1)), constant_values=1)  # the last column counts the steps
    total, begin, added = np.zeros((len(numbers), padded.shape[1])), 0, 1
    while width:  # a power of two at a time
        if width & 1:
            total, begin = total + padded[places + begin], begin + added
        width >>= 1
        if width:
            padded = padded[:-added] + padded[added:]
            added *= 2
    return total[:, :-1] / total[:, -1:]


def take_off_level(
    numbers: Float[np.ndarray, "steps columns"], level: float, begins: Int[np.ndarray, "stretches"]
) -> Float[np.ndarray, "steps columns"]:
    """Takes a share of the level so far off each step of consecutive stretches.

    Args:
      numbers: logits, averaged.
      level: the share, see `Readout`.
      begins: the first step of each stretch, ascending from 0.
    """
    if not level:
        return numbers
    parts = []
    for stretch in np.split(numbers, begins[1:]):
        stream = _LevelStream(level, numbers.shape[1])
        parts += [stream.add(stretch), stream.finish()]
    return np.concatenate(parts)


def _finite_logit(scores: Float[np.ndarray, "*rows"]) -> Float[np.ndarray, "*rows"]:
    return logit(np.clip(scores.astype(np.float64), _LEAST, 1 - _LEAST))


def _begins(steps: StepScores) -> Int[np.ndarray, "stretches"]:
    """Returns the indices at which stretches of consecutive steps begin, see `StepScores.stretches`."""
    return find_equal_runs(steps.series, steps.step - np.arange(len(steps.step)))[0]


def _series(steps: StepScores) -> list[slice]:
    return list(itertools.starmap(slice, zip(*find_equal_runs(steps.series), strict=True)))


def _distances(config: ConfigDict, dataset: Dataset, scores: MethodScores) -> dict[str, Float[np.ndarray, "_steps"]]:
    """Returns the largest distance of every step of the scored splits; 0 without a view that measures one."""
    names = view_names(config)[1:]
    windows = {split: largest_distance(names, dataset.views[split]) for split in scores.steps}
    return {split: steps.score for split, steps in stitch_splits(dataset, windows).items()}


def _notes(readout: Readout, without: float | None, with_it: float | None, preset: str) -> dict[str, Any]:
    chosen = dataclasses.asdict(readout)
    return {**chosen, "preset": preset, "validation_aupr": {"without": without, "with": with_it}}
