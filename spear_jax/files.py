"""Files of a run folder: written whole or not at all, read with a clear word where they are damaged."""

import json
from typing import Any

from etils import epath

from spear_jax.errors import InputError


def write_whole(path: epath.Path, content: bytes) -> None:
    """Writes a file whole or not at all: what was there stays until the new content is complete."""
    part = path.parent / (path.name + ".tmp")
    part.write_bytes(content)
    part.replace(path)


def read_json(path: epath.Path) -> Any:
    """Reads a JSON file.

    Raises:
      InputError: it is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as fault:
        raise InputError(f"{path}: not a JSON file ({fault})") from fault
