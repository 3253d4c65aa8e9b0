"""Measures the parts of the GPU benchmark that run in JAX; gpu.py starts it, a process for each part.

python benchmarks/gpu_jax.py RESULTS.json rates|parity|speed|attention|detectors [MODEL WINDOW]
"""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_shapes
import jax
import jax.numpy as jnp
import numpy as np
from gpu_shapes import PROMPT_LENGTH, Recorder, median_seconds, reason
from ml_collections import ConfigDict

from spear_jax.backbones import describe_backbone, load_backbone, param_shapes
from spear_jax.backbones.attention import attend
from spear_jax.config import MINILM, TINY, default_config
from spear_jax.model import Params, assemble_model, merge
from spear_jax.model.assemble import build_spear
from spear_jax.training import make_optimizer, make_train_call
from spear_jax.training.step import loss_sum

STEPS = 4  # optimizer steps of a training call
BINS = 100
ON_CPU = os.environ.get("JAX_PLATFORMS") == "cpu"
Tree = Any


def measure(run: Callable[[], Any], **options: Any) -> float:
    """Returns the median seconds of a call of JAX."""
    return median_seconds(run, jax.block_until_ready, **options)


def measure_rates(recorder: Recorder) -> None:
    """Measures a large matrix product in bfloat16 and a copy in memory, and names the device and the versions."""
    from importlib.metadata import PackageNotFoundError, version

    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "transformers", "nvidia-cudnn-cu13", "torch", "peft")
    versions = {"python": sys.version.split()[0]}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    recorder.add(device=jax.devices()[0].device_kind, devices=jax.device_count(), versions=versions)
    size = 256 if ON_CPU else 8192
    key_a, key_b = jax.random.split(jax.random.key(0))
    a = jax.random.normal(key_a, (size, size), jnp.bfloat16)
    b = jax.random.normal(key_b, (size, size), jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    seconds = measure(lambda: product(a, b), repeats=9)
    recorder.add(matmul=f"bfloat16 {size}^3", tflops=2 * size**3 / seconds / 1e12, ms=seconds * 1e3)
    x = jax.random.normal(key_a, (2**16 if ON_CPU else 2**29,), jnp.float32)
    negative = jax.jit(jnp.negative)  # reads and writes every number
    seconds = measure(lambda: negative(x), repeats=9)
    recorder.add(copy="float32, bytes read and written", terabytes_per_second=2 * x.nbytes / seconds / 1e12)


def random_batch(windows: int, window: int) -> dict[str, np.ndarray]:
    """Makes a batch of random bins and labels."""
    rng = np.random.default_rng(0)
    return {
        "inputs": rng.integers(0, BINS, (windows, window)).astype(np.int32),
        "mask": np.ones((windows, window), bool),
        "targets": (rng.random((windows, window)) < 0.1).astype(np.float32),
    }


def measure_parity(recorder: Recorder) -> None:
    """Compares hidden states and the prompt's gradient with float32 on the CPU: relative L2 errors, real weights."""
    cpu = jax.devices("cpu")[0]
    name = TINY if ON_CPU else MINILM
    batch = random_batch(8, 128)
    states: dict[str, Any] = {}
    gradients: dict[str, Any] = {}
    recorder.add(backbone=name, windows=8, window=128, prompt=PROMPT_LENGTH)
    for dtype, precision, where in (
        ("float32", "highest", cpu),
        ("float32", "highest", jax.devices()[0]),
        ("float32", "default", jax.devices()[0]),
        ("bfloat16", "default", jax.devices()[0]),
    ):
        config = model_config(128, 8)
        config.backbone.update(name=name, dtype=dtype)
        model = assemble_model(config, load_backbone(name, dtype))
        module = model.module
        trainable, frozen, inputs = jax.device_put(
            jax.tree.map(np.asarray, (model.trainable, model.frozen, batch)), where
        )

        def total(trainable: Params, module: Any, frozen: Params, inputs: Tree) -> jax.Array:
            return loss_sum(module, trainable, frozen, inputs, 1.0)[0]

        def features(trainable: Params, module: Any, frozen: Params, inputs: Tree) -> jax.Array:
            variables = merge(trainable, frozen)
            return module.apply(variables, inputs["inputs"], inputs["mask"], method="features")

        with jax.default_matmul_precision(precision):
            key = f"{dtype}, {precision}" if len(states) else "reference"
            states[key] = np.asarray(jax.jit(features, static_argnums=1)(trainable, module, frozen, inputs))
            gradient = jax.jit(jax.grad(total), static_argnums=1)(trainable, module, frozen, inputs)
            gradients[key] = np.asarray(gradient["prompt"]["vectors"])
        if key != "reference":
            recorder.add(
                dtype=dtype,
                precision=precision,
                hidden_states=relative_error(states[key], states["reference"]),
                prompt_gradient=relative_error(gradients[key], gradients["reference"]),
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


def random_model(name: str, window: int) -> tuple[Any, Params, Params]:
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

    parts = draw()
    trainable = {part: parts.pop(part) for part in ("prompt", "head")}
    return module, trainable, parts


def peak_gigabytes() -> float | None:
    """Returns the most memory that this process has taken on the device."""
    memory = jax.devices()[0].memory_stats()
    return memory["peak_bytes_in_use"] / 1e9 if memory else None


@functools.partial(jax.jit, static_argnums=0)
def score(module: Any, trainable: Params, frozen: Params, batch: Tree) -> jax.Array:
    """Scores a batch."""
    return jax.nn.sigmoid(module.apply(merge(trainable, frozen), batch["inputs"], batch["mask"]))


def measure_speed(recorder: Recorder, model: str, window: int) -> None:
    """Measures scoring and training in windows per second, and the most memory taken so far."""
    module, trainable, frozen = random_model(model, window)
    optimizer = make_optimizer(model_config(window, 1))
    call = make_train_call(module, optimizer, 1.0)
    state = jax.jit(optimizer.init)(trainable)

    def measure_batch(batch: int) -> None:
        flops = gpu_shapes.count_flops(model, window, batch)
        common = {"model": model, "window": window, "batch": batch}
        inputs = jax.device_put(random_batch(batch, window))
        seconds = measure(functools.partial(score, module, trainable, frozen, inputs))
        add_rate(recorder, common | {"what": "scoring"}, batch, seconds, flops.forward)
        batches = jax.tree.map(lambda leaf: jnp.stack([leaf] * STEPS), inputs)
        carry = [jax.tree.map(jnp.copy, trainable), jax.tree.map(jnp.copy, state)]  # the call overwrites them

        def train() -> Any:
            *carry[:], metrics = call(*carry, frozen, batches, STEPS)
            return metrics

        seconds = measure(train) / STEPS
        add_rate(recorder, common | {"what": "training"}, batch, seconds, flops.training)

    gpu_shapes.try_batches(model, window, measure_batch, recorder)


def add_rate(recorder: Recorder, row: dict[str, Any], windows: int, seconds: float, flops: float) -> None:
    """Records a rate, the FLOPs of a window, and the memory."""
    recorder.add(
        **row,
        windows_per_second=windows / seconds,
        ms=seconds * 1e3,
        flops_per_window=flops,
        peak_gigabytes=peak_gigabytes(),
    )


def measure_detectors(recorder: Recorder) -> None:
    """Measures many prompts at once, each with its own batch of 32 windows, through one frozen backbone."""
    model, window, each = ("tiny-bert", 12, 2) if ON_CPU else ("minilm", 128, 32)
    module, trainable, frozen = random_model(model, window)
    optimizer = make_optimizer(model_config(window, each))
    call = make_train_call(module, optimizer, 1.0)
    scores = jax.jit(jax.vmap(functools.partial(score, module), (0, None, 0)))
    train_all = jax.jit(jax.vmap(call, (0, 0, None, 0, None)), donate_argnums=(0, 1))
    for prompts in (1, 4, 16):
        many = jax.tree.map(lambda leaf, n=prompts: jnp.stack([leaf] * n), trainable)
        inputs = jax.tree.map(lambda leaf, n=prompts: jnp.stack([leaf] * n), random_batch(each, window))
        common = {"model": model, "window": window, "prompts": prompts, "windows_each": each}
        try:
            seconds = measure(functools.partial(scores, many, frozen, inputs))
            recorder.add(**common, what="scoring", windows_per_second=prompts * each / seconds)
            batches = jax.tree.map(lambda leaf: jnp.stack([leaf] * STEPS, axis=1), inputs)
            carry = [many, jax.jit(jax.vmap(optimizer.init))(many)]

            def train(carry: list[Any] = carry, batches: Tree = batches) -> Any:
                *carry[:], metrics = train_all(*carry, frozen, batches, STEPS)
                return metrics

            seconds = measure(train) / STEPS
            recorder.add(**common, what="training", windows_per_second=prompts * each / seconds)
        except Exception as error:
            recorder.add(**common, failed=reason(error))


def as_written(query: jax.Array, key: jax.Array, value: jax.Array, causal: bool) -> jax.Array:
    """Attends with the package's own function."""
    batch, length, _, size = query.shape
    allowed = jnp.ones((batch, 1, length), bool)
    if causal:
        allowed = jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (batch, length, length))
    return attend(query, key, value, allowed, scale=size**-0.5)[0]


def heads_first(query: jax.Array, key: jax.Array, value: jax.Array, causal: bool) -> jax.Array:
    """Attends with heads before positions in memory, so that every product is over the last two axes."""
    batch, length, heads, size = query.shape
    shared = key.shape[2]
    query = (query * size**-0.5).reshape(batch, length, shared, heads // shared, size).transpose(0, 2, 3, 1, 4)
    key, value = key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3)
    logits = jnp.einsum("bngqd,bnkd->bngqk", query, key, preferred_element_type=jnp.float32)
    if causal:
        logits = jnp.where(jnp.tril(jnp.ones((length, length), bool)), logits, jnp.finfo(jnp.float32).min)
    attended = jnp.einsum("bngqk,bnkd->bngqd", jax.nn.softmax(logits).astype(value.dtype), value)
    return attended.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads * size)


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
    "as written": as_written,
    "heads first": heads_first,
    "jax.nn, xla": functools.partial(of_jax, "xla", True),
    "jax.nn, cudnn": functools.partial(of_jax, "cudnn", True),
    "jax.nn, cudnn, no padding": functools.partial(of_jax, "cudnn", False),
}


