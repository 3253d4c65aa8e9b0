"""Finds runs of equal steps."""

import numpy as np
from jaxtyping import Bool, Int, Shaped


def find_runs(flags: Bool[np.ndarray, "steps"]) -> tuple[Int[np.ndarray, "runs"], Int[np.ndarray, "runs"]]:
    """Returns the first step of each run of True, and the step after its last."""
    edges = np.diff(flags.astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def find_equal_runs(*columns: Shaped[np.ndarray, "rows"]) -> tuple[Int[np.ndarray, "runs"], Int[np.ndarray, "runs"]]:
    """Returns the first row of each run of rows that are equal in all columns, and the row after its last."""
    changes = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    edges = np.unique(np.concatenate([[0], np.flatnonzero(changes) + 1, [len(columns[0])]]))
    return edges[:-1], edges[1:]
