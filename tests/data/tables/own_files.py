"""Reads small own files in tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spear_jax.data.series import LoadedSeries
from spear_jax.data.sources import files
from spear_jax.data.tables.columns import Columns
from spear_jax.data.tables.table_options import TableOptions


def load_files(
    path: str | Path,
    *,
    timestamp_column: str = "",
    value_columns: Sequence[str] = (),
    label_column: str = "",
    series_column: str = "",
    missing: tuple[float, ...] = (),
    decimal: str = "",
    **options: Any,
) -> LoadedSeries:
    """Reads own files with the fields of a config."""
    named = Columns(timestamp_column, tuple(value_columns), label_column, series=series_column)
    return files.load_files(str(path), TableOptions(named, decimal=decimal, missing=missing), **options)


def load_text(path: Path, text: str, **options: Any) -> LoadedSeries:
    """Writes a file and reads it; labels are injected by default, so that none are needed."""
    path.write_text(text)
    return load_files(path, **{"labels": "injected", **options})


def roles(loaded: LoadedSeries) -> dict[str, str]:
    """Returns the role of each column."""
    return {role.column: role.role for role in loaded.roles}
