"""Recognizes rows of a table that a reference holds, so that no window is compared with its own copy."""

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from spear_jax.data.own_past import NO_PLACE, WIDTHS, Reference, carry_forward

RECOGNIZED = 32  # consecutive rows that show where in the recorded series they are
RECOGNIZED_BY = 128  # rows among which the first ones of a table begin, if its first values are missing
CHANGES = RECOGNIZED // 2  # at least, between that many rows, for equal ones to be no accident as constants are
OTHERS = RECOGNIZED // 4  # most rows of that many that may differ from the recorded ones, if they change so often
ALIKE = 512  # most values of a reference that are compared with one

_EQUAL = 1e-4  # larger differences of standardized values are more than rounding errors of float32
_TILE_ROWS = 256  # rows that are looked up at a time


class Places:
    """Finds the place of each row of a table in the recorded series, by their values, as the rows arrive.

    The first rows are where the reference holds the same values, but for a few: at its begin, if it does so there. The
    next ones follow them, until too many differ from what the reference holds. Other rows, and those for which it holds
    nothing, are where it holds the same values as the last `RECOGNIZED` rows and nowhere else. So a table may begin
    anywhere in the recorded series, leave out some of its rows or have others before it. Of the rows after such a seam,
    the first 31 have no place: they are compared with their own copies. The places do not depend on how the rows are
    divided.
    """

    def __init__(self, reference: Reference) -> None:
        """Starts before the first row."""
        self._reference = reference
        held = np.flatnonzero(np.isfinite(reference.values))
        self._places, self._values = reference.steps[held], reference.values[held]
        self._order = np.argsort(reference.values, kind="stable")
        self._ascending = reference.values[self._order]
        self._seen = 0
        self._shift: int | None = None  # from the number of a row to its place
        self._last = 0.0  # the last known value
        self._rows = np.zeros(0, np.float32)  # the last ones
        self._differ = np.zeros(RECOGNIZED - 1, bool)  # which of these differ from what the reference holds

    @staticmethod
    def decided(values: Float[np.ndarray, "rows"]) -> bool:
        """Returns whether these are enough rows for the first call of `append`; NaN is a missing value."""
        return len(values) >= min(_first_known(values) + RECOGNIZED, RECOGNIZED_BY)

    def append(self, values: Float[np.ndarray, "rows"]) -> Int[np.ndarray, "rows"]:
        """Adds rows and returns their places; at first as many as are `decided`, or all there are."""
        standardized = self._reference.standardize(values)
        if not self._seen:
            self._shift = self._first_shift(standardized)
        filled = carry_forward(standardized, self._last)
        known = np.isfinite(standardized)
        places = np.empty(len(values), np.int64)
        for begin in range(0, len(values), _TILE_ROWS):
            tile = slice(begin, begin + _TILE_ROWS)
            self._advance(filled[tile].astype(np.float32), known[tile], places[tile])
            self._last = float(filled[tile][-1])
        return places

    def _first_shift(self, standardized: Float[np.ndarray, "rows"]) -> int | None:
        """Returns how far the first known rows are moved in the recorded series; None if they are not in it."""
        begin = _first_known(standardized[:RECOGNIZED_BY])
        end = min(begin + RECOGNIZED, RECOGNIZED_BY)  # however many more there are
        rows = carry_forward(standardized[begin:end], 0.0).astype(np.float32)
        if not min(WIDTHS) <= len(rows) <= len(self._reference.values):
            return None
        windows = np.lib.stride_tricks.sliding_window_view(self._reference.values, len(rows))
        differing = np.count_nonzero(np.abs(windows - rows) > _EQUAL, axis=1)
        fewest = np.min(differing)
        if fewest > (OTHERS if len(np.unique(rows)) >= CHANGES else 0):
            return None
        shifts = self._reference.steps[np.flatnonzero(differing == fewest)] - begin
        if 0 in shifts:
            return 0
        return int(shifts[0]) if _changes(rows)[-1] >= min(CHANGES, len(rows) - 1) else None

    def _advance(
        self, filled: Float32[np.ndarray, "rows"], known: Bool[np.ndarray, "rows"], places: Int[np.ndarray, "rows"]
    ) -> None:
        """Writes the places of rows without gaps, of which some are known and the others carried forward."""
        rows, before = np.concatenate([self._rows, filled]), len(self._rows)
        changes = _changes(rows)
        ends = np.arange(before, len(rows))
        begins = np.maximum(ends - RECOGNIZED + 1, 0)
        lively = changes[ends] - changes[begins] >= np.minimum(CHANGES, (ends - begins) // 2)
        done = 0
        while done < len(filled):
            numbers = self._seen + np.arange(done, len(filled))
            places[done:] = numbers + (NO_PLACE if self._shift is None else self._shift)
            i = np.minimum(np.searchsorted(self._places, places[done:]), max(len(self._places) - 1, 0))
            held = self._places[i] == places[done:] if len(self._places) else np.zeros(len(i), bool)
            if held[0]:
                different = held & known[done:] & (np.abs(self._values[i] - filled[done:]) > _EQUAL)
                different = np.concatenate([self._differ, different])
                # Where few rows change, most of them agree with any others.
                allowed = np.where(lively[done:], OTHERS, 0)
                lost = np.convolve(different, np.ones(RECOGNIZED, int), "valid") > allowed
                rest = _first(lost | ~held)
                self._differ = different[rest : rest + RECOGNIZED - 1]
                if rest < len(lost) and lost[rest]:
                    self._shift = None
            else:
                rest = _first(held)
                self._differ = np.zeros(RECOGNIZED - 1, bool)
                if found := self._find(rows[: before + done + rest], before + done):
                    rest, place = found[0] - before - done, found[1]
                    self._shift = place - self._seen - done - rest
            done += rest
        self._seen += len(filled)
        self._rows = rows[max(len(rows) - RECOGNIZED + 1, 0) :].copy()

    def _find(self, rows: Float32[np.ndarray, "rows"], begin: int) -> tuple[int, int] | None:
        """Returns the first row, of those from `begin`, that ends a window which the reference holds once; its place.

        Where the values change slowly, neighbouring windows may be equal as well: the most similar one counts.
        """
        changes = _changes(rows)
        ends = np.arange(max(begin, RECOGNIZED - 1), len(rows))
        ends = ends[changes[ends] - changes[ends - RECOGNIZED + 1] >= CHANGES]
        low = np.searchsorted(self._ascending, rows[ends] - _EQUAL)
        high = np.searchsorted(self._ascending, rows[ends] + _EQUAL, "right")
        few = high - low <= ALIKE
        ends, low, counts = ends[few], low[few], (high - low)[few]
        at = self._order[np.arange(counts.sum()) + np.repeat(low - np.cumsum(counts) + counts, counts)]
        ends, differences = np.repeat(ends, counts), np.zeros(counts.sum())
        for back in range(RECOGNIZED):
            difference = np.abs(rows[ends - back] - self._reference.values[at - back])
            kept = (difference <= _EQUAL) & (at >= back)
            ends, at, differences = ends[kept], at[kept], (differences + difference)[kept]
        groups = np.flatnonzero(np.diff(ends, prepend=-1))
        if not len(groups):
            return None
        apart = np.maximum.reduceat(at, groups) - np.minimum.reduceat(at, groups)
        once = groups[apart < RECOGNIZED]
        if not len(once):
            return None
        same = np.flatnonzero(ends == ends[once[0]])
        return int(ends[once[0]]), int(self._reference.steps[at[same[np.argmin(differences[same])]]])


def _first_known(values: Float[np.ndarray, "rows"]) -> int:
    return _first(np.isfinite(values))


def _first(flags: Bool[np.ndarray, "rows"]) -> int:
    """Returns the number of the first true value; that of all values if there is none."""
    return int(np.argmax(flags)) if flags.any() else len(flags)


def _changes(rows: Float32[np.ndarray, "rows"]) -> Int[np.ndarray, "rows"]:
    """Returns how often the values have changed up to each row."""
    return np.cumsum(np.abs(np.diff(rows, prepend=rows[:1])) > _EQUAL)
