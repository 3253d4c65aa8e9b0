"""Lowers a config's programs for training and for scoring from shapes alone: nothing is loaded, nothing runs."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.backbones import BackboneShape, choose_dtype, describe_backbone
from spear_jax.config import METHODS, check_length, view_names
from spear_jax.errors import InputError
from spear_jax.model import Params, Spear, apply_batch, build_spear, score_batch
from spear_jax.training import make_optimizer, make_train_call


class Programs(NamedTuple):
    """The programs of a config, lowered for the devices of a mesh, and the shapes that they work on.

    Attributes:
      trainable, frozen, optimizer: parameters and the optimizer's state, on every device.
      batches, batch: the windows of a training call and of a scoring call, over all devices.
      training: the call of several optimizer steps.
      scoring: the call for a batch.
    """

    trainable: Params
    frozen: Params
    optimizer: Any
    batches: dict[str, jax.ShapeDtypeStruct]
    batch: dict[str, jax.ShapeDtypeStruct]
    training: jax.stages.Lowered
    scoring: jax.stages.Lowered


def describe(config: ConfigDict, platform: str = "") -> BackboneShape:
    """Describes a config's backbone, on a platform if its dtype depends on it; see `choose_dtype`.

    Raises:
      InputError: the backbone cannot be described, prompt and window do not fit into it, the method has no backbone in
        its training loop, or the window's length depends on the data.
    """
    window = config.data.window
    methods = [name for name, method in METHODS.items() if method.trains and method.backbone]
    if config.method not in methods:
        raise InputError(f"config.method={config.method!r} must be one of {', '.join(methods)} with --mode=memory")
    if not window:
        raise InputError("config.data.window=0 depends on the data; --mode=memory needs the longest series' length")
    backbone = describe_backbone(
        config.backbone.name,
        choose_dtype(config.backbone.dtype, platform),
        int8=config.backbone.int8,
        attention=config.backbone.attention,
        remat=config.backbone.remat,
    )
    check_length(config, window, backbone.config.max_positions)
    return backbone


def lower_programs(config: ConfigDict, backbone: BackboneShape, mesh: Mesh) -> Programs:
    """Lowers the programs of a config around a backbone."""
    spear, shapes = _model_shapes(config, backbone)
    optimizer = make_optimizer(config)
    trainable, frozen = _split_shapes(config, shapes)
    everywhere = parallel.replicated(mesh)
    trainable, state = _place((trainable, jax.eval_shape(optimizer.init, trainable)), everywhere)
    frozen = jax.tree.map(lambda leaf: _place(leaf, parallel.frozen_sharding(mesh, leaf.shape)), frozen)
    steps = config.train.steps_per_call
    trained, scored = (-(-size // mesh.size) * mesh.size for size in (config.train.batch_size, config.score.batch_size))
    batches = _place(_batch_shapes(config, steps, trained), parallel.window_sharding(mesh, 1))
    batch = _place(_batch_shapes(config, scored), parallel.window_sharding(mesh))
    call = make_train_call(spear, optimizer, config.train.positive_weight)
    with jax.default_matmul_precision(config.backbone.matmul_precision), parallel.gathering(mesh):
        training = call.lower(trainable, state, frozen, batches, steps)  # type: ignore[attr-defined]
        scoring = apply_batch.lower(score_batch, spear, trainable, frozen, batch, everywhere)
    return Programs(trainable, frozen, state, batches, batch, training, scoring)


def _place(tree: Any, sharding: NamedSharding) -> Any:
    """Returns shapes with a sharding."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def _model_shapes(config: ConfigDict, backbone: BackboneShape) -> tuple[Spear, Params]:
    """Builds the model of a config's method around a backbone; returns it with the shapes of its parameters."""
    config, module = config.copy_and_resolve_references(), backbone.module
    if not METHODS[config.method].prompt:
        config.prompt.length = 0
    if METHODS[config.method].backbone == "adapted":
        module = module.clone(lora_rank=config.lora.rank)
    spear = build_spear(config, module, backbone.config.hidden_size)
    batch = _batch_shapes(config, 1)
    return spear, jax.eval_shape(spear.init, jax.random.key(0), batch["inputs"], batch["mask"])["params"]


def _batch_shapes(config: ConfigDict, *leading: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the inputs, mask and targets of a batch."""
    window, views = (*leading, config.data.window), len(view_names(config))
    return {
        "inputs": jax.ShapeDtypeStruct((*window, views) if views > 1 else window, jnp.int32),
        "mask": jax.ShapeDtypeStruct(window, jnp.bool_),
        "targets": jax.ShapeDtypeStruct(window, jnp.float32),
    }


def _split_shapes(config: ConfigDict, shapes: Params) -> tuple[Params, Params]:
    """Splits shapes into those of trained and of frozen parameters."""
    method = METHODS[config.method]
    pattern = method.trains + (r"|embedding/.*" if config.embedding.kind == "trained" else "")
    trainable, frozen = {}, {}
    for path, leaf in traverse_util.flatten_dict(shapes, sep="/").items():
        if not re.fullmatch(pattern, path):
            frozen[path] = leaf
        elif method.backbone == "trained":  # trained weights are float32, whatever the compute dtype
            trainable[path] = jax.ShapeDtypeStruct(leaf.shape, jnp.float32)
        else:
            trainable[path] = leaf
    if config.prompt.members > 1:
        members = (config.prompt.members,)
        trainable = {path: jax.ShapeDtypeStruct(members + leaf.shape, leaf.dtype) for path, leaf in trainable.items()}
    return traverse_util.unflatten_dict(trainable, sep="/"), traverse_util.unflatten_dict(frozen, sep="/")
