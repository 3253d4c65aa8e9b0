"""Reads config files, their arguments and overrides of fields."""

import ast
import difflib
import importlib.util
import json
import os
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from spear_jax.config.fields import BACKBONES, TINY
from spear_jax.errors import InputError


def variants(arg: str, allowed: Sequence[str]) -> set[str]:
    """The words after a config's colon, e.g. 'minilm,debug'.

    Raises:
      InputError: a word is not one of `allowed`.
    """
    words = {word.strip() for word in (arg or "").split(",") if word.strip()}
    for word in sorted(words - set(allowed)):
        raise InputError(f"config argument {word!r} is unknown; allowed: {', '.join(allowed)}")
    return words


def choose_backbone(config: ConfigDict, words: set[str]) -> None:
    """The backbone that a config's argument names: one of BACKBONES, or random:tiny for debug alone.

    Decoders compute in bfloat16, as they were trained.

    Raises:
      InputError: two are named.
    """
    named = sorted(words & BACKBONES.keys())
    if len(named) > 1:
        raise InputError(f"config argument {','.join(named)!r} names {len(named)} backbones; allowed is one")
    if named:
        config.backbone.name = BACKBONES[named[0]]
        if named[0].startswith(("gemma", "llama", "qwen", "deepseek")):
            config.backbone.dtype = "bfloat16"
    elif "debug" in words:
        config.backbone.name = TINY


def find_file(name: str) -> Path:
    """A config's file, in the current folder or else in the package.

    Raises:
      InputError: it is in neither.
    """
    tried = [Path(name)]
    packaged = importlib.util.find_spec("spear_jax.configs")  # configs/ travels in the wheel under this name
    if packaged and packaged.submodule_search_locations:
        tried.append(Path(packaged.submodule_search_locations[0]) / name.removeprefix("configs/"))
    else:  # a checkout, where configs/ stands beside the package
        tried.append(Path(__file__).parents[2] / name)
    found = next((file for file in tried if file.is_file()), None)
    if found is None:
        raise InputError(f"--config: no file {name!r}; looked in {', '.join(str(t.absolute()) for t in tried)}")
    return found


def load_config(path: str) -> ConfigDict:
    """Reads `file.py` or `file.py:argument`, first from the current folder, then from the package.

    Raises:
      InputError: there is no such file, or it fails.
    """
    name, _, argument = path.partition(":")
    found = find_file(name)
    try:
        config = runpy.run_path(str(found))["get_config"](argument)
    except InputError as fault:
        raise InputError(f"--config={path}: {fault}") from fault
    except (Exception, SystemExit) as fault:
        reason = " ".join(f"{type(fault).__name__}: {fault}".split())
        raise InputError(f"--config={path}: {reason}") from fault
    if not isinstance(config, ConfigDict):
        raise InputError(f"--config={path}: get_config must return a ConfigDict, not {type(config).__name__}")
    return config


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaf fields by dotted name."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def override(config: ConfigDict, field: str, text: str) -> None:
    """Sets one field from the command line.

    Args:
      config: changed in place.
      field: dotted name, e.g. 'train.epochs'.
      text: the value as typed.

    Raises:
      InputError: there is no such field, or the text is not of the field's type.
    """
    fields = flatten(config)
    if field not in fields:
        raise InputError(f"--config.{field}: no such field; {_nearest(field, fields)}")
    *parents, leaf = field.split(".")
    section = config
    for parent in parents:
        section = section[parent]
    section[leaf] = _parse(field, text, fields[field])


def _nearest(field: str, fields: Mapping[str, Any]) -> str:
    inside = [name for name in fields if name.startswith(field + ".")]
    if inside:
        return f"it is a section with {', '.join(inside)}"
    close = difflib.get_close_matches(field, fields, n=3, cutoff=0.5)
    section = field.rpartition(".")[0]
    close = close or [name for name in fields if name.rpartition(".")[0] == section] or list(fields)
    return f"did you mean {', '.join(close)}?"


def _parse(field: str, text: str, default: Any) -> Any:
    kind = type(default)
    wrong = InputError(f"--config.{field}={text}: needed is {_KINDS.get(kind, kind.__name__)}, like {default!r}")
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise wrong
        return text.lower() == "true"
    try:
        # Plain words such as nan and inf are numbers to float() alone; `validate` refuses them by name.
        value = float(text) if kind is float else ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as fault:
        raise wrong from fault
    if kind is tuple and isinstance(value, tuple | list):
        return tuple(value)
    if type(value) is not kind:
        raise wrong
    return value


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a list of numbers",
}


def take_environment(config: ConfigDict) -> None:
    """Puts into the config what the environment says and the results depend on: which model is asked."""
    if config.method == "zero_shot_api" and not config.zero_shot.model:
        config.zero_shot.model = os.environ.get("OPENAI_MODEL", "").strip()


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)
