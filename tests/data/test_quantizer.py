"""Bins: the published formula, clipping, and a bin for NaN."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.data.quantizer import Quantizer


@settings(deadline=None)
@given(x=st.floats(0, 1, width=32), bins=st.integers(2, 1000))
def test_equal_width_bins_follow_the_formula(x, bins):
    expected = min(int(np.floor(np.float32(x) * bins)), bins - 1)
    assert Quantizer.fit("equal_width", bins, np.zeros(0))(np.float32([x]))[0] == expected


def test_values_outside_the_range_clip_and_nan_gets_a_bin_of_its_own():
    bins = Quantizer(10)(np.float32([-5, 0, 0.999, 1, 1e30, -np.inf, np.inf, np.nan]))
    assert bins.tolist() == [0, 0, 9, 9, 9, 0, 9, 10]
    assert bins.dtype == np.int32


def test_quantile_bins_hold_equal_shares():
    values = np.random.default_rng(0).exponential(size=10_000).astype(np.float32)
    counts = np.bincount(Quantizer.fit("quantile", 20, values)(values))
    assert len(counts) == 20
    assert counts.min() > 450
    assert counts.max() < 550


def test_quantile_bins_keep_their_order_and_take_missing_values():
    quantizer = Quantizer.fit("quantile", 4, np.float32([1, 2, 3, 4, np.nan]))
    bins = quantizer(np.float32([-9, 1.5, 2.4, 3.2, 99, np.nan]))
    assert bins.tolist() == sorted(bins.tolist())
    assert bins[-2:].tolist() == [3, 4]
