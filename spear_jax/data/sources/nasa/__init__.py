"""Reads NASA's SMAP and MSL telemetry."""

from spear_jax.data.sources.nasa.nasa_source import NASA, load_nasa

__all__ = ["NASA", "load_nasa"]