def measure_attention(recorder: Recorder) -> None:
    """Measures one layer's attention, with its four linear layers: forward, and with the gradient of its input."""
    shapes = [("tiny-bert", 12), ("tiny-gemma", 12)]
    if not ON_CPU:
        shapes = [("minilm", 128), ("bert", 128), ("bert", 492), ("gemma", 128), ("minilm", 492), ("gemma", 492)]
    for model, window in shapes:
        shape, batch = gpu_shapes.MODELS[model], gpu_shapes.BATCHES[model, window][0]
        hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
        size, shared = shape.get("head_dim", hidden // heads), shape.get("num_key_value_heads", heads)
        length, causal = window + PROMPT_LENGTH, shape["model_type"] == "gemma"
        keys = jax.random.split(jax.random.key(0), 5)
        widths = [(hidden, heads * size), (hidden, shared * size), (hidden, shared * size), (heads * size, hidden)]
        kernels = [0.05 * jax.random.normal(key, width, jnp.bfloat16) for key, width in zip(keys, widths, strict=False)]
        x = jax.random.normal(keys[4], (batch, length, hidden), jnp.bfloat16)
        reference = None
        for name, attention in ATTENTIONS.items():
            common = {"model": model, "window": window, "batch": batch, "variant": name}

            def layer(
                x: jax.Array,
                kernels: list[jax.Array],
                attention: Any = attention,
                size: int = size,
                causal: Any = causal,
            ) -> jax.Array:
                query, key, value = ((x @ kernel).reshape(*x.shape[:2], -1, size) for kernel in kernels[:3])
                return attention(query, key, value, causal) @ kernels[3]

            def gradient(x: jax.Array, kernels: list[jax.Array], layer: Any = layer) -> jax.Array:
                return jax.grad(lambda x: jnp.sum(layer(x, kernels).astype(jnp.float32) ** 2))(x)

            try:
                forward, both = jax.jit(layer), jax.jit(gradient)
                result = np.asarray(forward(x, kernels), np.float32)
                reference = result if reference is None else reference
                recorder.add(
                    **common,
                    forward_ms=1e3 * measure(functools.partial(forward, x, kernels), at_least=0.02),
                    gradient_ms=1e3 * measure(functools.partial(both, x, kernels), at_least=0.02),
                    difference=relative_error(result, reference),
                )
            except Exception as error:
                recorder.add(**common, failed=reason(error))


def main() -> None:
    file, part, *arguments = sys.argv[1:]
    measures: dict[str, Callable[..., None]] = {
        "rates": measure_rates,
        "parity": measure_parity,
        "speed": measure_speed,
        "attention": measure_attention,
        "detectors": measure_detectors,
    }
    if not ON_CPU and jax.default_backend() == "cpu":
        sys.exit("error: JAX finds no GPU")
    measures[part](Recorder(Path(file)), *[int(word) if word.isdigit() else word for word in arguments])


if __name__ == "__main__":
    main()
