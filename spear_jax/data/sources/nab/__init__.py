"""Reads the Numenta Anomaly Benchmark."""
