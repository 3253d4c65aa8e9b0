"""The TFDS builder of the NASA telemetry and the checksums of its files."""
