"""Finding, checking and loading backbones: every source of weights and every kind of damage, offline."""

import hashlib
import json
import mmap
import subprocess
import sys
import time
from pathlib import Path

import gemma
import hub_server
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
from hub_server import COMMIT
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.backbones.pretrained import load_backbone
from spear_jax.backbones.weights import finding
from spear_jax.backbones.weights.finding import WeightPackage
from spear_jax.backbones.weights.safetensors_files import read_safetensors
from spear_jax.errors import InputError

H, LAYERS, INNER, V, POSITIONS = 8, 2, 12, 20, 16
CONFIG_JSON = {
    "model_type": "bert",
    "hidden_size": H,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": INNER,
    "vocab_size": V,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}


def checkpoint():
    """Returns a BERT's tensors under today's names."""
    shapes = {
        "embeddings.word_embeddings.weight": (V, H),
        "embeddings.position_embeddings.weight": (POSITIONS, H),
        "embeddings.token_type_embeddings.weight": (2, H),
        "embeddings.LayerNorm.weight": (H,),
        "embeddings.LayerNorm.bias": (H,),
    }
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        for name, out, into in [
            ("attention.self.query", H, H),
            ("attention.self.key", H, H),
            ("attention.self.value", H, H),
            ("attention.output.dense", H, H),
            ("intermediate.dense", INNER, H),
            ("output.dense", H, INNER),
        ]:
            shapes |= {f"{layer}.{name}.weight": (out, into), f"{layer}.{name}.bias": (out,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{layer}.{name}.weight": (H,), f"{layer}.{name}.bias": (H,)}
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


TENSORS = checkpoint()
QUERY = "encoder.layer.1.attention.self.query.weight"
NORM = "encoder.layer.0.output.LayerNorm.weight"


def write(folder, tensors=TENSORS, config=CONFIG_JSON):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return folder


def write_vocabulary(folder):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "##s"]
    (folder / "vocab.txt").write_text("\n".join(words))


def refusal(name, *parts, **kwargs):
    """Checks that loading is refused in one line with all the parts; returns the line."""
    with pytest.raises(InputError) as caught:
        load_backbone(str(name), **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


def assert_same_weights(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual.params, expected.params)
    ids = np.arange(expected.vocabulary_size)
    np.testing.assert_array_equal(actual.word_rows(ids), expected.word_rows(ids))


@pytest.fixture(autouse=True)
def no_hub(tmp_path, monkeypatch):
    """An empty cache, and a Hub at a port without a server."""
    hub_server.leave(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return load_backbone(str(write(tmp_path_factory.mktemp("plain"))))


# --- A local folder -----------------------------------------------------


def test_local_folder(plain):
    assert plain.pretrained
    assert plain.revision == "local"
    file = plain.files.folder / "model.safetensors"
    assert plain.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (plain.hidden_size, plain.max_positions, plain.vocabulary_size) == (H, POSITIONS, V)
    query = plain.params["last_layer"]["query"]
    np.testing.assert_array_equal(query["kernel"], TENSORS[QUERY].T)
    np.testing.assert_array_equal(plain.params["layers"]["output_norm"]["scale"][0], TENSORS[NORM])


def test_word_table_is_mapped_and_rows_are_gathered(plain):
    base = plain.word_table
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base.obj, mmap.mmap)
    table = TENSORS["embeddings.word_embeddings.weight"]
    ids = np.array([[3, 0], [19, 3]])
    np.testing.assert_array_equal(plain.word_rows(ids), table[ids])
    np.testing.assert_array_equal(plain.embed(ids), table[ids])
    mean, deviation = plain.word_table_statistics
    np.testing.assert_allclose(mean, table.mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation, table.std(0), rtol=1e-5)


@pytest.mark.parametrize("number", [-1, V])
def test_ids_outside_the_vocabulary_are_refused(plain, number):
    with pytest.raises(InputError, match=rf"token id {number} .*\(0 to 19\)"):
        plain.word_rows(np.array([0, number]))


def test_encode(plain):
    hidden = plain.encode(plain.embed(np.array([[1, 2, 3]])), np.ones((1, 3), bool))
    assert hidden.shape == (1, 3, H)
    assert np.isfinite(hidden).all()


# --- Names --------------------------------------------------------------


def respell(name, prefix, old):
    if old:
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        name = name.replace("LayerNorm.bias", "LayerNorm.beta")
    return f"bert.{name}" if prefix else name


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_spellings(plain, tmp_path, prefix, old):
    tensors = {respell(name, prefix, old): tensor for name, tensor in TENSORS.items()}
    for unused in ("cls.predictions.bias", "classifier.weight", "bert.pooler.dense.weight"):
        tensors[unused] = np.zeros(3, np.float32)
    tensors[respell("embeddings.position_ids", prefix, old)] = np.arange(POSITIONS)[None]
    assert_same_weights(load_backbone(str(write(tmp_path / "model", tensors))), plain)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=len(TENSORS)))
