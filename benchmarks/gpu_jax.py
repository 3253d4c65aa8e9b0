"""Measures the parts of the GPU benchmark that run in JAX; gpu.py starts it, a process for several parts.

python benchmarks/gpu_jax.py [--wait] [--compile-only] RESULTS.json PART...

A part is 'rates', 'parity', 'speed MODEL WINDOW', 'attention MODEL WINDOW', 'detectors COUNT' or 'quickstart VARIANT'.
With --compile-only, the same functions are compiled for the same shapes and not run, which fills JAX's cache.
"""

import functools
import json
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import gpu_shapes
import jax
import jax.numpy as jnp
import numpy as np
from gpu_shapes import PROMPT_LENGTH, Recorder, median_seconds, read_arguments, reason
from ml_collections import ConfigDict

from spear_jax.backbones import describe_backbone, load_backbone, param_shapes
from spear_jax.backbones.attention import attend
from spear_jax.config import MINILM, TINY, default_config
from spear_jax.main import main as run_program
from spear_jax.model import Params, assemble_model, merge
from spear_jax.model.assemble import build_spear
from spear_jax.training import make_optimizer, make_train_call
from spear_jax.training.step import loss_sum

STEPS = 2  # optimizer steps of a training call
BINS = 100
ON_CPU = os.environ.get("JAX_PLATFORMS") == "cpu"
Tree = Any


class Bench:
    """Runs jitted functions, or only compiles them, several at a time."""

    def __init__(self, recorder: Recorder, compile_only: bool = False) -> None:
        self.recorder, self.compile_only = recorder, compile_only
        self.pool = ThreadPoolExecutor(4)
        self.compiling: list[Future[Any]] = []

    def call(self, function: Any, *arguments: Any) -> Any:
        """Calls a jitted function; while only compiling, returns the shapes of its results."""
        if not self.compile_only:
            return function(*arguments)
        self.compiling.append(self.pool.submit(function.lower(*arguments).compile))
        return function.eval_shape(*arguments)

    def seconds(self, run: Callable[[], Any], **options: Any) -> float:
        """Returns the median seconds of a call."""
        if not self.compile_only:
            return median_seconds(run, jax.block_until_ready, **options)
        run()
        return float("nan")

    def add(self, **row: Any) -> None:
        """Records a row; while only compiling, just those of failures."""
        if "failed" in row or not self.compile_only:
            self.recorder.add(**row)

    def finish(self) -> None:
        """Waits for what is being compiled; its first error is raised."""
        compiling, self.compiling = self.compiling, []
        for future in compiling:
            future.result()


def measure_rates(bench: Bench) -> None:
    """Measures a large matrix product in bfloat16 and a copy in memory, and names the device and the versions."""
    from importlib.metadata import PackageNotFoundError, version

    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "transformers", "nvidia-cudnn-cu13", "torch", "peft")
    versions = {"python": sys.version.split()[0]}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    bench.add(device=jax.devices()[0].device_kind, devices=jax.device_count(), versions=versions)
    size, length = (256, 2**16) if ON_CPU else (8192, 2**29)

    @jax.jit
    def draw() -> tuple[jax.Array, jax.Array, jax.Array]:
        keys = jax.random.split(jax.random.key(0))
        a, b = (jax.random.normal(key, (size, size), jnp.bfloat16) for key in keys)
        return a, b, jnp.arange(length, dtype=jnp.float32)

    a, b, x = bench.call(draw)
    product = jax.jit(jnp.matmul)
    seconds = bench.seconds(lambda: bench.call(product, a, b), repeats=9)
    bench.add(matmul=f"bfloat16 {size}^3", tflops=2 * size**3 / seconds / 1e12, ms=seconds * 1e3)
    negative = jax.jit(jnp.negative)  # reads and writes every number
    seconds = bench.seconds(lambda: bench.call(negative, x), repeats=9)
    bench.add(copy="float32, bytes read and written", terabytes_per_second=8 * length / seconds / 1e12)


def random_batch(windows: int, window: int) -> dict[str, np.ndarray]:
    """Makes a batch of random bins and labels."""
    rng = np.random.default_rng(0)
    return {
        "inputs": rng.integers(0, BINS, (windows, window)).astype(np.int32),
        "mask": np.ones((windows, window), bool),
        "targets": (rng.random((windows, window)) < 0.1).astype(np.float32),
    }


@functools.partial(jax.jit, static_argnums=0)
def states_and_gradient(module: Any, trainable: Params, frozen: Params, batch: Tree) -> tuple[jax.Array, jax.Array]:
    """Computes the hidden states and the gradient of the loss with respect to the prompt."""
    gradient = jax.grad(lambda trainable: loss_sum(module, trainable, frozen, batch, 1.0)[0])(trainable)
    states = module.apply(merge(trainable, frozen), batch["inputs"], batch["mask"], method="features")
    return states, gradient["prompt"]["vectors"]


