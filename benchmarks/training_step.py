"""Measures the cost of a training step, the effect of the two savings, and the accuracy of the memory table.

    python benchmarks/training_step.py [--backbone=minilm|gemma-small|NAME] [--dtype=float32] [--int8=none] [--batch=16]

Prints, from one run, windows per second of a forward pass, of training (about half of it: frozen weights need no
gradient) and of training without the savings (a prefix computed once per step, and no hidden states that nobody
reads), and the estimate of `--mode=memory` next to what the run took. Weights are random: speed
does not depend on their values. NAME is any name that load_backbone takes, such as random:google/gemma-2b.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.backbones import load_backbone
from spear_jax.commands import memory
from spear_jax.config import default_config
from spear_jax.model import PlacedModel, assemble_model, merge
from spear_jax.training import make_optimizer, make_train_call

SHAPES: dict[str, dict[str, Any]] = {
    "minilm": {
        "model_type": "bert",
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    },
    "gemma-small": {  # Gemma's proportions at a size that a CPU can do
        "model_type": "gemma",
        "hidden_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 128,
        "intermediate_size": 4096,
        "vocab_size": 30522,
        "max_position_embeddings": 8192,
    },
}
STEPS = 4


def random_backbone(shape: dict[str, Any]) -> str:
    """Returns the name of a backbone of a shape with random weights, and with a tokenizer of five words."""
    folder = Path(tempfile.mkdtemp())
    (folder / "config.json").write_text(json.dumps(shape))
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    return f"random:{folder}"


def make_batches(model: PlacedModel, batch: int, window: int) -> dict[str, jax.Array]:
    """Makes the random batches of one call."""
    rng, shape = np.random.default_rng(0), (STEPS, batch, window)
    batches = {
        "inputs": rng.integers(0, 100, shape).astype(np.int32),
        "mask": np.ones(shape, bool),
        "targets": (rng.random(shape) < 0.1).astype(np.float32),
    }
    return parallel.shard_batch(batches, model.mesh, axis=1)


def training_seconds(
    config: ConfigDict, model: PlacedModel, batches: dict[str, jax.Array], calls: int, *, plain: bool
) -> float:
    """Returns the seconds of the fastest call."""
    optimizer = make_optimizer(config)
    trainable = jax.tree.map(jnp.copy, model.trainable)  # the call overwrites it
    state = jax.jit(optimizer.init, out_shardings=parallel.replicated(model.mesh))(trainable)
    call = make_train_call(model.module.clone(plain=plain), optimizer, 1.0)
    fastest = np.inf
    for _ in range(calls + 1):  # the first compiles
        began = time.perf_counter()
        trainable, state, metrics = call(trainable, state, model.frozen, batches, STEPS)
        jax.block_until_ready(metrics)
        fastest = min(fastest, time.perf_counter() - began)
    return fastest


def forward_seconds(model: PlacedModel, batches: dict[str, jax.Array], calls: int) -> float:
    """Returns the seconds of the fastest forward pass of one batch."""
    batch = jax.tree.map(lambda array: array[0], batches)
    forward = jax.jit(lambda variables: model.module.apply(variables, batch["inputs"], batch["mask"]))
    variables = merge(model.trainable, model.frozen)
    fastest = np.inf
    for _ in range(STEPS * calls + 1):
        began = time.perf_counter()
        jax.block_until_ready(forward(variables))
        fastest = min(fastest, time.perf_counter() - began)
    return fastest


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="minilm")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--int8", default="none")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--calls", type=int, default=5)
    flags = parser.parse_args()

    name = random_backbone(SHAPES[flags.backbone]) if flags.backbone in SHAPES else flags.backbone
    config = default_config()
    config.backbone.update(name=name, dtype=flags.dtype, int8=flags.int8)
    config.data.window, config.train.batch_size, config.score.batch_size = flags.window, flags.batch, flags.batch
    config.train.steps_per_call = STEPS
    estimate = memory.estimate_memory(config)

    before = memory.peak_bytes()
    sharding = parallel.replicated(parallel.make_mesh())
    model = assemble_model(config, load_backbone(name, flags.dtype, int8=flags.int8, sharding=sharding))
    batches = make_batches(model, flags.batch, flags.window)
    windows = STEPS * flags.batch
    saving = windows / training_seconds(config, model, batches, flags.calls, plain=False)
    taken = memory.peak_bytes() - before
    plain = windows / training_seconds(config, model, batches, flags.calls, plain=True)
    forward = flags.batch / forward_seconds(model, batches, flags.calls)

    device = jax.devices()[0].device_kind
    print(
        f"{flags.backbone}, {flags.dtype}, int8 {flags.int8}; jax {jax.__version__}, {jax.device_count()} x {device},"
        f" batch {flags.batch}, T {flags.window}, m {config.prompt.length}"
    )
    print(f"forward                       {forward:8.1f} windows/s   1.00 x forward")
    print(f"training                      {saving:8.1f} windows/s   {forward / saving:.2f} x forward")
    print(f"training without the savings  {plain:8.1f} windows/s   {forward / plain:.2f} x forward")
    print(f"the savings make it {saving / plain:.2f} times as fast")
    total = estimate.table.iloc[:, 0]["total"]
    print(f"memory: estimated {memory.readable(total)}, taken {memory.readable(taken)} ({taken / total:.2f} times)")


if __name__ == "__main__":
    main()
