"""Reads MIMIC-IV vital signs."""
