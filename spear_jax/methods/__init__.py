"""Registers what gives scores: SPEAR, baselines, zero-shot models."""

from spear_jax.methods.registry import TRAINED, assemble_method, load_method_backbone, score_trained, score_untrained
from spear_jax.methods.zero_shot import WORDINGS, prepare_questions
from spear_jax.methods.zero_shot_api import check_zero_shot_api

__all__ = [
    "TRAINED",
    "WORDINGS",
    "assemble_method",
    "check_zero_shot_api",
    "load_method_backbone",
    "prepare_questions",
    "score_trained",
    "score_untrained",
]
