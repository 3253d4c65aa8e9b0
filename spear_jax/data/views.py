"""Computes views: numbers per time step that know the past of their series.

A view of width w compares the windows of w steps; a step's number is the mean over the windows that hold it, and final
w - 1 steps later. A step whose value is missing has no number, but NaN; nor has any step if series or reference are too
short for a window. Windows hold the last known value in place of a missing one, or the reference's median before the
first.

No number depends on the unit of the series, and no label is read. The reference is known from the start: where it is
part of the series, its own steps are compared with later ones of it, but never with windows that they lie in.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from spear_jax.data.neighbours import (
    distances_to_nearest,
    interpolate_missing,
    relative_to_mean,
    sample_windows,
    step_means,
)
from spear_jax.data.own_past import (
    NO_PLACE,
    PAST_STEPS,
    WIDTHS,
    Reference,
    carry_forward,
    log_distances,
    nearest_before,
)
from spear_jax.data.quantizer import Quantizer
from spear_jax.errors import InputError

SPREAD_STEPS = 16  # steps of the local standard deviation

WHOLE_WINDOWS = 20_000  # windows that views of the whole series compare with, a random sample if there are more


@dataclasses.dataclass(frozen=True)
class View:
    """A number per time step.

    Attributes:
      kind: what it measures:
        'value': the scaled value itself, which `Scaler` computes and nothing here.
        'deviation': the distance from the reference's median, in its standard deviations.
        'spread': log2 of the local standard deviation, divided by the reference's.
        'reference': log2 of the distance to the nearest window of the reference that shares no step, divided by the .9
          quantile of such distances within the reference.
        'past': log2 of the distance to the nearest window of the reference, or of the `PAST_STEPS` before, that shares
          no step, divided by the geometric mean of such distances within the reference and since, in which one faulty
          value counts little. (By channel, mean AUROC on NASA is .868, and .863 with the arithmetic mean; 128 steps.)
        'whole': log2 of `nearest_neighbours`, the distance to the nearest window of the reference and of the whole
          series, later steps included, divided by its mean over the series: offline use only.
      width: steps in the windows.
      low: where the range begins that is quantized; no number is lower.
      high: where it ends; some numbers are higher.
    """

    kind: str
    width: int
    low: float
    high: float

    @property
    def whole(self) -> bool:
        """Returns whether the view reads the whole series, however far ahead."""
        return self.kind == "whole"

    @property
    def look_ahead(self) -> int:
        """Returns the steps after a step that its number depends on, for a view that does not read the whole series."""
        return self.width - 1


VIEWS: dict[str, View] = {
    "value": View("value", 1, 0.0, 1.0),
    "deviation": View("deviation", 1, 0.0, 8.0),
    "spread": View("spread", SPREAD_STEPS, -6.0, 6.0),
    **{f"reference_{width}": View("reference", width, -6.0, 8.0) for width in WIDTHS},
    **{f"past_{width}": View("past", width, -6.0, 8.0) for width in WIDTHS},
    **{f"whole_{width}": View("whole", width, -6.0, 8.0) for width in WIDTHS},
}


def look_ahead(names: Sequence[str]) -> int | None:
    """Returns the steps after a step that its numbers depend on; None if a view reads the whole series.

    Raises:
      InputError: there is no such view.
    """
    views = _find(names)
    return None if any(view.whole for view in views) else max((view.look_ahead for view in views), default=0)


class ViewStream:
    """Computes views of the rows of a series as they arrive, in memory that does not grow.

    The numbers are those of all rows at once, however the rows are divided.
    """

    def __init__(self, names: Sequence[str], reference: Reference) -> None:
        """Starts before the first row.

        Args:
          names: names in `VIEWS`, except 'value' and those of kind 'whole'.
          reference: the reference stretch of the series.

        Raises:
          InputError: there is no such view, or it reads the whole series.
        """
        self._views = dict(zip(names, _find(names), strict=True))
        for name, view in self._views.items():
            if view.whole:
                raise InputError(f"view {name!r} reads the whole series, which a stream never has; use 'past' views")
        self.look_ahead = look_ahead(names) or 0
        self._reference = reference
        self._seen = self._emitted = 0
        self._last = 0.0  # the last known value
        self._history = np.zeros(0)  # standardized values that later windows read
        self._missing = np.zeros(0, bool)  # of the rows that were not returned yet, as below
        # By view, its number for the window that ends with each row; NaN if there is none.
        self._windows = {name: np.zeros(0) for name in self._views}
        self._usual = {width: (usual.logs, usual.windows) for width, usual in reference.usual.items()}

    def append(
        self, values: Float[np.ndarray, "rows"], places: Int[np.ndarray, "rows"] | None = None
    ) -> Float[np.ndarray, "final views"]:
        """Adds rows.

        Args:
          values: values in the series' own unit; NaN where missing.
          places: the place of each row in the recorded series, which the reference's places refer to; the number of the
            row, if it is not given.

        Returns:
          The numbers of the rows, of this and earlier calls, that are now final: all but the last `look_ahead`.
        """
        if places is None:
            places = self._seen + np.arange(len(values))
        standardized = self._reference.standardize(values)
        filled = carry_forward(standardized, self._last)
        if len(filled):
            self._last = float(filled[-1])
        context = min(max(view.width for view in self._views.values()) - 1 if self._views else 0, len(self._history))
        rows = np.concatenate([self._history, filled])
        first = len(self._history) - context
        for name, numbers in self._compare(rows, first, places).items():
            self._windows[name] = np.concatenate([self._windows[name], numbers])
        self._missing = np.concatenate([self._missing, np.isnan(standardized)])
        self._history = rows[max(len(rows) - PAST_STEPS - max(WIDTHS) + 1, 0) :].copy()
        self._seen += len(values)
        numbers = self._numbers(max(self._seen - self.look_ahead, self._emitted))
        self._drop(len(numbers))
        return numbers

    def pending(self) -> Float[np.ndarray, "rows views"]:
        """Returns the numbers that the rows which are not final would have if the series ended here."""
        return self._numbers(self._seen)

    def finish(self) -> Float[np.ndarray, "rows views"]:
        """Returns the numbers of the remaining rows."""
        numbers = self.pending()
        self._drop(len(numbers))
        return numbers

    def _compare(
        self, rows: Float[np.ndarray, "rows"], first: int, places: Int[np.ndarray, "new"]
    ) -> dict[str, Float[np.ndarray, "new"]]:
        """Returns each view's number for the windows that end with the last rows.

        Args:
          rows: standardized values without gaps.
          first: the row that the first of the windows begins with, or 0.
          places: the places of the last rows.
        """
        read, new = rows[first:].astype(np.float32), len(places)
        # Of windows that end before the new rows nothing is kept.
        ends = np.concatenate([NO_PLACE + np.arange(new - len(read), 0), places])
        widths = {kind: [v.width for v in self._views.values() if v.kind == kind] for kind in ("reference", "past")}
        both = sorted({*widths["reference"], *widths["past"]})
        reference = self._reference.nearest(read, ends, both) if both else {}
        past = nearest_before(read, rows[:first].astype(np.float32), widths["past"]) if widths["past"] else {}
        found = {}
        for name, view in self._views.items():
            if view.kind == "deviation":
                found[name] = np.abs(rows[len(rows) - new :])
            elif view.kind == "spread":
                found[name] = _local_spread(rows[first:], view.width)[len(rows) - first - new :]
            elif view.kind == "reference":
                high = self._reference.usual[view.width].high
                found[name] = _finite(reference[view.width][len(read) - new :]) / high
            else:
                nearest = np.minimum(reference[view.width], past[view.width])[len(read) - new :]
                found[name] = self._relative_to_past(_finite(nearest), view.width)
        return found

    def _relative_to_past(self, distances: Float[np.ndarray, "rows"], width: int) -> Float[np.ndarray, "rows"]:
        """Divides distances by their geometric mean so far, which begins with the distances within the reference."""
        logs, windows = self._usual[width]
        known = np.isfinite(distances)
        terms = log_distances(distances, width, self._reference.usual[width].high)
        sums = np.cumsum(np.append(logs, np.where(known, terms, 0.0)))
        counts = np.cumsum(np.append(windows, known))
        self._usual[width] = float(sums[-1]), float(counts[-1])
        return distances / 2 ** (sums[1:] / np.maximum(counts[1:], 1))

    def _numbers(self, end: int) -> Float[np.ndarray, "rows views"]:
        """Returns the numbers of the rows before `end` that were not returned yet, from the windows that have ended."""
        rows = end - self._emitted
        numbers = np.empty((rows, len(self._views)))
        for column, (name, view) in zip(numbers.T, self._views.items(), strict=True):
            windows = np.append(self._windows[name], np.full(view.width - 1, np.nan))[: rows + view.width - 1]
            column[:] = _means(windows, view)
        numbers[self._missing[:rows]] = np.nan
        return numbers

    def _drop(self, rows: int) -> None:
        self._missing = self._missing[rows:].copy()
        self._windows = {name: windows[rows:].copy() for name, windows in self._windows.items()}
        self._emitted += rows


def view_numbers(
    names: Sequence[str],
    values: Float[np.ndarray, "time"],
    reference: Reference,
    places: Int[np.ndarray, "time"] | None = None,
) -> Float[np.ndarray, "time views"]:
    """Computes views of a series, or a stretch of one, as a whole.

    Args:
      names: names in `VIEWS`, except 'value'.
      values: values in the series' own unit; NaN where missing.
      reference: its reference stretch.
      places: as for `ViewStream.append`.

    Raises:
      InputError: there is no such view.
    """
    views = _find(names)
    if places is None:
        places = np.arange(len(values))
    stream = ViewStream([name for name, view in zip(names, views, strict=True) if not view.whole], reference)
    from_past = iter(np.concatenate([stream.append(values, places), stream.finish()]).T)
    columns = [_whole(view, values, reference, places) if view.whole else next(from_past) for view in views]
    return np.stack(columns, axis=1) if columns else np.zeros((len(values), 0))


def quantize_views(
    names: Sequence[str], numbers: Float[np.ndarray, "... views"], bins: int
) -> Int[np.ndarray, "... views"]:
    """Returns the bins of views, each quantized between its own limits; NaN gets bin N, as for values."""
    limits = np.array([(view.low, view.high) for view in _find(names)]).reshape(-1, 2)
    return Quantizer(bins)((numbers - limits[:, 0]) / (limits[:, 1] - limits[:, 0]))


def largest_distance(names: Sequence[str], numbers: Float[np.ndarray, "*rows views"]) -> Float[np.ndarray, "*rows"]:
    """Returns the distance to what came before at the width at which it is largest; 0, a usual one, without such views.

    At each width it is the mean over the kinds of views, of which a missing one counts as 0. Short anomalies stand out
    at short widths and long ones at long widths, where a mean over the widths would hide both.

    Args:
      names: names in `VIEWS`, except 'value'.
      numbers: the numbers of these views.
    """
    columns: dict[int, list[int]] = {}
    for i, view in enumerate(_find(names)):
        if view.kind in ("reference", "past", "whole"):
            columns.setdefault(view.width, []).append(i)
    if not columns:
        return np.zeros(numbers.shape[:-1])
    known = np.nan_to_num(numbers)
    return np.max([known[..., same].mean(axis=-1) for same in columns.values()], axis=0)


def _whole(
    view: View, values: Float[np.ndarray, "time"], reference: Reference, places: Int[np.ndarray, "time"]
) -> Float[np.ndarray, "time"]:
    standardized = reference.standardize(values)
    own, past = interpolate_missing(standardized), reference.outside(places)
    if len(own) < view.width or (len(own) < 2 * view.width and all(len(part) < view.width for part in past)):
        return np.full(len(values), np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(own, view.width)
    sample = sample_windows(past, windows, WHOLE_WINDOWS, seed=0)
    distances = relative_to_mean(distances_to_nearest(sample, windows, view.width - 1))
    return np.where(np.isnan(standardized), np.nan, _log2(step_means(distances, view.width), view))


def _find(names: Sequence[str]) -> list[View]:
    """Returns the views of these names."""
    computed: Mapping[str, View] = {name: view for name, view in VIEWS.items() if view.kind != "value"}
    for name in names:
        if name not in computed:
            raise InputError(f"view {name!r}: must be one of {', '.join(computed)}")
    return [computed[name] for name in names]


def _means(windows: Float[np.ndarray, "windows"], view: View) -> Float[np.ndarray, "steps"]:
    """Returns each step's number from the windows that hold it: the mean, in the view's unit."""
    known = np.isfinite(windows)
    counts = _sums(known.astype(float), view.width)
    means = _sums(np.where(known, windows, 0.0), view.width) / np.where(counts > 0, counts, np.nan)
    return means if view.kind == "deviation" else _log2(means, view)


def _sums(numbers: Float[np.ndarray, "numbers"], width: int) -> Float[np.ndarray, "sums"]:
    """Returns the sums of `width` consecutive numbers, a power of two, added in an order that `width` alone decides."""
    added = 1
    while added < width:
        numbers = numbers[:-added] + numbers[added:]
        added *= 2
    return numbers


def _log2(ratios: Float[np.ndarray, "steps"], view: View) -> Float[np.ndarray, "steps"]:
    return np.log2(np.maximum(ratios, 2.0**view.low))


def _local_spread(rows: Float[np.ndarray, "rows"], width: int) -> Float[np.ndarray, "rows"]:
    """Returns the standard deviation of the window that ends with each row; NaN if there is none."""
    if len(rows) < width:
        return np.full(len(rows), np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(rows, width)
    return np.append(np.full(width - 1, np.nan), windows.std(axis=1))


def _finite(distances: Float[np.ndarray, "rows"]) -> Float[np.ndarray, "rows"]:
    """Returns distances in float64, NaN if infinite."""
    return np.where(np.isfinite(distances), distances, np.nan).astype(np.float64)
