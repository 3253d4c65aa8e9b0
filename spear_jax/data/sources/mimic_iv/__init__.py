"""Reads MIMIC-IV vital signs."""

from spear_jax.data.sources.mimic_iv.mimic_iv_parser import is_demo
from spear_jax.data.sources.mimic_iv.mimic_iv_source import load_mimic_iv, mimic_iv_copy, prepare_mimic_iv

__all__ = ["is_demo", "load_mimic_iv", "mimic_iv_copy", "prepare_mimic_iv"]
