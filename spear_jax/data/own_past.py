"""Keeps the reference stretch of a series and measures how far windows are from it and from what came before them.

Squared distances are built by doubling: that of two windows is the sum of those of their halves, down to the squared
differences of single steps. One pass serves all widths, in about half the time of matrix products in float32. All terms
are positive, so nothing cancels: the relative error is that of float32. The order of additions depends on the width
alone: rows get the same bits one by one as all at once.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from spear_jax.data.neighbours import PAST
from spear_jax.data.scaler import is_constant
from spear_jax.data.series import LARGEST

WIDTHS = (8, 32, 128)  # steps in a window, powers of two

PAST_STEPS = 4096  # how far back a window's nearest neighbour may begin

MAX_REFERENCE = 4096  # steps that a reference keeps, in 16 KB

SAMPLED_STRETCHES = 8  # of a longer reference

FLOOR = 0.05  # usual distances are at least this many standard deviations per step (root mean square)

MOST_UNUSUAL = 8.0  # times the usual distance: a larger one counts as this in means, or a faulty value would rule them

QUANTILE = 0.9  # of a reference's own distances, which counts as usual

NO_PLACE = 3 * PAST  # added to the number of a row whose place in the recorded series is not known

_FARTHEST = 1e12  # larger standardized values are clipped: float32 holds sums of their squares
_NOWHERE = 2 * PAST  # place of the gap between two stretches of a reference
_TILE_ROWS = 256  # windows compared at a time: two times 6 MB, which fit into the cache


class Usual(NamedTuple):
    """The distances of a reference's windows to the nearest others that share no step with them.

    Attributes:
      high: their .9 quantile, but at least the floor; NaN if there are no two such windows.
      logs: the sum of their `log_distances`.
      windows: how many have a neighbour.
    """

    high: float
    logs: float
    windows: float


@dataclasses.dataclass(frozen=True)
class Reference:
    """A stretch of a series, or several, that shows how it usually behaves.

    Attributes:
      values: standardized values, the missing ones filled in; `inf` between two stretches.
      steps: the place of each value in the recorded series; negative, and far away, for a past of its own.
      centre: the median in the series' own unit.
      unit: the standard deviation in the series' own unit.
      usual: usual distances by steps in a window.
    """

    values: Float[np.ndarray, "steps"]
    steps: Int[np.ndarray, "steps"]
    centre: float
    unit: float
    usual: Mapping[int, Usual]

    @classmethod
    def fit(
        cls,
        values: Float[np.ndarray, "steps"],
        steps: Int[np.ndarray, "steps"] | None = None,
        *,
        typical_width: float = 1.0,
    ) -> "Reference":
        """Fits the reference.

        Of more than `MAX_REFERENCE` values, eight stretches of equal length are kept, evenly spaced from the first
        value to the last; median and standard deviation are those of all values.

        Args:
          values: values in the series' own unit; NaN where missing. There may be none.
          steps: the place of each value in the recorded series, ascending; None for a past of its own. A new stretch
            begins where places do not follow one another.
          typical_width: the range of other series, which replaces that of a constant reference as in `Scaler`.
        """
        places = PAST + np.arange(len(values)) if steps is None else steps
        centre, unit = _centre_and_unit(values, typical_width)
        standardized = _standardize(values, centre, unit)
        gap = (np.full(1, np.inf, np.float32), np.full(1, _NOWHERE))
        stretches: list[tuple[np.ndarray, np.ndarray]] = []
        for piece in _sampled(_consecutive(places)):
            if np.isfinite(standardized[piece]).any() and piece.stop - piece.start >= min(WIDTHS):
                filled = carry_forward(standardized[piece], 0.0).astype(np.float32)
                stretches.append((filled, places[piece]))
        parts = [part for stretch in stretches for part in (gap, stretch)][1:] or [(gap[0][:0], gap[1][:0])]
        kept, kept_places = (np.concatenate(part) for part in zip(*parts, strict=True))
        reference = cls(kept, kept_places, centre, unit, {})
        nearest = [reference.nearest(filled, where, WIDTHS) for filled, where in stretches]
        usual = {width: _usual([found[width] for found in nearest], width) for width in WIDTHS}
        return dataclasses.replace(reference, usual=usual)

    def known(self) -> Float32[np.ndarray, "known"]:
        """Returns the values of all stretches, at most 16 KB of them; `stored` reads them."""
        return self.values[np.isfinite(self.values)]

    def description(self) -> dict[str, Any]:
        """Returns all but the values and their places, for JSON; `stored` reads it."""
        pieces = _consecutive(np.flatnonzero(np.isfinite(self.values)))
        lengths = [piece.stop - piece.start for piece in pieces]
        known = self.steps[np.isfinite(self.values)]
        starts = [int(known[piece.start]) for piece in pieces]
        usual = {str(width): [None if math.isnan(x) else x for x in usual] for width, usual in self.usual.items()}
        return {"lengths": lengths, "starts": starts, "centre": self.centre, "unit": self.unit, "usual": usual}

    @classmethod
    def stored(cls, known: Float32[np.ndarray, "known"], description: Mapping[str, Any]) -> "Reference":
        """Makes the reference that was stored; earlier versions stored no places, so that it is a past of its own."""
        stretches = np.split(known, np.cumsum(description["lengths"])[:-1])
        gap = np.full(1, np.inf, np.float32)
        values = np.concatenate([part for stretch in stretches for part in (gap, stretch)][1:])
        places = PAST + np.arange(len(values))
        if "starts" in description:
            apart = [
                part
                for start, stretch in zip(description["starts"], stretches, strict=False)
                for part in (np.full(1, _NOWHERE), start + np.arange(len(stretch)))
            ]
            places = np.concatenate([places[:0], *apart[1:]])
        usual = {
            int(width): Usual(*(math.nan if x is None else x for x in numbers))
            for width, numbers in description["usual"].items()
        }
        return cls(values, places, description["centre"], description["unit"], usual)

    def standardize(self, values: Float[np.ndarray, "rows"]) -> Float[np.ndarray, "rows"]:
        """Subtracts the reference's median and divides by its standard deviation; what is not finite becomes NaN."""
        return _standardize(values, self.centre, self.unit)

    def outside(self, places: Int[np.ndarray, "rows"]) -> list[Float[np.ndarray, "_steps"]]:
        """Returns the stretches of the reference, without these places of the recorded series."""
        kept = np.flatnonzero(np.isfinite(self.values) & ~np.isin(self.steps, places))
        return [self.values[kept[piece]].astype(np.float64) for piece in _consecutive(self.steps[kept])]

    def nearest(
        self, values: Float[np.ndarray, "rows"], places: Int[np.ndarray, "rows"], widths: Sequence[int]
    ) -> dict[int, Float[np.ndarray, "rows"]]:
        """Returns each window's Euclidean distance to the nearest of the reference that shares no step with it.

        Args:
          values: standardized values in float32, one step apart and none missing.
          places: the place of each value in the recorded series; a window is where its last value is.
          widths: steps in a window.

        Returns:
          Distances by width, each in the row that its window ends with; `inf` if there is no window, or none to compare
          it with.
        """
        found = {width: np.full(len(values), np.inf, np.float32) for width in widths}
        planes = _Planes(len(values), len(self.values), widths)
        for begin in range(0, len(values) if len(self.values) else 0, _TILE_ROWS):
            for width, plane in planes.double(values[planes.tile(begin)], self.values, diagonal=True):
                self._leave_out_overlaps(plane, places[begin + width - 1 :][: len(plane)] - width + 1, width)
                _keep_nearest(plane, found[width], begin, width)
        return found

    def _leave_out_overlaps(
        self, plane: Float[np.ndarray, "rows columns"], starts: Int[np.ndarray, "rows"], width: int
    ) -> None:
        """Makes the distances of windows that share a step infinite, in place; the rows' windows begin at `starts`."""
        places = self.steps[: plane.shape[1]]
        for piece in _consecutive(starts):
            rows = starts[piece]
            columns = np.flatnonzero((places > rows[0] - width) & (places < rows[-1] + width))
            if len(columns):
                shared = np.abs(places[columns] - rows[:, None]) < width
                plane[piece, columns] = np.where(shared, np.inf, plane[piece, columns])


