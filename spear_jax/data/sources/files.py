"""Reads own files as recorded series."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath

from spear_jax.data.series import LoadedSeries, Series
from spear_jax.data.tables.file import _ALLOWED, _NAMES, _OPENERS, _PARQUET, _TEXT, File
from spear_jax.data.tables.label_intervals import with_intervals
from spear_jax.data.tables.rows import Rows
from spear_jax.errors import InputError


def find_files(path: str) -> list[tuple[epath.Path, str]]:
    """The files behind a path, with the names of their series.

    Raises:
      InputError: there is nothing, or nothing that is CSV or Parquet by its name.
    """
    if not path:
        raise InputError("config.data.dir is empty; needed is a CSV or Parquet file, or a folder of them")
    root = epath.Path(path).expanduser()
    if root.is_dir():
        found = sorted(_below(root))
        if not found:
            raise InputError(f"{root}: holds no file named as CSV or Parquet; allowed are {_ALLOWED}")
        return [(one, _stem(str(one.relative_to(root)))) for one in found]
    if not root.exists():
        raise InputError(f"{root}: no such file or folder")
    if not root.name.lower().endswith(_NAMES):
        raise InputError(f"{root}: not named as CSV or Parquet; allowed are {_ALLOWED}")
    return [(root, _stem(root.name))]


def load_files(
    path: str,
    *,
    timestamp_column: str = "",
    value_columns: Sequence[str] = (),
    label_column: str = "",
    intervals: str = "",
    labels: str = "column",
    limit: int = 0,
) -> LoadedSeries:
    """The series in a file or in all files of a folder.

    Args:
      path: a CSV (compressed or not) or Parquet file, or a folder of them; local or gs://.
      timestamp_column: see `File`.
      value_columns: see `File`.
      label_column: see `File`.
      intervals: a CSV of anomaly intervals with the columns start and end (rows from 0, or times; both ends are in it)
        and, where there are several series, series.
      labels: 'column', 'intervals', or how they will be made.
      limit: 0, or how many series to keep.

    Returns:
      A series per value column, named like the file, with '/column' where it has several; the columns of a file are
      a group.

    Raises:
      InputError: a file cannot be used; names file, row or column, what was found and what is allowed.
    """
    series: list[Series] = []
    warnings: list[str] = []
    found = find_files(path)
    check_unique_names([name for _, name in found], path)
    for place, name in found:
        file = File(place, name, time=timestamp_column, values=value_columns, label=label_column)
        if labels == "column" and not file.columns.label:
            raise InputError(
                f"{place}: no label column; found {', '.join((*file.columns.values, *file.columns.left_out))}; name one"
                " in data.label_column, give data.intervals with data.labels=intervals, or have labels made with"
                " data.labels=rules or data.labels=injected"
            )
        rows = file.read()
        warnings += [f"{place}: {remark}" for remark in file.remarks]
        if len(rows.values):
            series += _series(file, rows)
    if not series:
        raise InputError(f"{path}: no file has a row")
    if labels == "intervals":
        series, odd = with_intervals(series, intervals)
        warnings += odd
    return LoadedSeries("files", series[:limit] if limit else series, tuple(warnings))


def check_unique_names(names: Sequence[str], where: str) -> None:
    """Refuses files of one name: their rows would be taken for one another's.

    Raises:
      InputError: there are such.
    """
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where}: two files are named {name!r}, but for their endings; rename one")


def _series(file: File, rows: Rows) -> list[Series]:
    labels = np.zeros(len(rows.values), bool) if rows.labels is None else rows.labels
    return [
        Series(
            name=name,
            values=rows.values[:, i].copy(),
            labels=labels.copy(),
            timestamps=rows.times.view("datetime64[ns]"),
            group=file.name,
            column=file.columns.values[i],
            labelled=rows.labels is not None,
        )
        for i, name in enumerate(file.series_names)
    ]


def _below(folder: epath.Path, above: tuple[str, ...] = ()) -> Iterator[epath.Path]:
    """Files of a folder and the folders in it; hidden ones are left alone, and links to a folder that it lies in."""
    above = (*above, os.path.realpath(folder))
    for one in folder.iterdir():
        if one.name.startswith("."):
            continue
        if one.is_dir():
            if os.path.realpath(one) not in above:
                yield from _below(one, above)
        elif one.name.lower().endswith(_NAMES):
            yield one


def _stem(name: str) -> str:
    for suffix in (*_OPENERS, *_TEXT, *_PARQUET):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name