def test_mixed_spellings(plain, tmp_path_factory, choices):
    pairs = zip(TENSORS.items(), choices, strict=False)
    tensors = {respell(name, *choice): tensor for (name, tensor), choice in pairs}
    folder = write(tmp_path_factory.mktemp("mixed"), tensors)
    assert_same_weights(load_backbone(str(folder)), plain)


@pytest.mark.parametrize("spelling", [respell(NORM, False, True), respell(NORM, True, False)])
def test_two_spellings_of_one_parameter_are_refused(tmp_path, spelling):
    folder = write(tmp_path / "model", TENSORS | {spelling: TENSORS[NORM]})
    refusal(folder, folder, NORM, spelling, "two spellings")


def test_missing_unexpected_and_wrong_tensors_are_named(tmp_path):
    tensors = TENSORS | {"embeddings.extra": np.zeros(1, np.float32), NORM: np.zeros(3, np.float32)}
    del tensors[QUERY]
    folder = write(tmp_path / "model", tensors)
    message = refusal(folder, folder)
    assert f"1 missing: {QUERY};" in message
    assert "1 unexpected: embeddings.extra;" in message
    assert f"1 of the wrong shape: {NORM} (3,) instead of (8,)" in message


def test_a_long_list_of_tensors_is_cut(tmp_path):
    config = CONFIG_JSON | {"num_hidden_layers": LAYERS + 1}
    message = refusal(write(tmp_path / "model", config=config), "16 missing: ", "and 11 more")
    assert message.count("encoder.layer.2.") == 5


# --- Files and dtypes ---------------------------------------------------


@pytest.mark.parametrize("stored", [np.float16, np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stored_and_target_dtypes(tmp_path, stored, dtype):
    tensors = {name: tensor.astype(stored) for name, tensor in TENSORS.items()}
    backbone = load_backbone(str(write(tmp_path / "model", tensors)), dtype)
    assert backbone.word_table.dtype == stored
    rows = backbone.word_rows(np.arange(V))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, backbone.word_table.astype(np.float32))
    kernel = backbone.params["last_layer"]["query"]["kernel"]
    np.testing.assert_array_equal(kernel, tensors[QUERY].T.astype(dtype))
    assert backbone.params["embedding_norm"]["scale"].dtype == np.float32
    hidden = backbone.encode(backbone.embed(np.array([[1, 2]])), np.ones((1, 2), bool))
    assert hidden.dtype == dtype


def test_integer_weights_are_refused(tmp_path):
    folder = write(tmp_path / "model", TENSORS | {QUERY: np.zeros((H, H), np.int8)})
    refusal(folder, QUERY, "int8", "not float16, float32 or bfloat16")


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_truncated_file(tmp_path, size):
    file = write(tmp_path / "model") / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:size])
    refusal(file.parent, file, "truncated")


def write_header(folder, header):
    file = folder / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return file


@pytest.mark.parametrize(
    "header",
    [
        b"not JSON",
        b"[]",
        b'{"a": {"dtype": "F32"}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
    ],
)
def test_bad_header(tmp_path, header):
    file = write_header(tmp_path, header)
    with pytest.raises(InputError, match="truncated or not a safetensors file") as caught:
        read_safetensors(file)
    assert str(file) in str(caught.value)


def test_a_dtype_without_numpy_counterpart_is_refused(tmp_path):
    file = write_header(tmp_path, b'{"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}')
    with pytest.raises(InputError, match="tensor 'a' is F8_E4M3, supported are F64, F32"):
        read_safetensors(file)


