"""Fine-tunes the backbone, fully or with LoRA, as an upper control: same backbone, data and head, but no prompt."""

import dataclasses

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from spear_jax.backbones import Backbone, param_shapes
from spear_jax.config import check_length
from spear_jax.data import Dataset
from spear_jax.evaluation import RunRecord
from spear_jax.methods.implementations import Trainable, load_recorded_backbone
from spear_jax.model import Params, PlacedModel, assemble_model

LORA = ("lora_a", "lora_b")


def start_fine_tuning(config: ConfigDict, dataset: Dataset, record: RunRecord) -> Trainable:
    """Loads the backbone and assembles the model, see `assemble_fine_tuning`.

    Raises:
      InputError: the backbone cannot be used, or the window does not fit.
    """
    backbone = load_recorded_backbone(config, record)
    check_length(config, dataset.window, backbone.max_positions)
    return Trainable(assemble_fine_tuning(config, backbone), backbone)


def assemble_fine_tuning(config: ConfigDict, backbone: Backbone) -> PlacedModel:
    """Assembles the model without a prompt around a backbone in host memory, with trainable weights in it.

    Method 'fine_tuning' trains all weights, 'lora' low-rank additions to queries and values.

    Returns:
      The model, whose trainable parts are {'head', 'backbone'}; bin embeddings are treated as in `assemble_model`.
    """
    bare = config.copy_and_resolve_references()
    bare.prompt.length = 0
    if config.method == "fine_tuning":
        model = assemble_model(bare, dataclasses.replace(backbone, params={}))
        trained = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), backbone.params)
        frozen = {name: part for name, part in model.frozen.items() if name != "backbone"}
        trainable = {**model.trainable, "backbone": trained}
        return PlacedModel.place(config, model.module, trainable, frozen, model.embedding)
    model = assemble_model(bare, backbone)
    module = model.module.clone(backbone=model.module.backbone.clone(lora_rank=config.lora.rank))
    trainable = {**model.trainable, "backbone": _additions(config, module.backbone, backbone)}
    return PlacedModel.place(config, module, trainable, model.frozen, model.embedding)


def _additions(config: ConfigDict, module: object, backbone: Backbone) -> Params:
    """Returns LoRA's initial matrices: A normal, B zero."""
    shapes = traverse_util.flatten_dict(param_shapes(module, backbone.hidden_size))  # type: ignore[arg-type]
    rng = np.random.default_rng((config.seed, 3))
    additions = {
        path: np.zeros(leaf.shape, np.float32)
        if path[-1] == "lora_b"
        else (rng.normal(size=leaf.shape) * leaf.shape[-2] ** -0.5).astype(np.float32)
        for path, leaf in sorted(shapes.items())
        if path[-1] in LORA
    }
    return traverse_util.unflatten_dict(additions)
