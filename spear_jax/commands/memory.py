"""Estimates the device memory that a config needs, from shapes and XLA's own analysis, without loading weights."""

import dataclasses
import math
import resource
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.backbones import BackboneShape
from spear_jax.commands.programs import Programs, describe, lower_programs
from spear_jax.config import METHODS
from spear_jax.model import Params


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
      InputError: see `describe`.
    """
    backbone, mesh = describe(config), parallel.make_mesh(config.backbone.shards)
    programs = lower_programs(config, backbone, mesh)
    return MemoryEstimate(backbone, programs.trainable, _measure(programs, mesh.size))


def _measure(programs: Programs, devices: int) -> pd.DataFrame:
    """Compiles the programs for training and scoring; returns `MemoryEstimate.table`."""
    trainable, frozen, batches, batch = programs.trainable, programs.frozen, programs.batches, programs.batch

    def both(*parts: str) -> list[int]:
        return [sum(_device_bytes(tree.get(part, {})) for tree in (trainable, frozen) for part in parts)] * 2

    rows = {
        "frozen backbone": [_device_bytes(frozen.get("backbone", {}))] * 2,
        "trained backbone": [byte_count(trainable.get("backbone", {}))] * 2,
        "bin embeddings": both("embedding", "cls"),
        "prompt and head": both("prompt", "head"),
        "optimizer": [byte_count(programs.optimizer), 0],
        "best parameters": [byte_count(trainable), 0],
        "windows": [_device_bytes(batches), _device_bytes(batch)],
        "activations (XLA)": [_temporary_bytes(lowered.compile()) for lowered in (programs.training, programs.scoring)],
    }
    trained, scored = batches["mask"].shape[1] // devices, batch["mask"].shape[0] // devices
    table = pd.DataFrame(rows, index=[f"training, {trained} windows", f"scoring, {scored} windows"]).T
    table.loc["total"] = table.sum()
    return table


def _temporary_bytes(compiled: Any) -> int:
    """Returns the bytes that a compiled program allocates besides its arguments and results."""
    return int(compiled.memory_analysis().temp_size_in_bytes)


def _device_bytes(shapes: Any) -> int:
    """Returns the bytes that a device holds of a tree of shapes with shardings."""
    return byte_count(
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.sharding.shard_shape(leaf.shape), leaf.dtype), shapes)
    )


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
