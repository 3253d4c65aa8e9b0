"""What a training step costs, what the savings save, and whether the memory table is right.

    python benchmarks/training_step.py [--backbone=minilm|gemma-small|NAME] [--dtype=float32] [--int8=none] [--batch=16]

Prints, from one run, windows per second of a forward pass, of training (about half of it: frozen weights need no
gradient) and of training without the savings (the prompt's keys and values once per step, no hidden states that nobody
reads), and the estimate of `--mode=memory` next to what the run takes. Weights are random: speed does not depend on
their values. NAME is any of load_backbone's, such as random:google/gemma-2b.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spear_jax import parallel
from spear_jax.backbones import load_backbone
from spear_jax.commands import memory
from spear_jax.config import default_config
from spear_jax.model import Spear, build_spear, merge
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="minilm")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--int8", default="none")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--calls", type=int, default=5)
    flags = parser.parse_args()

    name = flags.backbone
    if name in SHAPES:
        folder = Path(tempfile.mkdtemp())
        (folder / "config.json").write_text(json.dumps(SHAPES[name]))
        name = f"random:{folder}"
    config = default_config()
    config.backbone.update(name=name, dtype=flags.dtype, int8=flags.int8)
    config.data.window, config.train.batch_size, config.score.batch_size = flags.window, flags.batch, flags.batch
    config.train.steps_per_call = STEPS
    estimate = memory.estimate_memory(config)

    mesh = parallel.make_mesh()
    everywhere = parallel.replicated(mesh)
    rng = np.random.default_rng(0)
    before = memory.peak_bytes()
    backbone = load_backbone(name, flags.dtype, int8=flags.int8, sharding=everywhere)
    hidden = backbone.hidden_size
    table = {"table": rng.normal(size=(101, hidden)).astype(np.float32)}
    frozen = parallel.place({"backbone": backbone.params, "embedding": table}, everywhere)
    shape = (STEPS, flags.batch, flags.window)
    batches = parallel.shard_batch(
        {
            "inputs": rng.integers(0, 100, shape).astype(np.int32),
            "mask": np.ones(shape, bool),
            "targets": (rng.random(shape) < 0.1).astype(np.float32),
        },
        mesh,
        axis=1,
    )
    optimizer = make_optimizer(config)

    def training(spear: Spear) -> float:
        trainable = parallel.place(
            {
                "prompt": {"vectors": rng.normal(size=(config.prompt.length, hidden)).astype(np.float32)},
                "head": {"kernel": np.zeros((hidden, 1), np.float32), "bias": np.zeros(1, np.float32)},
            },
            everywhere,
        )
        state = jax.jit(optimizer.init, out_shardings=everywhere)(trainable)
        call = make_train_call(spear, optimizer, 1.0)
        best = np.inf
        for _ in range(flags.calls + 1):  # the first compiles
            began = time.perf_counter()
            trainable, state, stats = call(trainable, state, frozen, batches, STEPS)
            jax.block_until_ready(stats)
            best = min(best, time.perf_counter() - began)
        return STEPS * flags.batch / best

    spear = build_spear(config, backbone.module, hidden)
    trained = training(spear)
    took = memory.peak_bytes() - before
    without = training(spear.clone(plain=True))

    prompt = {"vectors": np.zeros((config.prompt.length, hidden), np.float32)}
    head = {"kernel": np.zeros((hidden, 1), np.float32), "bias": np.zeros(1, np.float32)}
    one = jax.tree.map(lambda steps: steps[0], batches)
    forward = jax.jit(
        lambda frozen, one: spear.apply(merge({"prompt": prompt, "head": head}, frozen), one["inputs"], one["mask"])
    )
    best = np.inf
    for _ in range(STEPS * flags.calls + 1):
        began = time.perf_counter()
        jax.block_until_ready(forward(frozen, one))
        best = min(best, time.perf_counter() - began)
    passed = flags.batch / best

    device = jax.devices()[0].device_kind
    print(
        f"{flags.backbone}, {flags.dtype}, int8 {flags.int8}; jax {jax.__version__}, {jax.device_count()} x {device},"
        f" batch {flags.batch}, T {flags.window}, m {config.prompt.length}"
    )
    print(f"forward                       {passed:8.1f} windows/s   1.00 x forward")
    print(f"training                      {trained:8.1f} windows/s   {passed / trained:.2f} x forward")
    print(f"training without the savings  {without:8.1f} windows/s   {passed / without:.2f} x forward")
    print(f"the savings make it {trained / without:.2f} times as fast")
    total = estimate.table.iloc[:, 0]["total"]
    print(f"memory: estimated {memory.readable(total)}, taken {memory.readable(took)} ({took / total:.2f} times)")


if __name__ == "__main__":
    main()
