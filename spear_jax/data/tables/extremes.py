"""Finds values, such as -9999, that lie far outside of the others."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from spear_jax.data.series import Series
from spear_jax.data.tables.remarks import gathered

PARTS = 100  # of the range, of equal width, as by default the bins
_MOST = 0.95  # of the values
_FEW_PARTS = 5
_NARROWER = 10  # times, without the extreme values
_EXTREMES = 3  # different values that may stretch a range
_SENTINELS = (999.0, 9999.0, 99999.0, 32767.0, 32768.0, 65535.0, 2147483647.0, 2147483648.0, 4294967295.0)
_JUDGED = 20  # fewer values say little


def fullest_part(values: Float[np.ndarray, "rows"]) -> float:
    """Returns the share of values in the fullest of `PARTS` equal parts of their range; NaN without values."""
    counts = _count_parts(values[np.isfinite(values)])
    return float(counts.max() / counts.sum()) if counts.sum() else np.nan


def find_extremes(values: Float[np.ndarray, "rows"]) -> list[float]:
    """Returns values, such as -9999, that stretch the range until most others share few parts of it.

    A few of them, without which the range is much narrower and takes more than two values; or the numbers that programs
    write for missing values, if they lie far outside.
    """
    finite = np.sort(values[np.isfinite(values)])
    if len(finite) < _JUDGED or finite[0] == finite[-1]:
        return []
    parts = np.sort(_count_parts(finite))[::-1]
    crowded = int(np.searchsorted(np.cumsum(parts), _MOST * len(finite))) + 1 <= _FEW_PARTS
    median, rest = finite[len(finite) // 2], finite
    extremes: list[float] = []
    for _ in range(_EXTREMES):
        extreme = rest[0] if median - rest[0] > rest[-1] - median else rest[-1]
        extremes.append(float(extreme))
        rest = rest[rest != extreme]
        if 2 * len(rest) <= len(finite) or len(np.unique(rest[:: max(1, len(rest) // 1000)])) <= 2:
            return []
        width, narrow = np.ptp(finite / 2), np.ptp(rest / 2)  # halves, whose range cannot overflow
        if crowded and width > _NARROWER * narrow:
            return sorted(extremes)
        if width > 3 * narrow and all(abs(value) in _SENTINELS for value in extremes):
            return sorted(extremes)
    return []


def remark_on_extremes(recorded: Sequence[Series]) -> list[str]:
    """Returns sentences about series whose range is stretched by a few values."""
    remarks: dict[str, list[str]] = {}
    for series in recorded:
        extremes = find_extremes(series.values)
        if not extremes:
            continue
        counts = [f"{value:g} ({int((series.values == value).sum())})" for value in extremes]
        share = fullest_part(series.values)
        remark = (
            f"{share:.1%} of values lie in one of {PARTS} equal parts of the range, which"
            f" {' and '.join(counts)} stretch; if they stand for missing values:"
            f" data.missing_values={','.join(map(_text, extremes))}"
        )
        remarks.setdefault(remark, []).append(f"series {series.name!r}")
    return gathered(remarks, "series")


def _text(value: float) -> str:
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _count_parts(finite: Float[np.ndarray, "values"]) -> np.ndarray:
    if not len(finite):
        return np.zeros(PARTS, int)
    low, width = finite.min() / 2, np.ptp(finite / 2)
    places = (finite / 2 - low) / width if width else np.zeros(len(finite))
    return np.bincount(np.minimum((places * PARTS).astype(int), PARTS - 1), minlength=PARTS)
