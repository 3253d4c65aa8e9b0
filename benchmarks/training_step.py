"""What a training step costs beside a forward pass: frozen weights need no gradient, so about twice, not three times.

    python benchmarks/training_step.py [--batch=16] [--window=128] [--calls=5]

Prints, from one run: forward and training windows/s of a MiniLM-shaped BERT (random weights: speed does not depend on
their values), as ratios to the forward pass.
"""

import argparse
import time

import jax
import numpy as np

from spear_jax import parallel
from spear_jax.backbones.bert import Bert, BertConfig, random_params
from spear_jax.config import default_config
from spear_jax.model import Spear, merge
from spear_jax.training import make_optimizer, make_train_call

MINILM = BertConfig(
    hidden_size=384,
    layers=6,
    heads=12,
    intermediate_size=1536,
    vocabulary_size=30522,
    max_positions=512,
    type_vocabulary_size=2,
    layer_norm_eps=1e-12,
)
STEPS = 4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--calls", type=int, default=5)
    flags = parser.parse_args()

    mesh = parallel.make_mesh()
    rng = np.random.default_rng(0)
    spear = Spear(backbone=Bert(MINILM), hidden=MINILM.hidden_size, rows=101, prompt_length=20)
    frozen = parallel.place(
        {
            "backbone": random_params(MINILM, 0),
            "embedding": {"table": rng.normal(size=(101, MINILM.hidden_size)).astype(np.float32)},
        },
        parallel.replicated(mesh),
    )
    shape = (STEPS, flags.batch, flags.window)
    batches = parallel.shard_batch(
        {
            "bins": rng.integers(0, 100, shape).astype(np.int32),
            "mask": np.ones(shape, bool),
            "targets": (rng.random(shape) < 0.1).astype(np.float32),
        },
        mesh,
        axis=1,
    )
    optimizer = make_optimizer(default_config())
    call = make_train_call(spear, optimizer, 1.0)

    def trainable() -> dict:
        return parallel.place(
            {
                "prompt": {"vectors": np.zeros((20, MINILM.hidden_size), np.float32)},
                "head": {
                    "kernel": np.zeros((MINILM.hidden_size, 1), np.float32),
                    "bias": np.zeros(1, np.float32),
                },
            },
            parallel.replicated(mesh),
        )

    @jax.jit
    def forward(trainable, frozen, batches):
        return jax.lax.map(
            lambda one: spear.apply(merge(trainable, frozen), one["bins"], one["mask"]).sum(),
            batches,
        )

    def train() -> None:
        state = trainable()
        jax.block_until_ready(call(state, optimizer.init(state), frozen, batches, STEPS))

    def infer() -> None:
        jax.block_until_ready(forward(trainable(), frozen, batches))

    seconds = {}
    for name, run in (("forward", infer), ("training", train)):
        run()  # compiles
        times = []
        for _ in range(flags.calls):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        seconds[name] = min(times)
    windows = STEPS * flags.batch
    device = jax.devices()[0].device_kind
    print(f"jax {jax.__version__}, {jax.device_count()} x {device}, batch {flags.batch}, T {flags.window}, m 20")
    for name, value in seconds.items():
        print(f"{name:10} {windows / value:10.1f} windows/s   {value / seconds['forward']:.2f} x forward")


if __name__ == "__main__":
    main()
