"""Detectors that stand beside SPEAR in every table."""
