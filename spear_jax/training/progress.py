"""Keeps where training stands, beside the arrays."""

import dataclasses
from typing import Any


@dataclasses.dataclass
class Progress:
    """Where training stands, beside the arrays.

    Attributes:
      step: optimizer steps done.
      epoch: epochs finished.
      step_in_epoch: steps done of the epoch under way.
      seed: of the data's order, which together with `epoch` is all of the run's random state.
      order: fingerprint of the order of the epoch under way.
      sums: partial sums of the epoch under way.
      best: the best evaluation so far: metric, value, epoch, step; empty before the first.
      stale_epochs: evaluations since the best one.
      seconds: time spent in training, over all starts.
      cpu_seconds: of all cores, likewise.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    seed: int = 0
    order: str = ""
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    best: dict[str, Any] = dataclasses.field(default_factory=dict)
    stale_epochs: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
