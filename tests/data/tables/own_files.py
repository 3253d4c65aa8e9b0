"""Reads small own files in tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spear_jax.data.series import LoadedSeries, Series
from spear_jax.data.sources import files
from spear_jax.data.tables.columns import Columns
from spear_jax.data.tables.table_options import TableOptions

ROWS = 40


def load_files(
    path: str | Path,
    *,
    timestamp_column: str = "",
    value_columns: Sequence[str] = (),
    label_column: str = "",
    series_column: str = "",
    missing: tuple[float, ...] = (),
    missing_words: tuple[str, ...] = (),
    decimal: str = "",
    **options: Any,
) -> LoadedSeries:
    """Reads own files with the fields of a config."""
    named = Columns(timestamp_column, tuple(value_columns), label_column, series=series_column)
    return files.load_files(
        str(path), TableOptions(named, decimal=decimal, missing=missing, missing_words=missing_words), **options
    )


def load_text(path: Path, text: str, **options: Any) -> LoadedSeries:
    """Writes a file and reads it; labels are injected by default, so that none are needed."""
    path.write_text(text)
    return load_files(path, **{"labels": "injected", **options})


def load_series(path: Path, text: str, **options: Any) -> list[Series]:
    """Writes a file and reads its series, see `load_text`."""
    return load_text(path, text, **options).series


def roles(loaded: LoadedSeries) -> dict[str, str]:
    """Returns the role of each column."""
    return {role.column: role.role for role in loaded.roles}


def frame() -> pd.DataFrame:
    """Returns a labelled table of two columns of values."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "time": pd.date_range("2024-03-01", periods=ROWS, freq="5min"),
            "pump": rng.normal(size=ROWS).round(4),
            "flow": rng.normal(5, 1, ROWS).round(4),
            "label": (np.arange(ROWS) % 20 > 16).astype(int),
        }
    )


def written(path: Path, **options: object) -> Path:
    """Writes that table as a CSV."""
    frame().to_csv(path, index=False, **options)
    return path


def check(path: Path, **arguments: object) -> None:
    """Checks that the series are those of `frame`, whatever the file's format."""
    loaded = load_files(str(path), **arguments)
    expected = frame()
    stem = path.name.split(".")[0]
    assert [series.name for series in loaded.series] == [f"{stem}/pump", f"{stem}/flow"]
    for series, column in zip(loaded.series, ("pump", "flow"), strict=True):
        np.testing.assert_allclose(series.values, expected[column])
        np.testing.assert_array_equal(series.labels, expected["label"] == 1)
        np.testing.assert_array_equal(series.timestamps, expected["time"].to_numpy("datetime64[ns]"))
        assert series.group == stem  # columns of one file stay together
        assert series.labelled