def measure_parity(bench: Bench) -> None:
    """Compares hidden states and the prompt's gradient with float32 on the CPU: relative L2 errors, real weights."""
    name = TINY if ON_CPU else MINILM
    batch = random_batch(4, 128)
    reference: list[np.ndarray] = []
    bench.add(backbone=name, windows=4, window=128, prompt=PROMPT_LENGTH)
    for dtype, precision, where in (
        ("float32", "highest", jax.devices("cpu")[0]),
        ("float32", "default", jax.devices()[0]),
        ("bfloat16", "default", jax.devices()[0]),
        ("float32", "highest", jax.devices()[0]),
    ):
        config = model_config(128, 4)
        config.backbone.update(name=name, dtype=dtype)
        with jax.default_device(jax.devices("cpu")[0]):
            model = assemble_model(config, load_backbone(name, dtype))
        arrays = jax.tree.map(np.asarray, (model.trainable, model.frozen, batch))
        with jax.default_matmul_precision(precision):
            results = bench.call(states_and_gradient, model.module, *jax.device_put(arrays, where))
        if bench.compile_only:
            continue
        states, gradient = (np.asarray(result, np.float32) for result in results)
        if not reference:
            reference = [states, gradient]
            continue
        bench.add(
            dtype=dtype,
            precision=precision,
            hidden_states=relative_error(states, reference[0]),
            prompt_gradient=relative_error(gradient, reference[1]),
        )


def relative_error(values: np.ndarray, reference: np.ndarray) -> float:
    """Returns |values - reference| / |reference|."""
    return float(np.linalg.norm(values - reference) / np.linalg.norm(reference))


def model_config(window: int, batch: int) -> ConfigDict:
    """Returns the default config for a window and a batch size."""
    config = default_config()
    config.data.window, config.train.batch_size, config.score.batch_size = window, batch, batch
    config.prompt.length, config.quantizer.bins, config.train.steps_per_call = PROMPT_LENGTH, BINS, STEPS
    return config


def random_model(bench: Bench, name: str, window: int) -> tuple[Any, Params, Params]:
    """Makes a model of a shape in bfloat16 with random weights, drawn on the device."""
    shape = describe_backbone(f"random:{gpu_shapes.write_config(name)}", "bfloat16")
    hidden = shape.config.hidden_size
    module = build_spear(model_config(window, 1), shape.module, hidden)
    shapes = {
        "backbone": param_shapes(shape.module, hidden),
        "embedding": {"table": jax.ShapeDtypeStruct((BINS + 1, hidden), jnp.float32)},
        "prompt": {"vectors": jax.ShapeDtypeStruct((PROMPT_LENGTH, hidden), jnp.float32)},
        "head": {
            "kernel": jax.ShapeDtypeStruct((hidden, 1), jnp.float32),
            "bias": jax.ShapeDtypeStruct((1,), jnp.float32),
        },
    }

    @jax.jit
    def draw() -> Tree:
        leaves, structure = jax.tree.flatten(shapes)
        keys = jax.random.split(jax.random.key(0), len(leaves))
        drawn = [
            (0.02 * jax.random.normal(key, leaf.shape, jnp.bfloat16)).astype(leaf.dtype)
            for key, leaf in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, drawn)

    parts = bench.call(draw)
    trainable = {part: parts.pop(part) for part in ("prompt", "head")}
    return module, trainable, parts


