"""Finds a frozen backbone by name, checks its files, and loads it.

A name is a local folder or file, a package, a Hugging Face id, or 'random:...' for an untrained model: see
`load_backbone`.
"""

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spear_jax.backbones.attention import INT8_GROUPS, on_recent_gpu
from spear_jax.backbones.backbone import Backbone
from spear_jax.backbones.bert import Bert, BertConfig
from spear_jax.backbones.canary import check_numbers
from spear_jax.backbones.decoder import Decoder
from spear_jax.backbones.vocabulary import Vocabulary, random_vocabulary, read_vocabulary
from spear_jax.backbones.weights.checkpoint import (
    Params,
    Put,
    RandomTable,
    map_checkpoint,
    random_params,
)
from spear_jax.backbones.weights.config_json import PUBLISHED, Fields
from spear_jax.backbones.weights.decoder_config import FAMILIES, DecoderConfig
from spear_jax.backbones.weights.finding import ModelFiles, find_weights
from spear_jax.backbones.weights.gguf_model import read_checkpoint, read_fields, stretch_rope
from spear_jax.backbones.weights.naming import GGUF_NAMINGS, NAMINGS, Naming
from spear_jax.backbones.weights.safetensors_files import open_safetensors, sha256_of_files, weight_files
from spear_jax.backbones.weights.tensors import Tensor
from spear_jax.errors import InputError
from spear_jax.parallel import keep_programs, place_frozen
from spear_jax.storage import read_json

RANDOM_SEED = 0  # of every 'random:...' backbone
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
ATTENTIONS = ("own", "causal", "bidirectional")
TINY_SHAPE = BertConfig(
    hidden_size=32,
    layers=2,
    heads=4,
    intermediate_size=64,
    vocabulary_size=1000,
    positions=512,
    type_vocabulary_size=2,
    norm_eps=1e-12,
)


@dataclasses.dataclass(frozen=True, eq=False)
class BackboneShape:
    """A backbone without weights: its module, and the names of its parameters in the files, if there are files."""

    name: str
    dtype: str
    int8: str
    config: BertConfig | DecoderConfig
    module: Bert | Decoder
    naming: Naming
    files: ModelFiles | None

    @property
    def pretrained(self) -> bool:
        """Returns whether the weights are pretrained, not random."""
        return not self.name.startswith("random:")

    def last_layers(self, layers: int) -> "BackboneShape":
        """Returns the shape of the backbone's last layers alone."""
        changes: dict[str, Any] = {"layers": layers}
        if isinstance(self.config, DecoderConfig):
            changes["sliding"] = self.config.sliding[-layers:]
        config = dataclasses.replace(self.config, **changes)
        return dataclasses.replace(self, config=config, module=self.module.clone(config=config))


def choose_dtype(dtype: str, platform: str = "") -> str:
    """Returns a dtype; for 'auto', the one that suits a platform, by default that of this machine's devices.

    It is bfloat16 where matrix products are several times as fast in it: on TPUs and NVIDIA's GPUs from Ampere on.
    """
    if dtype != "auto":
        return dtype
    return "bfloat16" if (platform or jax.default_backend()) == "tpu" or on_recent_gpu() else "float32"


def describe_backbone(
    name_or_folder: str,
    dtype: str = "float32",
    *,
    int8: str = "none",
    attention: str = "own",
    remat: bool = False,
    config_only: bool = True,
) -> BackboneShape:
    """Finds a model and reads its shape, but no weights, which may be missing if `config_only`; see `load_backbone`.

    Raises:
      InputError: the model cannot be found, or is of a kind that is not supported.
    """
    dtype = choose_dtype(dtype)
    for field, value, allowed in (
        ("dtype", dtype, ("auto", *DTYPES)),
        ("int8", int8, tuple(INT8_GROUPS)),
        ("attention", attention, ATTENTIONS),
    ):
        if value not in allowed:
            raise InputError(f"backbone.{field} = {value!r}, must be one of {', '.join(map(repr, allowed))}")
    files: ModelFiles | None = None
    config: BertConfig | DecoderConfig = TINY_SHAPE
    model_type = "bert"
    if name_or_folder != "random:tiny":
        files, fields = _read_config(name_or_folder, config_only)
        model_type = fields.get("model_type")
        config = (DecoderConfig if model_type in FAMILIES else BertConfig).from_fields(fields)
    naming = NAMINGS[model_type]
    if files and files.gguf:
        naming = GGUF_NAMINGS[files.gguf.architecture]
        if isinstance(config, DecoderConfig):
            config = stretch_rope(config, files.gguf)
    causal = {"own": config.causal, "causal": True, "bidirectional": False}[attention]
    kind: Any = Decoder if isinstance(config, DecoderConfig) else Bert
    module = kind(config, DTYPES[dtype], int8, causal, remat)
    return BackboneShape(name_or_folder, dtype, int8, config, module, naming, files)


