"""Keeps track of training: counters, sums and the best evaluation, saved with every checkpoint."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from spear_jax.data import TrainingCall, order_digest
from spear_jax.errors import InputError
from spear_jax.training.step import StepMetrics


@dataclasses.dataclass
class Progress:
    """The progress of training, stored as JSON in each checkpoint.

    Attributes:
      step: optimizer steps taken.
      epoch: epochs finished.
      step_in_epoch: steps taken in the current epoch.
      order: digest of the order of the current epoch.
      sums: partial sums of the current epoch.
      best: the best evaluation so far: metric, value, epoch, step; empty before the first.
      stale_epochs: evaluations since the best one.
      seconds: time spent in training, over all starts.
      cpu_seconds: CPU time on all cores, likewise.
      log: digest of metrics.jsonl.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    order: str = ""
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    best: dict[str, Any] = dataclasses.field(default_factory=dict)
    stale_epochs: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    log: str = ""

    def begin_epoch(self, calls: Sequence[TrainingCall]) -> None:
        """Records the order of a new epoch, or checks that a resumed one continues in the order it began with.

        Raises:
          InputError: the order differs, so the data have changed.
        """
        order = order_digest(calls)
        if self.order not in ("", order):
            raise InputError(
                f"epoch {self.epoch + 1} began with other windows than the data give now; the data of this run have"
                " changed: use a new --workdir"
            )
        self.order = order

    def add(self, call: TrainingCall, metrics: StepMetrics) -> None:
        """Adds the optimizer steps of a call to the counters and to the sums of the epoch."""
        steps = len(metrics.loss)
        self.step += steps
        self.step_in_epoch = call.end
        for name, value in {
            "loss": (metrics.loss * metrics.time_steps).sum(),
            "steps": metrics.time_steps.sum(),
            "gradient": metrics.gradient_norm.sum(),
            "update": (metrics.update_norm / np.maximum(metrics.prompt_norm, 1e-12)).sum(),
            "count": steps,
        }.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def end_epoch(self, evaluation: dict[str, float | None], metric: str) -> dict[str, Any]:
        """Ends an epoch with its evaluation on the validation split; returns its line for metrics.jsonl."""
        best, sums = self.record(evaluation, metric), self.sums
        self.epoch += 1
        self.step_in_epoch, self.sums, self.order = 0, {}, ""
        return {
            "kind": "evaluation",
            "step": self.step,
            "epoch": self.epoch,
            "loss": sums["loss"] / max(sums["steps"], 1),
            **evaluation,
            "prompt_gradient": sums["gradient"] / sums["count"],
            "prompt_update": sums["update"] / sums["count"],
            "best": best,
        }

    def record(self, evaluation: dict[str, float | None], metric: str) -> bool:
        """Records an evaluation; returns whether it is the best so far.

        Args:
          evaluation: from `evaluate_validation`.
          metric: 'aupr', 'auroc' or 'loss'; the loss decides if a ranking metric is undefined.
        """
        name = f"validation_{metric}"
        value = evaluation[name]
        if value is None:
            name, value = "validation_loss", evaluation["validation_loss"]
        sign = -1.0 if name == "validation_loss" else 1.0
        assert value is not None
        if self.best and sign * value <= sign * self.best["value"]:
            self.stale_epochs += 1
            return False
        self.best = {"metric": name, "value": value, "epoch": self.epoch + 1, "step": self.step}
        self.stale_epochs = 0
        return True

    def finished(self, train: ConfigDict) -> bool:
        """Returns whether the epochs are done or early stopping applies."""
        return self.epoch >= train.epochs or self.stale_epochs >= train.early_stopping.patience


class Stopwatch:
    """Adds the time that passes to `Progress.seconds` and `Progress.cpu_seconds`."""

    def __init__(self, progress: Progress) -> None:
        """Starts now."""
        self._progress = progress
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def count(self) -> None:
        """Adds the time since the last count."""
        wall, cpu = time.monotonic(), time.process_time()
        self._progress.seconds += wall - self._wall
        self._progress.cpu_seconds += cpu - self._cpu
        self._wall, self._cpu = wall, cpu