def peak_bytes() -> int:
    """Returns the most memory that this process has taken on the device."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


@functools.partial(jax.jit, static_argnums=0)
def score(module: Any, trainable: Params, frozen: Params, batch: Tree) -> jax.Array:
    """Scores a batch."""
    return jax.nn.sigmoid(module.apply(merge(trainable, frozen), batch["inputs"], batch["mask"]))


@jax.jit
def copy(tree: Tree) -> Tree:
    """Copies arrays, for a call that overwrites them."""
    return jax.tree.map(jnp.copy, tree)


@functools.partial(jax.jit, static_argnums=1)
def repeat(tree: Tree, times: int) -> Tree:
    """Repeats arrays along a new first axis."""
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * times), tree)


def measure_speed(bench: Bench, model: str, window: int) -> None:
    """Measures training and scoring in windows per second, and the memory where it exceeds that of parts before."""
    module, trainable, frozen = random_model(bench, model, window)
    optimizer = make_optimizer(model_config(window, 1))
    call, init = make_train_call(module, optimizer, 1.0), jax.jit(optimizer.init)

    def measure_batch(batch: int) -> None:
        flops = gpu_shapes.count_flops(model, window, batch)
        inputs = random_batch(batch, window)
        batches = jax.tree.map(lambda leaf: np.stack([leaf] * STEPS), inputs)
        if not bench.compile_only:
            inputs, batches = jax.device_put((inputs, batches))
        carry = [bench.call(copy, trainable), bench.call(init, trainable)]

        def train() -> Any:
            *carry[:], metrics = bench.call(call, *carry, frozen, batches, STEPS)
            return metrics

        def score_batch() -> Any:
            return bench.call(score, module, trainable, frozen, inputs)

        for what, run, steps, count in (
            ("training", train, STEPS, flops.training),
            ("scoring", score_batch, 1, flops.forward),
        ):
            before = peak_bytes()
            seconds = bench.seconds(run) / steps
            bench.add(
                model=model,
                window=window,
                batch=batch,
                what=what,
                windows_per_second=batch / seconds,
                ms=seconds * 1e3,
                flops_per_window=count,
                peak_gigabytes=peak_bytes() / 1e9 if peak_bytes() > before else None,
            )

    gpu_shapes.try_batches(model, window, measure_batch, bench)


@mock.patch("spear_jax.backbones.attention.cudnn_can", lambda _: False)
def measure_detectors(bench: Bench, prompts: int) -> None:
    """Measures several prompts at once, each with its own batch of 32 windows, through one frozen backbone.

    Attention is XLA's, since JAX cannot vmap over a mask of cuDNN's.
    """
    model, window, each = ("tiny-bert", 12, 2) if ON_CPU else ("minilm", 128, 32)
    module, trainable, frozen = random_model(bench, model, window)
    optimizer = make_optimizer(model_config(window, each))
    call = make_train_call(module, optimizer, 1.0)
    scores = jax.jit(jax.vmap(functools.partial(score, module), (0, None, 0)))
    train_all = jax.jit(jax.vmap(call, (0, 0, None, 0, None)), donate_argnums=(0, 1))
    many = bench.call(repeat, trainable, prompts)
    inputs = jax.tree.map(lambda leaf: np.stack([leaf] * prompts), random_batch(each, window))
    batches = jax.tree.map(lambda leaf: np.stack([leaf] * STEPS, axis=1), inputs)
    if not bench.compile_only:
        inputs, batches = jax.device_put((inputs, batches))
    carry = [bench.call(copy, many), bench.call(jax.jit(jax.vmap(optimizer.init)), many)]

    def train() -> Any:
        *carry[:], metrics = bench.call(train_all, *carry, frozen, batches, STEPS)
        return metrics

    def score_all() -> Any:
        return bench.call(scores, many, frozen, inputs)

    common = {"model": model, "window": window, "prompts": prompts, "windows_each": each}
    for what, run, steps in (("training", train, STEPS), ("scoring", score_all, 1)):
        seconds = bench.seconds(run) / steps
        bench.add(**common, what=what, windows_per_second=prompts * each / seconds)


def formula(query: jax.Array, key: jax.Array, value: jax.Array, causal: bool) -> jax.Array:
    """Attends with the package's own formula, never cuDNN, which has no weights; XLA drops these."""
    batch, length, _, size = query.shape
    allowed = jnp.ones((batch, 1, length), bool)
    if causal:
        allowed = jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (batch, length, length))
    return attend(query, key, value, allowed, scale=size**-0.5, weights=True)[0]


def of_jax(
    implementation: Any, masked: bool, query: jax.Array, key: jax.Array, value: jax.Array, causal: bool
) -> jax.Array:
    """Attends with jax.nn.dot_product_attention; if `masked`, the number of real keys is data, as with padding."""
    batch, length, heads, size = query.shape
    lengths = jnp.full(batch, length, jnp.int32) if masked else None
    attended = jax.nn.dot_product_attention(
        query,
        key,
        value,
        is_causal=causal,
        query_seq_lengths=lengths if implementation == "cudnn" else None,
        key_value_seq_lengths=lengths,
        implementation=implementation,
    )
    return attended.reshape(batch, length, heads * size)


ATTENTIONS: dict[str, Callable[..., jax.Array]] = {
    "formula": formula,
    "jax.nn, xla": functools.partial(of_jax, "xla", True),
    "jax.nn, cudnn": functools.partial(of_jax, "cudnn", True),
    "jax.nn, cudnn, no padding": functools.partial(of_jax, "cudnn", False),
}


