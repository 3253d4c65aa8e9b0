"""What a config will need of a device's memory, before anything is loaded: shapes, and XLA's own analysis."""

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
from jaxtyping import Array
from ml_collections import ConfigDict

from spear_jax.backbones import Described, describe_backbone
from spear_jax.config import check_length
from spear_jax.errors import InputError
from spear_jax.model import Params, Spear, build_spear, merge
from spear_jax.training import make_optimizer, make_train_call

BY_METHOD = {"spear": r"(prompt|head)/.*", "fine_tuning": r"(head|backbone)/.*", "lora": r"head/.*|.*/lora_[ab]"}
"""Method -> the parameters that it trains."""


def memory_table(config: ConfigDict) -> str:
    """Bytes per device for training and for scoring, part by part, as a text.

    Args:
      config: a whole config.

    Raises:
      InputError: see `needs`.
    """
    found, _, sums = needs(config)
    weights = "pretrained" if found.pretrained else "RANDOM WEIGHTS"
    vocabulary, hidden = found.config.vocabulary_size, found.config.hidden_size
    prompt = config.prompt.length if config.method == "spear" else 0
    kept = config.quantizer.bins + 1 + prompt
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return (
        f"{found.name} ({weights}, {found.dtype}, int8: {found.int8}), windows of {config.data.window} steps behind"
        f" {prompt} prompt vectors, per device ({devices})\n\n"
        f"{sums.map(readable).to_string()}\n\n"
        f"Of the {vocabulary:,} rows of the word table ({readable(4 * vocabulary * hidden)} in float32) at most {kept}"
        f" are read.{_available()}"
    )


def needs(config: ConfigDict) -> tuple[Described, Params, pd.DataFrame]:
    """Bytes per device for training and for scoring, part by part; nothing is loaded.

    Args:
      config: a whole config.

    Returns:
      The backbone's shape, the shapes of what is trained, and a column each for training and scoring.

    Raises:
      InputError: the backbone's shape cannot be had, prompt and window do not fit into it, or the window's length
        depends on the data.
    """
    fields, window = config.backbone, config.data.window
    if config.method not in BY_METHOD:
        raise InputError(
            f"config.method={config.method!r}: its memory is not foretold; allowed are {', '.join(BY_METHOD)}"
        )
    if not window:
        raise InputError("config.data.window=0: the longest series decides; give its length as config.data.window")
    found = describe_backbone(
        fields.name, fields.dtype, int8=fields.int8, attention=fields.attention, remat=fields.remat
    )
    check_length(config, window, found.config.max_positions)
    module, hidden = found.module, found.config.hidden_size
    config = config.copy_and_resolve_references()
    if config.method != "spear":
        config.prompt.length = 0
    if config.method == "lora":
        module = module.clone(lora_rank=config.lora.rank)
    spear = build_spear(config, module, hidden)
    shapes = jax.eval_shape(
        spear.init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, window), jnp.int32),
        jax.ShapeDtypeStruct((1, window), jnp.bool_),
    )["params"]
    trained = BY_METHOD[config.method] + (r"|embedding/.*" if config.embedding.kind == "trained" else "")
    trainable, frozen = (
        traverse_util.unflatten_dict(
            {
                path: leaf
                for path, leaf in traverse_util.flatten_dict(shapes, sep="/").items()
                if bool(re.fullmatch(trained, path)) == wanted
            },
            sep="/",
        )
        for wanted in (True, False)
    )
    if config.method == "fine_tuning":  # weights that are trained are float32, whatever the products are
        trainable = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), trainable)
    optimizer = make_optimizer(config)
    state = jax.eval_shape(optimizer.init, trainable)

    devices = jax.device_count()
    steps, train_batch = config.train.steps_per_call, -(-config.train.batch_size // devices)
    score_batch = -(-config.score.batch_size // devices)
    batches = {
        "inputs": jax.ShapeDtypeStruct((steps, train_batch, window), jnp.int32),
        "mask": jax.ShapeDtypeStruct((steps, train_batch, window), jnp.bool_),
        "targets": jax.ShapeDtypeStruct((steps, train_batch, window), jnp.float32),
    }
    call = make_train_call(spear, optimizer, config.train.positive_weight)
    training = call.lower(trainable, state, frozen, batches, steps).compile()  # type: ignore[attr-defined]
    one = {name: jax.ShapeDtypeStruct((score_batch, window), batches[name].dtype) for name in ("inputs", "mask")}
    scoring = jax.jit(_score, static_argnums=0).lower(spear, trainable, frozen, one).compile()

    rows = {
        "frozen backbone": [size(frozen.get("backbone", {}))] * 2,
        "trained backbone": [size(trainable.get("backbone", {}))] * 2,
        "bin embeddings": [size(shapes["embedding"]) + size(shapes.get("cls", {}))] * 2,
        "prompt and head": [size(shapes.get("prompt", {})) + size(shapes["head"])] * 2,
        "optimizer": [size(state), 0],
        "copy of the best": [size(trainable), 0],
        "windows": [size(batches), size(one)],
        "activations (XLA)": [_temporary(training), _temporary(scoring)],
    }
    sums = pd.DataFrame(rows, index=[f"training, {train_batch} windows", f"scoring, {score_batch} windows"]).T
    sums.loc["together"] = sums.sum()
    return found, trainable, sums


def _score(spear: Spear, trainable: Params, frozen: Params, one: dict[str, Array]) -> Any:
    return jax.nn.sigmoid(spear.apply(merge(trainable, frozen), one["inputs"], one["mask"]))  # type: ignore[arg-type]


def size(tree: Any) -> int:
    """Bytes of a tree of arrays or their shapes."""
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def _temporary(compiled: Any) -> int:
    """What the compiled program holds beside its arguments and results."""
    return int(compiled.memory_analysis().temp_size_in_bytes)


def peak() -> int:
    """Bytes that this process' first device, or on a CPU the process itself, has held at most."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return int(statistics["peak_bytes_in_use"])
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss begins with the peak of the process that started this one
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _available() -> str:
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" not in statistics:
        return ""
    return f" The device offers {readable(statistics['bytes_limit'])}."


def readable(count: float) -> str:
    """Bytes with a unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
