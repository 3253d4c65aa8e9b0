"""TFDS builder of MIMIC-IV vital signs, from a local copy only."""
