"""Registers what gives scores: SPEAR, baselines, zero-shot models."""
