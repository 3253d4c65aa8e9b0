"""Prepares SPEAR for training: a soft prompt and a head on a frozen backbone."""

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from spear_jax.backbones import Backbone
from spear_jax.config import check_length
from spear_jax.data import Dataset
from spear_jax.detector import Detector
from spear_jax.errors import InputError
from spear_jax.evaluation import RunRecord
from spear_jax.methods.implementations import Trainable, load_recorded_backbone
from spear_jax.model import PlacedModel, assemble_model


def start_spear(config: ConfigDict, dataset: Dataset, record: RunRecord) -> Trainable:
    """Assembles the model, with a trained detector's parameters if `train.init_from` names one.

    Raises:
      InputError: the backbone or the detector cannot be used, or prompt and window do not fit.
    """
    backbone = load_recorded_backbone(config, record)
    check_length(config, dataset.window, backbone.max_positions)
    model = assemble_model(config, backbone)
    if config.train.init_from:
        model = _with_trained_parts(config, model, backbone, record)
    return Trainable(model, backbone)


def _with_trained_parts(config: ConfigDict, model: PlacedModel, backbone: Backbone, record: RunRecord) -> PlacedModel:
    """Returns the model with a detector's prompt, head and trained embeddings; the config decides what is trained.

    A head that is trained alone starts from scratch, and embeddings that the detector did not train come from the
    config.
    """
    field = f"config.train.init_from={config.train.init_from!r}"
    try:
        detector = Detector.load(epath.Path(config.train.init_from))
    except InputError as error:
        raise InputError(f"{field}: {str(error).removeprefix('--detector=')}") from error
    if detector.backbone["sha256"] != backbone.sha256:
        raise InputError(
            f"{field}: was trained with {detector.backbone['name']} of sha256 {detector.backbone['sha256']}; this"
            f" config's {backbone.name} has {backbone.sha256}"
        )
    own_parts = {**model.trainable, **model.frozen}
    not_taken = {"head"} if config.train.parts == "head" else set()
    not_taken |= {"embedding"} if detector.config.embedding.kind != "trained" else set()
    parts = {name: part for name, part in detector.trainable.items() if name not in not_taken}
    for name, part in parts.items():
        shapes, needed = jax.tree.map(np.shape, part), jax.tree.map(np.shape, own_parts.get(name, {}))
        if shapes != needed:
            raise InputError(f"{field}: its {name} has the shapes {shapes}; this config needs {needed or 'none'}")
    record.training["trained_on"] = detector.trained_on
    return model.with_parts(parts)
