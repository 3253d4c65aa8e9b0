"""TFDS builder of the Numenta Anomaly Benchmark."""
