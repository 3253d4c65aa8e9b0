"""The two files of a detector: detector.json says what the numbers in detector.safetensors mean."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.numpy import load, save

from spear_jax.errors import InputError
from spear_jax.storage import check_ordinary, read_sealed, sealed, write_whole

DETECTOR_SCHEMA = 2
JSON, TENSORS = "detector.json", "detector.safetensors"
Tensors = Mapping[str, Float32[np.ndarray, "..."]]


def seal(content: Mapping[str, Any], tensors: Tensors) -> tuple[dict[str, Any], bytes]:
    """Adds schema and digests to the content of detector.json; returns it and the bytes of detector.safetensors."""
    blob = save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
    return sealed({"schema": DETECTOR_SCHEMA, **content, "tensors_sha256": hashlib.sha256(blob).hexdigest()}), blob


def write_files(folder: epath.Path, content: Mapping[str, Any], blob: bytes) -> None:
    """Writes detector.safetensors, and then detector.json, whose existence marks both as complete."""
    write_whole(folder / TENSORS, blob)
    write_whole(folder / JSON, json.dumps(content, indent=2))


def read_files(folder: epath.Path) -> tuple[dict[str, Any], dict[str, Float32[np.ndarray, "..."]]]:
    """Reads the content of detector.json and the tensors.

    Raises:
      InputError: a file is missing, damaged or edited, or of another schema.
    """
    path = folder / JSON
    content = read_sealed(path)
    if "sha256" not in content:
        raise InputError(f"{path}: damaged or edited: it has no sha256")
    schema = content.get("schema")
    if schema != DETECTOR_SCHEMA:
        raise InputError(f"{path}: schema {schema!r}; this version reads {DETECTOR_SCHEMA}")
    path = folder / TENSORS
    try:
        check_ordinary(path)
        blob = path.read_bytes()
        if hashlib.sha256(blob).hexdigest() != content.get("tensors_sha256"):
            raise InputError(f"{path}: damaged, or not the file that {JSON} describes")
        tensors = load(blob)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: damaged ({error})") from error
    for name, array in tensors.items():
        infinite = int((~np.isfinite(array)).sum())
        if array.dtype != np.float32 or infinite:
            raise InputError(
                f"{path}: {name} is {array.dtype}, {infinite} of {array.size} not finite; expected float32"
            )
    return content, tensors