def _read_config(name_or_folder: str, config_only: bool) -> tuple[ModelFiles | None, Fields]:
    """Finds a model's files and reads its config; the shapes in `PUBLISHED` need no files if weights are not read."""
    name = name_or_folder.removeprefix("random:")
    config_only = config_only or name != name_or_folder
    try:
        files = find_weights(name, config_only)
    except InputError as error:
        if name != name_or_folder and name not in PUBLISHED:
            reason = str(error).removeprefix("backbone.name ")
            raise InputError(f"backbone.name {name_or_folder!r}: {reason}") from error
        if not config_only or name not in PUBLISHED:
            raise
        return None, Fields.parse(PUBLISHED[name], name)
    if files.gguf:
        return files, read_fields(files.gguf)
    file = files.folder / "config.json"
    content = read_json(file)
    model_type = content.get("model_type")
    if model_type not in tuple(NAMINGS):
        raise InputError(f"{file}: model_type {model_type!r} is not supported (supported: {', '.join(NAMINGS)})")
    return files, Fields.parse(content, str(file))


def load_backbone(
    name_or_folder: str,
    dtype: str = "float32",
    *,
    int8: str = "none",
    attention: str = "own",
    remat: bool = False,
    mesh: jax.sharding.Mesh | None = None,
) -> Backbone:
    """Finds, checks and loads a frozen backbone.

    Args:
      name_or_folder: one of
        a folder with config.json and model.safetensors (or shards and their index), or with a model in GGUF;
        a file in GGUF, which may be one part of a split model;
        'package:NAME', an installed Python package with such a file or folder; none of its code is run;
        a Hugging Face id 'org/name' or 'org/name@revision', searched for in its weight package (`WEIGHT_PACKAGES`,
        only without a revision), the Hugging Face cache, and the Hub;
        a GGUF file of a Hugging Face repository, 'org/name/FILE.gguf' or 'org/name/FILE.gguf@revision';
        'random:tiny', two small layers made in place, whose tokenizer knows the numbers 0 to 499;
        'random:<any of these>', that model's shape and tokenizer with untrained weights (for the ids in `PUBLISHED`
        that cannot be found, the shape is known and the tokenizer is that of 'random:tiny').
      dtype: 'float32' or 'bfloat16', see `Backbone.dtype`, or 'auto', see `choose_dtype`.
      int8: 'none', 'channel' or 'grouped', see `Backbone.int8`.
      attention: 'own' keeps the model's attention; 'causal' and 'bidirectional' override it.
      remat: see `Bert.remat`.
      mesh: devices onto which each parameter is put as soon as it is read, see `parallel.frozen_sharding`; None leaves
        them in host memory.

    Raises:
      InputError: the model cannot be found, its files are damaged, it is of a kind that is not supported, or the
        device cannot compute in this dtype, or computes wrong numbers.
    """
    keep_programs()
    dtype = choose_dtype(dtype)
    shape = describe_backbone(name_or_folder, dtype, int8=int8, attention=attention, remat=remat, config_only=False)

    def put(array: np.ndarray) -> Any:
        return array if mesh is None else place_frozen(array, mesh)

    with ThreadPoolExecutor(1) as pool:  # most of the check is compiling, which reading need not wait for
        check = pool.submit(check_numbers, dtype)
        if shape.files is None or not shape.pretrained:
            weights = _random_weights(shape, put)
        else:
            weights = _checkpoint_weights(shape, shape.files, put)
        check.result()
    return Backbone(
        name=name_or_folder,
        dtype=dtype,
        int8=int8,
        pretrained=shape.pretrained,
        config=shape.config,
        module=shape.module,
        files=shape.files,
        **weights._asdict(),
    )


class _Weights(NamedTuple):
    """The fields of `Backbone` that come from its weights."""

    revision: str
    sha256: str
    params: Params
    word_table: Tensor | RandomTable
    read_vocabulary: Callable[[], Vocabulary]


def _random_weights(shape: BackboneShape, put: Put) -> _Weights:
    config, size = shape.config, shape.config.hidden_size
    plus_one = isinstance(config, DecoderConfig) and config.norm == "rms_plus_one"
    params, sha256 = random_params(
        shape.module, size, seed=RANDOM_SEED, norm_start=0.0 if plus_one else 1.0, int8=shape.int8, put=put
    )
    table = RandomTable(config.vocabulary_size, size, RANDOM_SEED)
    vocabulary = functools.partial(random_vocabulary, config, table, RANDOM_SEED)
    return _Weights(f"seed={RANDOM_SEED}", sha256, params, table, vocabulary)


def _checkpoint_weights(shape: BackboneShape, files: ModelFiles, put: Put) -> _Weights:
    """Reads a checkpoint.

    Raises:
      InputError: it is damaged, does not fit the config, or differs from the published one.
    """
    config = shape.config
    paths = files.gguf.files if files.gguf else weight_files(files.folder)
    sha256 = sha256_of_files(paths)
    if files.sha256 not in ("", sha256):
        raise InputError(
            f"{paths[0]}: its sha256 is {sha256}, expected {files.sha256}: remove it and install its package again"
        )
    if files.gguf:
        shared = config.key_value_heads if isinstance(config, DecoderConfig) else config.heads
        checkpoint = read_checkpoint(files.gguf, config.heads, shared)
    else:
        checkpoint = open_safetensors(files.folder)
    params, table = map_checkpoint(
        checkpoint,
        shape.naming,
        shape.module,
        layers=config.layers,
        table=(config.vocabulary_size, config.hidden_size),
        int8=shape.int8,
        put=put,
    )
    vocabulary = functools.partial(read_vocabulary, checkpoint, shape.naming, config, table)
    return _Weights(files.revision, sha256, params, table, vocabulary)
