"""Reads NASA's SMAP and MSL telemetry."""
