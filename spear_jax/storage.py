"""Files of a run folder: written whole or not at all, read with a clear word where they are damaged."""

import io
import json
import secrets
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from etils import epath

from spear_jax.errors import InputError


def write_whole(path: epath.Path, content: bytes) -> None:
    """Writes a file whole or not at all: what was there stays until the new content is complete.

    Several processes may write the same file at the same time: the last one's content stays.
    """
    part = path.parent / f"{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        part.write_bytes(content)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read_json(path: epath.Path) -> Any:
    """Reads a JSON file.

    Raises:
      InputError: it is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as fault:
        raise InputError(f"{path}: not a JSON file ({fault})") from fault


def write_parquet(path: epath.Path, frame: pd.DataFrame, warnings: Sequence[str]) -> None:
    """Writes a table whole or not at all; its metadata say what is to be said about its numbers."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), "warnings": json.dumps(list(warnings))})
    buffer = io.BytesIO()
    pa.parquet.write_table(table, buffer)
    write_whole(path, buffer.getvalue())
