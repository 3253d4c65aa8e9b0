"""Reads the Numenta Anomaly Benchmark."""

from spear_jax.data.sources.nab.nab_source import NAB, load_nab

__all__ = ["NAB", "load_nab"]
