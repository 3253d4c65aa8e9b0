"""Scaled values to bins."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Quantizer:
    """Maps a value to the number of its bin.

    Attributes:
      bins: N, the number of bins for values.
      edges: the N-1 inner edges of quantile bins; empty for equal-width bins.
    """

    bins: int
    edges: Float[np.ndarray, "edges"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))

    @classmethod
    def fit(cls, kind: str, bins: int, scaled: Float[np.ndarray, "..."]) -> "Quantizer":
        """Fits the edges of 'quantile' bins on scaled training values; 'equal_width' has nothing to fit."""
        if kind == "equal_width":
            return cls(bins)
        finite = scaled[np.isfinite(scaled)]
        inner = np.arange(1, bins) / bins
        return cls(bins, np.quantile(finite, inner).astype(np.float32) if len(finite) else inner)

    def __call__(self, scaled: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """Bins of scaled values: q = min(floor(x N), N-1), clipped outside [0, 1]; NaN gets bin N, its own."""
        if len(self.edges):
            bins = np.searchsorted(self.edges, scaled, side="right").astype(np.int32)
        else:
            # A value of 258 on a range of 1 must clip before it becomes an integer. A copy per step costs more than the
            # arithmetic, hence in place.
            scaled = np.clip(scaled, 0, 1)
            scaled *= self.bins
            with np.errstate(invalid="ignore"):  # NaN, which has no integer, is taken care of below
                bins = scaled.astype(np.int32)  # cuts off, which for positive numbers is floor
        np.minimum(bins, self.bins - 1, out=bins)
        missing = np.isnan(scaled)
        bins[missing] = self.bins
        return bins
