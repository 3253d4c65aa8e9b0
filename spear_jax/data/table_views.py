"""Computes the views of the columns of a table as its rows arrive."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from spear_jax.data.own_past import Reference
from spear_jax.data.places import Places
from spear_jax.data.scaler import first_steps
from spear_jax.data.views import ViewStream, look_ahead, view_numbers


class TableViews:
    """The views of all columns of a table, over a range of rows that moves forward.

    A column whose reference is known keeps it, and begins once its first rows show whether they are part of it. Any
    other gets the one that its first steps make, once they have arrived. Views that read the whole series, and
    references of it, wait for the end of the table.
    """

    def __init__(
        self,
        names: Sequence[str],
        references: Sequence[Reference | None],
        *,
        reference_steps: int,
        typical_width: float,
        whole: bool,
    ) -> None:
        """Starts before the first row.

        Args:
          names: names of the views, without 'value'.
          references: the reference of each column, None if it is not known.
          reference_steps: see `first_steps`.
          typical_width: see `Reference.fit`.
          whole: the reference of a column is all of it (`quantizer.scale='series'`).
        """
        self._names, self._references = names, list(references)
        # Of columns whose reference is known.
        self._places = [None if known is None else Places(known) for known in references]
        self._reference_steps, self._typical_width, self._whole = reference_steps, typical_width, whole
        self._waits = whole or look_ahead(names) is None
        self._streams: list[ViewStream | None] = [None] * len(references)
        self._waiting: list[Float[np.ndarray, rows]] = [np.zeros(0)] * len(references)
        self._first = 0
        self._numbers: list[Float[np.ndarray, "rows views"]] = [np.zeros((0, len(names)))] * len(references)

    @property
    def final(self) -> int:
        """Returns the number of rows whose numbers are final in all columns, those of earlier rows included."""
        return self._first + min(map(len, self._numbers))

    def add(self, values: Float[np.ndarray, "rows columns"]) -> None:
        """Adds rows; NaN is a missing value."""
        for i, column in enumerate(values.T):
            self._waiting[i] = np.concatenate([self._waiting[i], column])
            if not self._waits:
                self._advance(i, ended=False)

    def finish(self) -> None:
        """Computes the numbers of the remaining rows."""
        for i in range(len(self._references)):
            if self._waits:
                reference = self._decide(i, ended=True)
                assert reference
                numbers = view_numbers(self._names, self._waiting[i], reference, self._take_places(i))
            else:
                self._advance(i, ended=True)
                stream = self._streams[i]
                assert stream
                numbers = stream.finish()
            self._numbers[i] = np.concatenate([self._numbers[i], numbers])

    def windows(
        self, starts: Int[np.ndarray, "windows"], length: int
    ) -> Float[np.ndarray, "windows columns time views"]:
        """Returns the numbers of the windows of `length` rows that begin at `starts`."""
        rows = (starts - self._first)[:, None] + np.arange(length)
        return np.stack([numbers[rows] for numbers in self._numbers], axis=1)

    def drop_before(self, row: int) -> None:
        """Moves the start of the range to a row."""
        self._numbers = [numbers[row - self._first :] for numbers in self._numbers]
        self._first = row

    def _decide(self, i: int, *, ended: bool) -> Reference | None:
        """Returns the reference of a column; None if that needs more rows."""
        values = self._waiting[i]
        if self._references[i] is None:
            reference = values if self._whole else first_steps(values, self._reference_steps)
            if ended or len(reference) == self._reference_steps:
                begin = 0 if self._whole else int(np.argmax(np.append(np.isfinite(values), True)))
                steps = begin + np.arange(len(reference))
                self._references[i] = Reference.fit(reference, steps, typical_width=self._typical_width)
        elif self._places[i] and not (ended or Places.decided(values)):
            return None
        return self._references[i]

    def _take_places(self, i: int) -> Int[np.ndarray, "_rows"] | None:
        """Returns the places of the waiting rows of a column; None if its reference is from this table."""
        places = self._places[i]
        return None if places is None else places.append(self._waiting[i])

    def _advance(self, i: int, *, ended: bool) -> None:
        """Passes on the rows of a column whose reference is decided."""
        stream = self._streams[i]
        if stream is None:
            reference = self._decide(i, ended=ended)
            if reference is None:
                return
            stream = self._streams[i] = ViewStream(self._names, reference)
        numbers = stream.append(self._waiting[i], self._take_places(i))
        self._numbers[i] = np.concatenate([self._numbers[i], numbers])
        self._waiting[i] = np.zeros(0)
