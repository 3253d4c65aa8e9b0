"""Finds the implementation of a method.

`config.methods` declares each method and names the function in this package that starts it. That function loads
everything scoring needs, rejects configs that cannot work, and returns either a `Trainable` or a `ScoreFunction`.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import TypeAlias, cast

from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.backbones import Backbone, load_backbone
from spear_jax.config import METHODS
from spear_jax.data import Dataset, StepScores
from spear_jax.evaluation import RunRecord
from spear_jax.model import PlacedModel, model_warnings

ScoreFunction: TypeAlias = Callable[[], dict[str, StepScores]]
"""Fits and scores outside the training loop; returns one score per time step, by split."""


@dataclasses.dataclass(frozen=True)
class Trainable:
    """A model to be trained in the loop, and its backbone, if it has one."""

    model: PlacedModel
    backbone: Backbone | None = None


Start: TypeAlias = Callable[[ConfigDict, Dataset, RunRecord], Trainable | ScoreFunction]
"""Starts a method on data to train on and to score; records the backbone, and warnings and notes about the method."""


def find_implementation(method: str) -> Start:
    """Imports the function that starts a method."""
    module, _, function = METHODS[method].implementation.partition(".")
    return cast(Start, getattr(importlib.import_module(f"spear_jax.methods.{module}"), function))


def load_method_backbone(config: ConfigDict) -> Backbone:
    """Loads the backbone that a config names: onto all devices, or into host memory if its own weights are trained."""
    fields = config.backbone
    frozen = METHODS[config.method].backbone == "frozen"
    return load_backbone(
        fields.name,
        fields.dtype,
        int8=fields.int8,
        attention=fields.attention,
        remat=fields.remat,
        mesh=parallel.make_mesh(fields.shards) if frozen else None,
    )


def load_recorded_backbone(config: ConfigDict, record: RunRecord) -> Backbone:
    """Loads the backbone that a config names, and records its description and warnings about it."""
    backbone = load_method_backbone(config)
    record.backbone = backbone.description()
    record.warnings += model_warnings(config, backbone)
    return backbone
