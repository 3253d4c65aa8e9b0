"""Estimates the device memory that a config needs, from shapes and XLA's own analysis, without loading weights."""

import dataclasses
import math
import re
import resource
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import traverse_util
from ml_collections import ConfigDict

from spear_jax.backbones import BackboneShape, describe_backbone
from spear_jax.config import METHODS, check_length, view_names
from spear_jax.errors import InputError
from spear_jax.model import Params, Spear, build_spear, score_batch
from spear_jax.training import make_optimizer, make_train_call


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a config needs on each device, part by part, in training and in scoring."""

    backbone: BackboneShape
    trainable: Params
    table: pd.DataFrame


def memory_table(config: ConfigDict) -> str:
    """Describes the memory that a config needs per device, part by part."""
    estimate = estimate_memory(config)
    backbone, prompt = estimate.backbone, config.prompt.length if METHODS[config.method].prompt else 0
    weights = "pretrained" if backbone.pretrained else "RANDOM WEIGHTS"
    vocabulary, hidden = backbone.config.vocabulary_size, backbone.config.hidden_size
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return (
        f"{backbone.name} ({weights}, {backbone.dtype}, int8: {backbone.int8}), windows of {config.data.window} steps"
        f" and {prompt} prompt vectors, per device ({devices})\n\n"
        f"{estimate.table.map(readable).to_string()}\n\n"
        f"Of the {vocabulary:,} rows of the word table ({readable(4 * vocabulary * hidden)} in float32) at most"
        f" {config.quantizer.bins + 1 + prompt} are read."
        + (f" The device has {readable(limit)}." if limit is not None else "")
    )


def estimate_memory(config: ConfigDict) -> MemoryEstimate:
    """Estimates the memory that a config needs for training and for scoring.

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
        config.backbone.dtype,
        int8=config.backbone.int8,
        attention=config.backbone.attention,
        remat=config.backbone.remat,
    )
    check_length(config, window, backbone.config.max_positions)
    spear, shapes = _model_shapes(config, backbone)
    trainable, frozen = _split_shapes(config, shapes)
    return MemoryEstimate(backbone, trainable, _measure(config, spear, trainable, frozen))


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


def _measure(config: ConfigDict, spear: Spear, trainable: Params, frozen: Params) -> pd.DataFrame:
    """Compiles the programs for training and scoring; returns `MemoryEstimate.table`."""
    devices, steps = jax.device_count(), config.train.steps_per_call
    trained, scored = (-(-size // devices) for size in (config.train.batch_size, config.score.batch_size))
    batches, batch = _batch_shapes(config, steps, trained), _batch_shapes(config, scored)
    optimizer = make_optimizer(config)
    state = jax.eval_shape(optimizer.init, trainable)
    call = make_train_call(spear, optimizer, config.train.positive_weight)
    training = call.lower(trainable, state, frozen, batches, steps).compile()  # type: ignore[attr-defined]
    scoring = jax.jit(score_batch, static_argnums=0).lower(spear, trainable, frozen, batch).compile()

    def both(*parts: str) -> list[int]:
        return [sum(byte_count(tree.get(part, {})) for tree in (trainable, frozen) for part in parts)] * 2

    rows = {
        "frozen backbone": [byte_count(frozen.get("backbone", {}))] * 2,
        "trained backbone": [byte_count(trainable.get("backbone", {}))] * 2,
        "bin embeddings": both("embedding", "cls"),
        "prompt and head": both("prompt", "head"),
        "optimizer": [byte_count(state), 0],
        "best parameters": [byte_count(trainable), 0],
        "windows": [byte_count(batches), byte_count(batch)],
        "activations (XLA)": [_temporary_bytes(training), _temporary_bytes(scoring)],
    }
    table = pd.DataFrame(rows, index=[f"training, {trained} windows", f"scoring, {scored} windows"]).T
    table.loc["total"] = table.sum()
    return table


def _temporary_bytes(compiled: Any) -> int:
    """Returns the bytes that a compiled program allocates besides its arguments and results."""
    return int(compiled.memory_analysis().temp_size_in_bytes)


def byte_count(tree: Any) -> int:
    """Returns the size in bytes of a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def peak_bytes() -> int:
    """Returns the peak memory in bytes of this process's first device, or of the process itself on a CPU."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return int(statistics["peak_bytes_in_use"])
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss starts from the peak of the parent process
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def readable(count: float) -> str:
    """Formats bytes with a unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
