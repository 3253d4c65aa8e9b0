"""Reads the Numenta Anomaly Benchmark."""

from spear_jax.data.sources.nab.nab_source import load_nab, prepare_nab

__all__ = ["load_nab", "prepare_nab"]