def nearest_before(
    values: Float[np.ndarray, "rows"], before: Float[np.ndarray, "past"], widths: Sequence[int]
) -> dict[int, Float[np.ndarray, "rows"]]:
    """Returns each window's distance to the nearest that begins up to `PAST_STEPS` earlier and ended before it begins.

    Args:
      values: standardized values in float32, one step apart and none missing.
      before: those that came directly before them; only the last `PAST_STEPS` are read.
      widths: steps in a window.

    Returns:
      As `Reference.nearest`.
    """
    lags = min(PAST_STEPS, len(before) + len(values))
    before = before[max(len(before) - lags, 0) :]
    # A window that would begin before the first value is infinitely far away.
    history = np.concatenate([np.full(lags - len(before), np.inf, np.float32), before, values])
    found = {width: np.full(len(values), np.inf, np.float32) for width in widths}
    planes = _Planes(len(values), lags, widths)
    for begin in range(0, len(values), _TILE_ROWS):
        rows = planes.tile(begin)
        earlier = np.lib.stride_tricks.sliding_window_view(history[rows.start : rows.stop + lags - 1], lags)
        for width, plane in planes.double(values[rows], earlier, diagonal=False):
            # The columns have lags in descending order, to 1.
            _keep_nearest(plane[:, : max(lags - width + 1, 0)], found[width], begin, width)
    return found


def carry_forward(values: Float[np.ndarray, "rows"], last: float) -> Float[np.ndarray, "rows"]:
    """Replaces missing values by the last one before them, or by `last` if there is none."""
    known = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(1, len(values) + 1), 0))
    return np.append(last, values)[known]


