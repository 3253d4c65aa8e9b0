"""Leaves out columns that give the answer away: their content is that of the labels."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from spear_jax.data.series import Series
from spear_jax.data.tables.columns import Columns
from spear_jax.data.tables.remarks import gathered
from spear_jax.errors import InputError

_SAME = 0.9  # of the correlation of a column of two values with the labels


def leave_out_answers(recorded: Sequence[Series], named: Columns) -> tuple[list[Series], list[str]]:
    """Leaves out series of two values that go with the labels, or against them, in nearly all rows.

    Returns:
      The other series, and remarks; all series if the user named the columns of values.

    Raises:
      InputError: no other series is left in a table.
    """
    if named.values:
        return list(recorded), []
    are = [series.labelled and _is_answer(series.values, series.labels) for series in recorded]
    kept = [series for series, answer in zip(recorded, are, strict=True) if not answer]
    answers = [series for series, answer in zip(recorded, are, strict=True) if answer]
    tables = {series.group for series in kept}
    for series in answers:
        if series.group not in tables:
            raise InputError(
                f"series {series.name!r} has two values that are those of the labels, and no other column has values;"
                " data.value_columns can name it"
            )
    remarks = {"left out, since its values are those of the labels": [f"series {item.name!r}" for item in answers]}
    return kept, gathered(remarks if answers else {}, "series")


def _is_answer(values: Float[np.ndarray, "rows"], labels: Bool[np.ndarray, "rows"]) -> bool:
    """Returns whether a series of two values is correlated with the labels in nearly all rows."""
    present = np.isfinite(values)
    values, labels = values[present], labels[present]
    if labels.all() or not labels.any():
        return False
    low, high = values.min(), values.max()
    if low == high or not np.isin(values, (low, high)).all():
        return False
    return bool(abs(np.corrcoef(values == high, labels)[0, 1]) >= _SAME)