def write_shards(folder):
    write(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(TENSORS)
    weight_map = {}
    for i, part in enumerate([names[:9], names[9:]], start=1):
        shard = f"model-0000{i}-of-00002.safetensors"
        safetensors.numpy.save_file({name: TENSORS[name] for name in part}, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    write_index(folder, weight_map)
    return weight_map


def write_index(folder, weight_map):
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_shards(plain, tmp_path):
    shards = sorted(set(write_shards(tmp_path).values()))
    backbone = load_backbone(str(tmp_path))
    assert_same_weights(backbone, plain)
    digests = [hashlib.sha256((tmp_path / shard).read_bytes()).hexdigest() for shard in shards]
    assert backbone.sha256 == hashlib.sha256("".join(digests).encode()).hexdigest()


def test_missing_shard(tmp_path):
    shard = tmp_path / write_shards(tmp_path)[QUERY]
    shard.unlink()
    refusal(tmp_path, shard, "the shard is missing")


def test_index_that_does_not_fit_its_shards(tmp_path):
    weight_map = write_shards(tmp_path)
    write_index(tmp_path, weight_map | {"phantom": weight_map[QUERY]})
    refusal(tmp_path, weight_map[QUERY], "'phantom' is missing")
    for bad in ({"a": "../elsewhere.safetensors"}, {"a": 1}, None):
        write_index(tmp_path, bad)
        refusal(tmp_path, "model.safetensors.index.json", "weight_map")


def test_folders_that_are_not_models(tmp_path):
    refusal(tmp_path, tmp_path, "no config.json")
    (tmp_path / "config.json").write_text("{")
    refusal(tmp_path, tmp_path / "config.json", "cannot be read as JSON")
    (tmp_path / "config.json").write_text("[]")
    refusal(tmp_path, tmp_path / "config.json", "must contain a JSON object, not list")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_JSON))
    refusal(tmp_path, tmp_path, "no model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_JSON | {"model_type": "gpt2"}))
    refusal(tmp_path, tmp_path / "config.json", "model_type 'gpt2'", "supported: bert, roberta")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_JSON | {"vocab_size": "20"}))
    refusal(tmp_path, tmp_path / "config.json", "transformers rejects it", "'vocab_size' expected int")


@pytest.mark.parametrize("name", ["bert", "./no/folder", "/no/folder", "a/b/c", "", "random:", "a/b@"])
def test_impossible_names(name):
    refusal(name, "neither an existing folder", "'org/name'", "random:tiny")


def test_impossible_dtype():
    refusal("random:tiny", "backbone.dtype = 'float16'", "'float32', 'bfloat16'", dtype="float16")


# --- Tokenizers ---------------------------------------------------------


def test_tokenizer_from_vocabulary(tmp_path):
    folder = write(tmp_path / "model")
    write_vocabulary(folder)
    backbone = load_backbone(str(folder))
    assert backbone.tokenize("One twos three") == [5, 6, 7, 1]
    assert backbone.special_ids == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert load_backbone(str(folder)).tokenize("One two") == [1, 6]


def test_tokenizer_from_json_neither_pads_nor_cuts(tmp_path):
    folder = write(tmp_path / "model")
    write_vocabulary(folder)
    tokenizer = tokenizers.BertWordPieceTokenizer(str(folder / "vocab.txt"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"cls_token": "one", "sep_token": "two"}))
    backbone = load_backbone(str(folder))
    assert backbone.tokenize("one") == [5]
    assert backbone.tokenize("one " * 9) == [5] * 9
    assert (backbone.special_ids["cls"], backbone.special_ids["sep"]) == (5, 6)


def test_missing_and_damaged_tokenizers_are_refused(plain, tmp_path):
    with pytest.raises(InputError, match="no tokenizer") as caught:
        plain.tokenize("one")
    assert str(plain.files.folder) in str(caught.value)
    folder = write(tmp_path / "model")
    for content in ("{", "{}"):
        (folder / "tokenizer.json").write_text(content)
        with pytest.raises(InputError, match="tokenizer cannot be read") as caught:
            load_backbone(str(folder)).tokenize("one")
        assert "\n" not in str(caught.value)


def test_a_special_token_without_a_row_in_the_word_table_is_absent(tmp_path):
    config = CONFIG_JSON | {"vocab_size": 8}
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    write_vocabulary(folder)
    (folder / "tokenizer_config.json").write_text('{"cls_token": "<s>"}')
    assert "cls" not in load_backbone(f"random:{folder}").special_ids


