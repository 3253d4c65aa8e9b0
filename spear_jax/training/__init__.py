"""Trains models: steps, the loop, progress, checkpoints, log and signals."""

from spear_jax.training.checkpoints import read_trainable
from spear_jax.training.log import read_log
from spear_jax.training.loop import TrainingDivergedError, train_model
from spear_jax.training.signals import StopSignal
from spear_jax.training.step import make_optimizer, make_train_call

__all__ = [
    "StopSignal",
    "TrainingDivergedError",
    "make_optimizer",
    "make_train_call",
    "read_log",
    "read_trainable",
    "train_model",
]
