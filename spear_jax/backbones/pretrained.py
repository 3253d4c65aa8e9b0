"""Finds a frozen backbone by name, checks its files, and loads it.

A name is a local folder, a Hugging Face id, or 'random:...' for an untrained stand-in: see
`load_backbone`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spear_jax.backbones.attention import INT8_GROUPS
from spear_jax.backbones.backbone import Backbone
from spear_jax.backbones.bert import Bert, BertConfig
from spear_jax.backbones.decoder import Decoder
from spear_jax.backbones.vocabulary import random_vocabulary, read_vocabulary
from spear_jax.backbones.weights import decoder_config, published
from spear_jax.backbones.weights.checkpoint import Params, RandomTable, map_checkpoint, param_shapes, random_params
from spear_jax.backbones.weights.decoder_config import DecoderConfig
from spear_jax.backbones.weights.finding import Place, find_weights
from spear_jax.backbones.weights.naming import NAMINGS
from spear_jax.backbones.weights.weight_files import Checkpoint, sha256_of_files, weight_files
from spear_jax.errors import InputError
from spear_jax.storage import read_json

RANDOM_SEED = 0  # of every 'random:...' backbone


DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


ATTENTIONS = ("own", "causal", "bidirectional")


TINY = BertConfig(
    hidden_size=32,
    layers=2,
    heads=4,
    intermediate_size=64,
    vocabulary_size=1000,
    positions=512,
    type_vocabulary_size=2,
    layer_norm_eps=1e-12,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Described:
    """A model before its weights are touched.

    Attributes:
      name: as it was asked for.
      dtype: see `Backbone.dtype`.
      int8: see `Backbone.int8`.
      config: the shape.
      module: computes the hidden states.
      model_type: the family's name in config.json.
      place: where the files lie; None for 'random:tiny'.
    """

    name: str
    dtype: str
    int8: str
    config: BertConfig | DecoderConfig
    module: Bert | Decoder
    model_type: str
    place: Place | None

    @property
    def pretrained(self) -> bool:
        """False for random weights."""
        return not self.name.startswith("random:")

    def shapes(self) -> Params:
        """The parameters as `jax.ShapeDtypeStruct`."""
        return param_shapes(self.module, self.config.hidden_size)


def describe_backbone(
    name_or_folder: str,
    dtype: str = "float32",
    *,
    int8: str = "none",
    attention: str = "own",
    remat: bool = False,
    unroll: int | bool = 1,
    shape_only: bool = True,
) -> Described:
    """Finds a model and reads its shape, and no weights.

    Args:
      name_or_folder: see `load_backbone`.
      dtype: see `load_backbone`.
      int8: see `load_backbone`.
      attention: see `load_backbone`.
      remat: see `Bert.remat`.
      unroll: see `Bert.unroll`.
      shape_only: the weights will not be asked for.

    Raises:
      InputError: the model cannot be found, or is of a kind that is not supported.
    """
    for field, value, allowed in (
        ("dtype", dtype, tuple(DTYPES)),
        ("int8", int8, tuple(INT8_GROUPS)),
        ("attention", attention, ATTENTIONS),
    ):
        if value not in allowed:
            raise InputError(f"backbone.{field} = {value!r}, must be one of {', '.join(map(repr, allowed))}")
    place: Place | None = None
    config: BertConfig | DecoderConfig = TINY
    model_type: Any = "bert"
    if name_or_folder != "random:tiny":
        place, content, where = _config_json(name_or_folder, shape_only)
        model_type = content.get("model_type")
        if model_type not in NAMINGS:
            raise InputError(f"{where}: model_type {model_type!r} is not supported (supported: {', '.join(NAMINGS)})")
        decoder = model_type in decoder_config.FAMILIES
        config = (DecoderConfig if decoder else BertConfig).from_json(content, where)
    causal = {"own": config.causal, "causal": True, "bidirectional": False}[attention]
    kind: Any = Decoder if isinstance(config, DecoderConfig) else Bert
    module = kind(config, DTYPES[dtype], int8, causal, remat, unroll)
    return Described(name_or_folder, dtype, int8, config, module, model_type, place)


def _config_json(name_or_folder: str, shape_only: bool) -> tuple[Place | None, dict[str, Any], str]:
    """Where a model's files lie, the content of its config.json, and what to call that in messages."""
    name = name_or_folder.removeprefix("random:")
    shape_only = shape_only or name != name_or_folder
    try:
        place = find_weights(name, shape_only)
    except InputError:
        if not shape_only or name not in published.CONFIGS:
            raise
        return None, published.CONFIGS[name], name
    file = place.folder / "config.json"
    return place, read_json(file), str(file)


