"""Writes files atomically, and reads them with a clear message if they are damaged."""

import io
import json
import secrets
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from etils import epath

from spear_jax.errors import InputError, one_line


def write_whole(path: Path | epath.Path, content: bytes) -> None:
    """Writes a file atomically: its previous content stays until the new one is complete.

    If several processes write the same file at the same time, the last one wins.
    """
    temporary = path.parent / f"{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path | epath.Path) -> dict[str, Any]:
    """Reads the object in a JSON file.

    Raises:
      InputError: it cannot be read, is not JSON or contains something other than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must contain a JSON object, not {type(content).__name__}")
    return content


def write_parquet(path: Path | epath.Path, frame: pd.DataFrame, **metadata: Any) -> None:
    """Writes a table atomically, with metadata as JSON, such as warnings about its numbers."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    texts = {key: json.dumps(value) for key, value in metadata.items()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **texts})
    buffer = io.BytesIO()
    pa.parquet.write_table(table, buffer)
    write_whole(path, buffer.getvalue())
