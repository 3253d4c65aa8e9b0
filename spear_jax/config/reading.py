"""Reads config files and overrides of their fields."""

import ast
import csv
import difflib
import importlib.util
import json
import re
import runpy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict

from spear_jax.config.field import TYPE_NAMES
from spear_jax.errors import InputError, one_line

_Kind = TypeVar("_Kind")

_OTHER_KIND = {
    "get_config": "is not a config (it defines no get_config); a study runs with --mode=study",
    "get_study": "is not a study (it defines no get_study); --mode=study needs one, such as configs/studies/bins.py",
}
"""Messages for a file that lacks the function that is called."""


def packaged_configs() -> Path:
    """Returns the folder of the config files that come with the package."""
    installed = importlib.util.find_spec("spear_jax.configs")  # configs/ is installed under this name
    if installed and installed.submodule_search_locations:
        return Path(installed.submodule_search_locations[0])
    return Path(__file__).parents[2] / "configs"  # in a checkout it is next to the package


def find_file(name: str) -> Path:
    """Finds a config file: first from the current folder, then among those that come with the package.

    Raises:
      InputError: it is in neither place.
    """
    paths = (Path(name), packaged_configs() / name.removeprefix("configs/"))
    for path in paths:
        if path.is_file():
            return path
    raise InputError(
        f"--config={name}: no such file; looked for {' and '.join(str(path.absolute()) for path in paths)}"
    )


def run_file(path: str, function: str, kind: type[_Kind]) -> _Kind:
    """Runs `file.py` or `file.py:argument`, and returns what its function makes of the argument.

    Args:
      path: see `find_file`.
      function: its name, such as 'get_config'.
      kind: the type that it must return.

    Raises:
      InputError: the file does not exist, or running it raises an exception.
    """
    name, _, argument = path.partition(":")
    file = find_file(name)
    try:
        names = runpy.run_path(str(file))
        if function in names:
            result = names[function](argument)
    except InputError as error:
        raise InputError(f"--config={path}: {error}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"--config={path}: {type(error).__name__}: {one_line(error)}") from error
    if function not in names:
        raise InputError(f"--config={path}: {_OTHER_KIND[function]}")
    if not isinstance(result, kind):
        raise InputError(f"--config={path}: {function} must return a {kind.__name__}, not {type(result).__name__}")
    return result


def load_config(path: str) -> ConfigDict:
    """Loads a config file, see `run_file`."""
    return run_file(path, "get_config", ConfigDict)


def flatten(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Returns the values of all fields by dotted name."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def override(config: ConfigDict, name: str, text: str) -> None:
    """Sets one field, given its dotted name, to a value as typed on the command line.

    Raises:
      InputError: there is no such field, or the text is not of the field's type.
    """
    values = flatten(config)
    if name not in values:
        raise InputError(f"--config.{name} does not exist; {suggest(name, values)}")
    config.update_from_flattened_dict({name: parse_value(name, text, values[name])})


def suggest(name: str, names: Iterable[str]) -> str:
    """Returns a hint for a field that does not exist: the fields of a section, or names that are close."""
    inside = [other for other in names if other.startswith(f"{name}.")]
    if inside:
        return f"it is a section with {', '.join(inside)}"
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    section = name.rpartition(".")[0]
    close = close or [other for other in names if other.rpartition(".")[0] == section] or list(names)
    return f"did you mean {', '.join(close)}?"


def parse_value(name: str, text: str, default: Any) -> Any:
    """Reads a value of the same type as the default; ranges and choices are left to `validate`."""
    kind = type(default)
    if kind is str:
        return text
    try:
        # float() also reads nan and inf, which `validate` rejects.
        value = float(text) if kind is float else ast.literal_eval(text.capitalize() if kind is bool else text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = None
    if kind is tuple and isinstance(value, list):
        value = tuple(value)
    if type(value) is not kind:
        raise InputError(f"--config.{name}={text} must be {TYPE_NAMES[kind]}, such as {default!r}")
    return value


def to_json(config: ConfigDict) -> str:
    """Returns the resolved config as JSON."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def view_names(config: ConfigDict) -> tuple[str, ...]:
    """Returns the names of the numbers that each step has: 'value', then any others."""
    return tuple(config.quantizer.views.split(","))


def split_names(text: str) -> list[str]:
    """Splits a config field that lists names separated by commas; a name in double quotes may contain commas."""
    names = next(csv.reader([text]), [])
    return [name.strip() for name in names if name.strip()]


def missing_values(data: ConfigDict) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Returns the numbers, and the words, that stand for missing values in the section `data`.

    Raises:
      InputError: one of them is neither, such as -9999;-1.
    """
    numbers: list[float] = []
    words: list[str] = []
    for cell in split_names(data.missing_values):
        try:
            numbers.append(float(cell))
        except ValueError:
            if re.match(r"[^\W\d]", cell) is None and re.search(r"\d", cell):
                raise InputError(
                    f"config.data.missing_values={data.missing_values!r} must be numbers or words, separated by commas"
                ) from None
            words.append(cell)
    return tuple(numbers), tuple(words)


def stored_values(config: ConfigDict) -> dict[str, Any]:
    """Returns all fields by dotted name, with their values in JSON: tuples are lists."""
    return flatten(json.loads(to_json(config)))