def attention_layer(
    attention: Callable[..., jax.Array], size: int, causal: bool, x: jax.Array, kernels: list[jax.Array]
) -> jax.Array:
    """Computes attention with its four linear layers."""
    query, key, value = ((x @ kernel).reshape(*x.shape[:2], -1, size) for kernel in kernels[:3])
    return attention(query, key, value, causal) @ kernels[3]


def measure_attention(bench: Bench, model: str, window: int) -> None:
    """Measures one layer's attention, with its four linear layers: forward, and with the gradient of its input."""
    shape, batch = gpu_shapes.MODELS[model], gpu_shapes.BATCHES[model, window][0]
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    size, shared = shape.get("head_dim", hidden // heads), shape.get("num_key_value_heads", heads)
    widths = [(hidden, heads * size), (hidden, shared * size), (hidden, shared * size), (heads * size, hidden)]

    @jax.jit
    def draw() -> tuple[jax.Array, list[jax.Array]]:
        keys = jax.random.split(jax.random.key(0), 5)
        kernels = [0.05 * jax.random.normal(key, width, jnp.bfloat16) for key, width in zip(keys, widths, strict=False)]
        return jax.random.normal(keys[4], (batch, window + PROMPT_LENGTH, hidden), jnp.bfloat16), kernels

    x, kernels = bench.call(draw)
    reference = None
    for name, attention in ATTENTIONS.items():
        layer = functools.partial(attention_layer, attention, size, shape["model_type"] == "gemma")

        def square(x: jax.Array, kernels: list[jax.Array], layer: Any = layer) -> jax.Array:
            return jnp.sum(layer(x, kernels).astype(jnp.float32) ** 2)

        common = {"model": model, "window": window, "batch": batch, "variant": name}
        forward, both = jax.jit(layer), jax.jit(jax.grad(square))
        try:
            forward_seconds, gradient_seconds = (
                bench.seconds(functools.partial(bench.call, function, x, kernels), at_least=0.02)
                for function in (forward, both)
            )
            if bench.compile_only:
                continue
            result = np.asarray(forward(x, kernels), np.float32)
            reference = result if reference is None else reference
            bench.add(
                **common,
                forward_ms=1e3 * forward_seconds,
                gradient_ms=1e3 * gradient_seconds,
                difference=relative_error(result, reference),
            )
        except Exception as error:
            bench.add(**common, failed=reason(error))


TINY_RUN = {
    "data.synthetic.series": 6,
    "data.synthetic.length": 256,
    "data.synthetic.past": 64,
    "data.window": 32,
    "data.stride": 32,
    "controls.head_only": "false",
    "train.epochs": 1,
    "train.batch_size": 8,
    "score.batch_size": 8,
    "prompt.length": 4,
}


def measure_quickstart(bench: Bench, variant: str) -> None:
    """Runs the quickstart as shipped, in float32 or bfloat16; 'debug' is its smallest run."""
    fields = TINY_RUN if variant == "debug" else {"backbone.dtype": variant}
    config = "configs/quickstart.py" + (":debug" if variant == "debug" else "")
    with tempfile.TemporaryDirectory(prefix="spear_gpu_") as folder:
        words = [f"--config.{name}={value}" for name, value in fields.items()]
        code = run_program([f"--config={config}", f"--workdir={folder}", *words])
        if code != 0:
            raise RuntimeError(f"exit code {code}")
        results = json.loads((Path(folder) / "results.json").read_text())
    bench.add(
        backbone=results["backbone"],
        test={name: results["test"][name] for name in ("auroc", "aupr", "vus_pr", "f1", "event_f1")},
        seconds=results["seconds"],
        throughput=results["throughput"],
        memory=results.get("memory"),
        device=results["versions"]["device"],
    )


MEASURES: dict[str, Callable[..., None]] = {
    "rates": measure_rates,
    "parity": measure_parity,
    "speed": measure_speed,
    "attention": measure_attention,
    "detectors": measure_detectors,
    "quickstart": measure_quickstart,
}


def main() -> None:
    arguments = read_arguments()
    if not ON_CPU and jax.default_backend() == "cpu":
        sys.exit("error: JAX finds no GPU")
    recorder = Recorder(arguments.file)
    bench = Bench(recorder, arguments.compile_only)

    def count(event: str, **_: Any) -> None:
        name = event.removeprefix("/jax/compilation_cache/")
        if name in ("cache_hits", "cache_misses"):
            recorder.counts[name] = recorder.counts.get(name, 0) + 1

    jax.monitoring.register_event_listener(count)

    def measure(kind: str, *words: str) -> None:
        MEASURES[kind](bench, *[int(word) if word.isdigit() else word for word in words])
        bench.finish()

    for part in arguments.parts:
        recorder.run(part, functools.partial(measure, *part.split()))


if __name__ == "__main__":
    main()