def test_transformers_is_quiet_and_needs_no_network(tmp_path):
    """The first Gemma's activation and a missing PyTorch are worth a warning to transformers; neither matters here."""
    folder = gemma.write(tmp_path / "gemma")
    program = f"""
import importlib.util, socket
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find_spec(name, *rest)
socket.socket.connect = lambda *_: 1 / 0
from spear_jax.backbones import load_backbone
print(load_backbone("random:{folder}").tokenize("12"))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[5, 6]\n", "")


# --- Random weights -----------------------------------------------------


def test_random_tiny():
    backbone, again = load_backbone("random:tiny"), load_backbone("random:tiny")
    assert not backbone.pretrained
    assert backbone.name == "random:tiny"
    assert backbone.files is None
    assert len(backbone.sha256) == 64
    assert backbone.sha256 == again.sha256
    assert_same_weights(backbone, again)
    assert (backbone.hidden_size, backbone.max_positions, backbone.vocabulary_size) == (
        32,
        512,
        1000,
    )
    tokens = [backbone.tokenize(str(number)) for number in range(500)]
    assert all(len(token) == 1 for token in tokens)
    assert len({token[0] for token in tokens} | set(backbone.special_ids.values())) == 505
    assert load_backbone("random:tiny", "bfloat16").sha256 == backbone.sha256  # of the numbers drawn


def test_random_weights_in_the_shape_of_a_folder(plain, tmp_path):
    folder = write(tmp_path / "model")
    write_vocabulary(folder)
    (folder / "model.safetensors").unlink()
    backbone = load_backbone(f"random:{folder}")
    assert not backbone.pretrained
    assert backbone.config == plain.config
    assert backbone.sha256 != plain.sha256
    assert backbone.word_rows(np.arange(V)).std() == pytest.approx(0.02, rel=0.2)
    assert backbone.tokenize("one") == [5]


# --- Weight packages ----------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = write(tmp_path / "site" / "fake_weights" / "model")
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    content = (folder / "model.safetensors").read_bytes()
    files = ["__init__.py", "model/config.json", "model/model.safetensors"]
    about = tmp_path / "site" / "fake_weights-1.5.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-weights\nVersion: 1.5\n")
    (about / "RECORD").write_text("".join(f"fake_weights/{file},,\n" for file in files))
    entry = WeightPackage("fake-weights", hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(finding.WEIGHT_PACKAGES, "some/model", entry)
    return folder


def test_weight_package_is_found_and_not_imported(plain, package):
    backbone = load_backbone("some/model")
    assert_same_weights(backbone, plain)
    assert backbone.files.folder == package
    assert backbone.revision == "fake-weights==1.5"
    assert_same_weights(load_backbone("package:fake-weights"), plain)
    refusal("some/model@v1", "'some/model@v1'", "the Hub")  # a revision is the Hub's


def test_wrong_checksum_of_a_weight_package(package):
    expected = finding.WEIGHT_PACKAGES["some/model"].sha256
    file = package / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    actual = hashlib.sha256(file.read_bytes()).hexdigest()
    refusal("some/model", file, expected, actual)


def test_weight_package_that_is_not_installed(monkeypatch):
    entry = WeightPackage("not-installed-weights", "0" * 64)
    monkeypatch.setitem(finding.WEIGHT_PACKAGES, "some/model", entry)
    refusal("some/model", "not-installed-weights (not installed)", "the cache", "the Hub")


# --- The Hugging Face cache and Hub -------------------------------------


def test_cache(plain, tmp_path):
    cached = tmp_path / "hub" / "models--some--model"
    folder = write(cached / "snapshots" / COMMIT)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    backbone = load_backbone("some/model")
    assert_same_weights(backbone, plain)
    assert backbone.revision == COMMIT
    assert load_backbone(f"some/model@{COMMIT}").sha256 == plain.sha256
    (folder / "model.safetensors").unlink()
    refusal("some/model", "the cache", "not complete")
    assert load_backbone("random:some/model").config == plain.config


@pytest.mark.parametrize("name", ["some/model", "google-bert/bert-base-uncased"])
def test_unreachable_hub_is_reported_at_once(tmp_path, name):
    start = time.monotonic()
    refusal(name, name, tmp_path / "hub", "the Hub http://127.0.0.1:9", "ConnectError", "local folder")
    assert time.monotonic() - start < 10


def test_offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refusal("some/model", "the Hub", "OfflineModeIsEnabled")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    folder = write(tmp_path / "served")
    write_vocabulary(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not wanted")
    with hub_server.serve(folder, monkeypatch) as handler:
        yield handler


@pytest.mark.parametrize("name", ["some/model", f"some/model@{COMMIT}"])
def test_download_and_then_from_the_cache(plain, hub, monkeypatch, name):
    backbone = load_backbone(name)
    assert_same_weights(backbone, plain)
    assert backbone.revision == COMMIT
    assert backbone.tokenize("one") == [5]
    assert not (backbone.files.folder / "pytorch_model.bin").exists()
    hub_server.place(hub_server.NOWHERE, monkeypatch)
    assert_same_weights(load_backbone(name), plain)


def test_download_without_weights(hub):
    backbone = load_backbone("random:some/model")
    assert not (backbone.files.folder / "model.safetensors").exists()
    assert backbone.tokenize("one") == [5]


def test_gated_model(hub):
    hub.gated = True
    refusal("some/model", "gated", "accept its licence at https://huggingface.co/some/model")


def test_model_that_does_not_exist(hub):
    refusal("no/model", "no/model", "the Hub", "RepositoryNotFoundError")


def test_nothing_heavy_is_imported():
    program = (
        "import sys; from spear_jax.backbones.pretrained import load_backbone; "
        "load_backbone('random:tiny'); "
        "print(sorted({'torch', 'transformers', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"
