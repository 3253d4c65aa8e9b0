"""Reads NASA's SMAP and MSL telemetry."""

from spear_jax.data.sources.nasa.nasa_source import load_nasa, prepare_nasa

__all__ = ["load_nasa", "prepare_nasa"]
