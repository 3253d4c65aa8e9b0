"""Quantizes scaled values into bins."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Quantizer:
    """Maps a value to the number of its bin.

    Attributes:
      bins: N, the number of bins for values.
      edges: the N-1 inner edges of quantile bins; empty for bins of equal width.
    """

    bins: int
    edges: Float[np.ndarray, "edges"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))

    @classmethod
    def fit(cls, kind: str, bins: int, scaled: Float[np.ndarray, "..."]) -> "Quantizer":
        """Fits the edges of 'quantile' bins to scaled training values; 'equal_width' bins need no fit."""
        if kind == "equal_width":
            return cls(bins)
        finite = scaled[np.isfinite(scaled)]
        inner = np.arange(1, bins) / bins
        return cls(bins, np.quantile(finite, inner).astype(np.float32) if len(finite) else inner)

    def __call__(self, scaled: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """Returns the bins of scaled values: q = min(floor(x N), N-1), clipped outside [0, 1]; NaN gets bin N."""
        if len(self.edges):
            bins = np.searchsorted(self.edges, scaled, side="right").astype(np.int32)
        else:
            # Clipped before the conversion, since an outlier may overflow int32. In place, since a copy costs more than
            # the arithmetic.
            scaled = np.clip(scaled, 0, 1)
            scaled *= self.bins
            with np.errstate(invalid="ignore"):  # NaN converts to an arbitrary integer, replaced below
                bins = scaled.astype(np.int32)  # truncates, which is floor for positive numbers
        np.minimum(bins, self.bins - 1, out=bins)
        missing = np.isnan(scaled)
        bins[missing] = self.bins
        return bins
