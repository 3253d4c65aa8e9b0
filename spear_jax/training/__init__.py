"""Trains prompt and head."""

from spear_jax.training.checkpoints import read_trainable
from spear_jax.training.loop import StoppedError, TrainingDivergedError, fit
from spear_jax.training.signals import StopSignal
from spear_jax.training.step import make_optimizer, make_train_call

__all__ = [
    "StopSignal",
    "StoppedError",
    "TrainingDivergedError",
    "fit",
    "make_optimizer",
    "make_train_call",
    "read_trainable",
]
