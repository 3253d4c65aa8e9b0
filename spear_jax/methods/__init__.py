"""Implements the methods: SPEAR, baselines and zero-shot models, and fits them to data."""

from spear_jax.methods.fitting import fit, score_model
from spear_jax.methods.implementations import load_method_backbone

__all__ = ["fit", "load_method_backbone", "score_model"]