class _Planes:
    """Memory for squared distances between rows and columns, in which they are doubled from width to width."""

    def __init__(self, rows: int, columns: int, widths: Sequence[int]) -> None:
        """Makes room for one tile.

        Args:
          rows: values whose windows are compared.
          columns: values, or lags, that they are compared with.
          widths: steps in a window.
        """
        self._rows, self._widths = rows, widths
        height = min(rows, _TILE_ROWS + max(widths) - 1)
        self._planes = [np.empty((height, columns), np.float32) for _ in range(2)]

    def tile(self, begin: int) -> slice:
        """Returns the rows of the windows that begin in a tile."""
        return slice(begin, min(begin + _TILE_ROWS + max(self._widths) - 1, self._rows))

    def double(
        self, values: Float[np.ndarray, "rows"], others: Float[np.ndarray, "..."], *, diagonal: bool
    ) -> Iterator[tuple[int, Float[np.ndarray, "_rows _columns"]]]:
        """Yields the squared distances of windows by their first row and column, for each width in turn.

        Args:
          values: values of the rows.
          others: values of the columns, or of each row and column.
          diagonal: whether a window goes through the columns as well: the next row is compared with the next column.
        """
        plane, spare = (plane[: len(values)] for plane in self._planes)
        np.subtract(values[:, None], others, out=plane)
        np.multiply(plane, plane, out=plane)
        width, (height, columns) = 1, plane.shape
        while height > 0 and columns > 0:
            if width in self._widths:
                yield width, plane[:height, :columns]
            if width == max(self._widths):
                return
            aside = width if diagonal else 0
            height, columns = max(height - width, 0), max(columns - aside, 0)
            halves = plane[:height, :columns], plane[width : width + height, aside : aside + columns]
            np.add(*halves, out=spare[:height, :columns])
            plane, spare = spare, plane
            width *= 2


def _keep_nearest(
    plane: Float[np.ndarray, "rows columns"], found: Float[np.ndarray, "all"], begin: int, width: int
) -> None:
    """Writes the smallest distance of each of a tile's windows to the row that the window ends with."""
    nearest = plane[:_TILE_ROWS].min(axis=1, initial=np.inf)
    found[begin + width - 1 :][: len(nearest)] = np.sqrt(nearest)


def _usual(nearest: Sequence[Float[np.ndarray, "_rows"]], width: int) -> Usual:
    """Summarizes the distances of a reference's windows to one another."""
    distances = np.concatenate([np.zeros(0), *nearest])
    distances = distances[np.isfinite(distances)]
    if not len(distances):
        return Usual(float("nan"), 0.0, 0.0)
    high = max(float(np.quantile(distances, QUANTILE)), least_usual(width))
    return Usual(high, float(log_distances(distances, width, high).sum()), float(len(distances)))


def least_usual(width: int) -> float:
    """Returns the floor of usual distances of windows of `width` steps."""
    return FLOOR * width**0.5


def log_distances(distances: Float[np.ndarray, "windows"], width: int, high: float) -> Float[np.ndarray, "windows"]:
    """Returns logarithms to base 2 of distances, limited to what may count in a mean of them.

    Args:
      distances: distances of windows of `width` steps.
      width: steps in a window.
      high: the usual distance, see `Usual`; NaN sets no upper limit.
    """
    return np.log2(np.fmin(np.maximum(distances, least_usual(width)), MOST_UNUSUAL * high))


def _consecutive(places: Int[np.ndarray, "steps"]) -> list[slice]:
    """Returns the stretches in which places follow one another."""
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(places) != 1) + 1, [len(places)]]).tolist()
    return [slice(begin, end) for begin, end in itertools.pairwise(bounds) if begin < end]


def _sampled(stretches: Sequence[slice]) -> list[slice]:
    """Cuts evenly spaced parts out of consecutive stretches, if these are too long together."""
    total = stretches[-1].stop if stretches else 0
    if total <= MAX_REFERENCE:
        return list(stretches)
    length = MAX_REFERENCE // SAMPLED_STRETCHES
    begins = np.linspace(0, total - length, SAMPLED_STRETCHES).astype(int).tolist()
    parts = [(max(begin, s.start), min(begin + length, s.stop)) for begin in begins for s in stretches]
    return [slice(*part) for part in parts if part[0] < part[1]]


def _centre_and_unit(values: Float[np.ndarray, "steps"], typical_width: float) -> tuple[float, float]:
    """Returns median and standard deviation."""
    known = _known(values)
    known = known[np.isfinite(known)]
    centre = float(np.median(known)) if len(known) else 0.0
    if len(known) and not is_constant(known.min(), known.max()):
        return centre, float(known.std())
    # The standard deviation of values spread evenly over such a range.
    return centre, typical_width / 12**0.5


def _standardize(values: Float[np.ndarray, "rows"], centre: float, unit: float) -> Float[np.ndarray, "rows"]:
    return np.clip((_known(values) - centre) / unit, -_FARTHEST, _FARTHEST)


def _known(values: Float[np.ndarray, "rows"]) -> Float[np.ndarray, "rows"]:
    """Returns values in float64, the largest clipped; those that are not finite become NaN."""
    values = values.astype(np.float64)
    return np.where(np.isfinite(values), np.clip(values, -LARGEST, LARGEST), np.nan)
