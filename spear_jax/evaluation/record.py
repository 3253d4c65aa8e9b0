"""Collects what a run reports about itself besides its metrics."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

from spear_jax.data import Dataset


@dataclasses.dataclass
class RunRecord:
    """Everything a run reports besides its metrics; written to results.json.

    Attributes:
      command: the command line that reproduces the results.
      warnings: shown with every output.
      notes: sections about labels, lengths and prompts, by name.
      backbone: see `Backbone.description`; empty for a method without one.
      model: the trained parts and the number of parameters; empty for a method that runs no model itself.
      training: how training went, or which detector was applied.
      seconds: wall time by stage.
      throughput: windows per second by stage.
      memory: bytes by use.
      earlier_cpu_seconds: CPU seconds used by earlier starts of a resumed run.
    """

    command: str = ""
    warnings: list[str] = dataclasses.field(default_factory=list)
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)
    backbone: dict[str, Any] = dataclasses.field(default_factory=dict)
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    throughput: dict[str, float] = dataclasses.field(default_factory=dict)
    memory: dict[str, int] = dataclasses.field(default_factory=dict)
    earlier_cpu_seconds: float = 0.0

    def add_dataset(self, dataset: Dataset) -> None:
        """Adds the warnings and notes about a data set."""
        self.warnings += dataset.warnings
        self.notes |= dataset.notes

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the wall time spent inside to a stage's seconds."""
        began = time.monotonic()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - began
