"""Compares training and scoring on a CPU with torch and PEFT, and scoring with ONNX Runtime, by turns in one run.

    python benchmarks/against_torch.py [--model=minilm] [--batch=32] [--window=128] [--rounds=7] [--compile]

Shapes with random weights, since speed does not depend on their values, 20 prompt vectors and full windows.
Prints windows per second (medians over the rounds), the ratios of the rounds to spear_jax of the same dtype (median,
lowest and highest), and the rate of a plain matrix product in the same run. ONNX Runtime gets the model that torch
exports, and as int8 its own dynamic quantization; spear_jax has frozen kernels as int8. `pip install onnx onnxscript
onnxruntime` for those. --compile adds torch.compile, which takes minutes.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before gpu_torch reads it

import gpu_torch
import jax
import jax.numpy as jnp
import torch
from gpu_shapes import MODELS, PROMPT_LENGTH
from training_step import STEPS, make_batches, random_backbone

from spear_jax import parallel
from spear_jax.backbones import load_backbone
from spear_jax.config import default_config
from spear_jax.model import assemble_model, merge
from spear_jax.training import make_optimizer, make_train_call

Work = Callable[[], object]
PRODUCT = 2048  # rows and columns of the matrix product that gives the machine's rate


def spear(model: str, dtype: str, int8: str, batch: int, window: int) -> tuple[Work, Work]:
    """Returns `STEPS` training steps and the scoring of a batch in spear_jax."""
    config = default_config()
    config.backbone.update(name=random_backbone(MODELS[model]), dtype=dtype, int8=int8)
    config.prompt.length = PROMPT_LENGTH
    config.data.window, config.train.batch_size, config.train.steps_per_call = window, batch, STEPS
    sharding = parallel.replicated(parallel.make_mesh())
    placed = assemble_model(config, load_backbone(config.backbone.name, dtype, int8=int8, sharding=sharding))
    batches, optimizer = make_batches(placed, batch, window), make_optimizer(config)
    call = make_train_call(placed.module, optimizer, 1.0)
    trainable = jax.tree.map(jnp.copy, placed.trainable)  # a call overwrites it
    state = [trainable, jax.jit(optimizer.init, out_shardings=sharding)(trainable)]
    variables = merge(placed.trainable, placed.frozen)
    inputs, mask = batches["inputs"][0], batches["mask"][0]
    forward = jax.jit(lambda variables: jax.nn.sigmoid(placed.module.apply(variables, inputs, mask)))

    def train() -> None:
        *state[:], metrics = call(*state, placed.frozen, batches, STEPS)
        jax.block_until_ready(metrics)

    return train, lambda: jax.block_until_ready(forward(variables))


def peft(model: str, dtype: str, batch: int, window: int, *, compiled: bool) -> tuple[Work, Work]:
    """Returns `STEPS` training steps and the scoring of a batch in torch."""
    detector = gpu_torch.build(model).to(getattr(torch, dtype))
    run = torch.compile(detector) if compiled else detector
    optimizer = torch.optim.AdamW([p for p in detector.parameters() if p.requires_grad], lr=1e-3)
    bins, labels = torch.randint(0, gpu_torch.BINS, (batch, window)), (torch.rand(batch, window) < 0.1).float()

    def train() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.binary_cross_entropy_with_logits(run(bins).float(), labels).backward()
            optimizer.step()

    def score() -> None:
        with torch.inference_mode():
            torch.sigmoid(run(bins))

    return train, score


def onnx(model: str, batch: int, window: int) -> dict[str, Work]:
    """Returns the scoring of a batch in ONNX Runtime, in float32 and int8; nothing if it is not installed."""
    try:
        import onnxruntime
        from onnxruntime.quantization import quantize_dynamic
    except ImportError as error:
        print(f"ONNX Runtime: not measured ({error})")
        return {}
    folder = Path(tempfile.mkdtemp())
    detector, bins = gpu_torch.build(model).float().eval(), torch.zeros(batch, window, dtype=torch.long)
    torch.onnx.export(detector, (bins,), folder / "float32.onnx", input_names=["bins"], dynamo=True, verbose=False)
    quantize_dynamic(folder / "float32.onnx", folder / "int8.onnx")
    work: dict[str, Work] = {}
    for kind in ("float32", "int8"):
        session = onnxruntime.InferenceSession(folder / f"{kind}.onnx", providers=["CPUExecutionProvider"])
        values = {"bins": bins.numpy()}
        work[f"ONNX Runtime, {kind}"] = lambda session=session, values=values: session.run(None, values)
    return work


def product(dtype: str) -> Work:
    """Returns a matrix product in XLA."""
    left = jnp.ones((PRODUCT, PRODUCT), dtype)
    multiply = jax.jit(lambda left: left @ left)
    return lambda: jax.block_until_ready(multiply(left))


def measure(work: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of each in every round, after one that compiles."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, run in work.items():
            began = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def report(title: str, work: dict[str, Work], windows: int, rounds: int) -> None:
    """Prints a table of what was measured; the first one is what the others are compared with."""
    seconds = measure(work, rounds)
    first = next(iter(seconds.values()))
    print(title)
    for name, own in seconds.items():
        ratios = sorted(other / mine for other, mine in zip(own, first, strict=True))
        print(
            f"  {name:24} {windows / statistics.median(own):8.1f} windows/s; spear_jax is"
            f" {statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="minilm")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    flags = parser.parse_args()
    size = (flags.batch, flags.window)

    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "unknown",
    )
    print(
        f"{processor}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f};"
        f" jax {jax.__version__}, torch {torch.__version__}"
    )
    for dtype, seconds in measure({dtype: product(dtype) for dtype in ("float32", "bfloat16")}, flags.rounds).items():
        rate = 2e-9 * PRODUCT**3 / statistics.median(seconds)
        print(f"  a product of {PRODUCT} x {PRODUCT} in {dtype}: {rate:.0f} GFLOP/s")
    for dtype in ("float32", "bfloat16"):
        pairs = {
            "spear_jax": spear(flags.model, dtype, "none", *size),
            "torch, eager": peft(flags.model, dtype, *size, compiled=False),
        }
        if flags.compile:
            pairs["torch, compiled"] = peft(flags.model, dtype, *size, compiled=True)
        training = {name: train for name, (train, _) in pairs.items()}
        scoring = {name: score for name, (_, score) in pairs.items()}
        others = onnx(flags.model, *size) if dtype == "float32" else {}
        int8 = others.pop("ONNX Runtime, int8", None)
        report(f"training, {dtype}", training, STEPS * flags.batch, flags.rounds)
        report(f"scoring, {dtype}", scoring | others, flags.batch, flags.rounds)
        if int8:
            work = {"spear_jax": spear(flags.model, "float32", "channel", *size)[1], "ONNX Runtime": int8}
            report("scoring, kernels as int8", work, flags.batch, flags.rounds)


if __name__ == "__main__":
    main()
