"""Finds runs of equal flags."""

import numpy as np
from jaxtyping import Bool, Int


def find_runs(flags: Bool[np.ndarray, "steps"]) -> tuple[Int[np.ndarray, "intervals"], Int[np.ndarray, "intervals"]]:
    """First step of each run of True, and the step after its last."""
    edges = np.diff(flags.astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
