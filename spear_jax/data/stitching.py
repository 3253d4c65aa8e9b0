"""Stitches the scores of overlapping windows into one score per time step."""

import numpy as np
from jaxtyping import Bool, Float, Int


class ScoreSums:
    """Sums and counts the scores of each time step, over a range of steps that starts at 0 and can move forward.

    A step has a score for each of the columns, which are series.
    """

    def __init__(self, steps: int = 0, columns: int = 1) -> None:
        self._first = 0
        self._sums = np.zeros((columns, steps))
        self._counts = np.zeros(steps, int)

    def append(self, steps: int) -> None:
        """Extends the range by steps without a score."""
        self._sums = np.pad(self._sums, ((0, 0), (0, steps)))
        self._counts = np.pad(self._counts, (0, steps))

    def drop_before(self, step: int) -> None:
        """Moves the start of the range to a step."""
        self._sums, self._counts = self._sums[:, step - self._first :], self._counts[step - self._first :]
        self._first = step

    def add(
        self, steps: Int[np.ndarray, "scores"], scores: Float[np.ndarray, "scores columns"], *, first_only: bool = False
    ) -> None:
        """Adds a row of scores for each entry of `steps`, which may contain a step several times.

        With `first_only`, a step keeps the first score that it receives and ignores the others.
        """
        places = steps - self._first
        if first_only:
            places, order = np.unique(places, return_index=True)
            missing = ~self.scored[places]
            places, scores = places[missing], scores[order[missing]]
        for sums, column in zip(self._sums, scores.T, strict=True):
            np.add.at(sums, places, column.astype(np.float64))  # several times as fast as with a cast inside
        np.add.at(self._counts, places, 1)

    @property
    def scored(self) -> Bool[np.ndarray, "steps"]:
        """Returns whether each step of the range has a score."""
        return self._counts > 0

    def means(self, steps: Int[np.ndarray, "chosen"]) -> Float[np.ndarray, "chosen columns"]:
        """Returns the mean scores of steps that have a score."""
        places = steps - self._first
        return (self._sums[:, places] / self._counts[places]).T
