"""What is trained: the prompted language model, or a baseline through the same loop."""

import dataclasses

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from spear_jax import config as configs
from spear_jax import model, parallel
from spear_jax.backbones.backbone import Backbone
from spear_jax.backbones.pretrained import load_backbone
from spear_jax.baselines.fine_tuning import assemble_fine_tuning
from spear_jax.baselines.lstm import assemble_lstm
from spear_jax.detector import Detector
from spear_jax.errors import InputError

TUNED = ("fine_tuning", "lora")


def load(config: ConfigDict, mesh: Mesh) -> Backbone:
    """The backbone that a config names: on all devices, or in host memory where its own weights are to be trained.

    Raises:
      InputError: see `load_backbone`.
    """
    fields = config.backbone
    return load_backbone(
        fields.name,
        fields.dtype,
        int8=fields.int8,
        attention=fields.attention,
        remat=fields.remat,
        sharding=None if config.method in TUNED else parallel.replicated(mesh),
    )


def assemble(config: ConfigDict, window: int, mesh: Mesh) -> tuple[Backbone | None, model.Assembled]:
    """The model of a config's method, and the backbone that it has.

    Args:
      config: a whole config.
      window: steps in the longest window.
      mesh: the devices.

    Raises:
      InputError: the backbone cannot be loaded, or prompt and window do not fit into it.
    """
    if config.method.startswith("lstm"):
        return None, assemble_lstm(config)
    backbone = load(config, mesh)
    configs.check_length(config, window, backbone.max_positions)
    if config.method in TUNED:
        return backbone, assemble_fine_tuning(config, backbone)
    assembled = model.assemble(config, backbone)
    if config.train.init_from:
        assembled = _start_from(Detector.load(epath.Path(config.train.init_from)), assembled, config)
    return backbone, assembled


def _start_from(detector: Detector, assembled: model.Assembled, config: ConfigDict) -> model.Assembled:
    """The model with a trained detector's prompt, head and embeddings; which of them are trained on is the config's."""
    parts = {**assembled.trainable, **assembled.frozen}
    for name, part in detector.trainable.items():
        found, needed = jax.tree.map(np.shape, part), jax.tree.map(np.shape, parts.get(name, {}))
        if found != needed:
            raise InputError(
                f"config.train.init_from={config.train.init_from!r}: its {name} has the shapes {found}; this config"
                f" needs {needed or 'none'}"
            )

    def taken(tree: model.Params) -> model.Params:
        return {name: detector.trainable.get(name, part) for name, part in tree.items()}

    return dataclasses.replace(assembled, trainable=taken(assembled.trainable), frozen=taken(assembled.frozen))