def load_backbone(
    name_or_folder: str,
    dtype: str = "float32",
    *,
    int8: str = "none",
    attention: str = "own",
    remat: bool = False,
    unroll: int | bool = 1,
    sharding: jax.sharding.Sharding | None = None,
) -> Backbone:
    """Finds, checks and loads a frozen backbone.

    Args:
      name_or_folder: one of
        a folder with config.json and model.safetensors (or shards and their index);
        a Hugging Face id 'org/name' or 'org/name@revision', looked for in its weight package
        (`WEIGHT_PACKAGES`, unless a revision is asked for), the Hugging Face cache, the Hub;
        'random:tiny', two small layers built in place, whose tokenizer knows the numbers 0 to 499;
        'random:<id or folder>', that model's shape and tokenizer with untrained weights (the shapes of
        `published.CONFIGS` are known without the Hub; the tokenizer of 'random:tiny' stands in for theirs then).
      dtype: 'float32' or 'bfloat16', see `Backbone.dtype`.
      int8: 'none', 'channel' or 'grouped', see `Backbone.int8`.
      attention: 'own', or 'causal' or 'bidirectional' whatever the model was trained with.
      remat: see `Bert.remat`.
      unroll: see `Bert.unroll`.
      sharding: parameters are put onto devices so, each as soon as it is read; None leaves them in host memory.

    Returns:
      The backbone.

    Raises:
      InputError: the model cannot be found, its files are damaged, it is of a kind that is not
        supported, or the device cannot compute in this dtype.
    """
    found = describe_backbone(
        name_or_folder, dtype, int8=int8, attention=attention, remat=remat, unroll=unroll, shape_only=False
    )
    _check_device(dtype)
    config, size = found.config, found.config.hidden_size

    def place(array: np.ndarray) -> Any:
        if sharding is None:
            return array
        return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])

    word_table: Any
    if found.place is None or not found.pretrained:
        plus_one = isinstance(config, DecoderConfig) and config.norm == "rms_plus_one"
        params, sha256 = random_params(
            found.module, size, seed=RANDOM_SEED, norm_start=0.0 if plus_one else 1.0, int8=int8, place=place
        )
        revision, word_table = f"seed={RANDOM_SEED}", RandomTable(config.vocabulary_size, size, RANDOM_SEED)
        vocabulary = functools.partial(random_vocabulary, config, word_table, RANDOM_SEED)
    else:
        files = weight_files(found.place.folder)
        revision, sha256 = found.place.revision, sha256_of_files(files)
        if found.place.sha256 not in ("", sha256):
            raise InputError(
                f"{files[0]}: its sha256 is {sha256}, expected {found.place.sha256}: install the weight package again"
            )
        checkpoint = Checkpoint.open(found.place.folder, files)
        naming = NAMINGS[found.model_type]
        params, word_table = map_checkpoint(
            checkpoint,
            naming,
            found.module,
            layers=config.layers,
            table=(config.vocabulary_size, size),
            int8=int8,
            place=place,
        )
        vocabulary = functools.partial(read_vocabulary, checkpoint, naming, config, word_table)

    return Backbone(
        name=name_or_folder,
        revision=revision,
        sha256=sha256,
        dtype=dtype,
        int8=int8,
        pretrained=found.pretrained,
        config=config,
        module=found.module,
        params=params,
        word_table=word_table,
        read_vocabulary=vocabulary,
        weights_folder=None if found.place is None else found.place.folder,
    )


def _check_device(dtype: str) -> None:
    """Multiplies two small matrices.

    Raises:
      InputError: the device cannot.
    """
    try:
        jax.block_until_ready(jnp.ones((8, 8), DTYPES[dtype]) @ jnp.ones((8, 8), DTYPES[dtype]))
    except Exception as fault:  # whatever the device's compiler calls it
        device = jax.devices()[0].device_kind
        reason = " ".join(f"{type(fault).__name__}: {fault}".split())[:200]
        raise InputError(f"backbone.dtype = {dtype!r}: the device {device} cannot compute in it ({reason})") from fault
