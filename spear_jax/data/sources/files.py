"""Reads the user's CSV and Parquet files as recorded series."""

import collections
import os
from collections.abc import Iterator

import numpy as np
from etils import epath

from spear_jax.data.series import LoadedSeries, Series
from spear_jax.data.tables.answers import leave_out_answers
from spear_jax.data.tables.columns import IntervalsError
from spear_jax.data.tables.extremes import remark_on_extremes
from spear_jax.data.tables.file import ALLOWED_SUFFIXES, SUFFIXES, TableFile, name_series, name_table, strip_suffixes
from spear_jax.data.tables.label_intervals import TimeForm, label_by_intervals
from spear_jax.data.tables.remarks import gathered
from spear_jax.data.tables.table_options import NO_OPTIONS, TableOptions
from spear_jax.errors import InputError, listed


def find_files(path: str) -> list[tuple[epath.Path, str]]:
    """Finds the files at a path, each with the name of its table; bytes that are not UTF-8 are escaped in it.

    Args:
      path: a CSV or Parquet file, or a folder of them, local or gs://.

    Raises:
      InputError: there is no such file, or two differ only in their suffix.
    """
    if not path:
        raise InputError("config.data.dir is empty; it must name a CSV or Parquet file, or a folder of them")
    root = epath.Path(path).expanduser()
    if root.is_dir():
        files = sorted(_find_below(root))
        if not files:
            raise InputError(f"{root}: contains no CSV or Parquet file; allowed: {ALLOWED_SUFFIXES}")
        named = [(file, strip_suffixes(str(file.relative_to(root)))) for file in files]
    elif not root.exists():
        raise InputError(f"{root}: no such file or folder")
    elif root.name.lower().endswith((".xlsx", ".xls", ".ods")):
        raise InputError(f"{root}: is a workbook; save the sheet as CSV UTF-8, with the names of the columns in row 1")
    elif not root.name.lower().endswith(SUFFIXES):
        raise InputError(f"{root}: not a CSV or Parquet file by its name; allowed: {ALLOWED_SUFFIXES}")
    else:
        named = [(root, strip_suffixes(root.name))]
    named = [(file, os.fsencode(name).decode(errors="backslashreplace")) for file, name in named]
    for name, count in collections.Counter(name for _, name in named).items():
        if count > 1:  # their rows would be confused
            raise InputError(f"{path}: two files are named {name!r} and differ only in their suffix; rename one")
    return named


def _find_below(folder: epath.Path, above: tuple[str, ...] = ()) -> Iterator[epath.Path]:
    """Finds the files in a folder and its subfolders, except hidden ones and links to a folder above."""
    above = (*above, os.path.realpath(folder))
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if os.path.realpath(path) not in above:
                yield from _find_below(path, above)
        elif path.name.lower().endswith(SUFFIXES):
            yield path


def open_files(path: str, options: TableOptions, intervals: str = "") -> tuple[list[TableFile], list[str]]:
    """Opens the file, or all files of a folder that have values, see `find_files` and `choose_columns`.

    Returns:
      The files, and remarks on those that are left out since they have intervals: `intervals`, and others like it.

    Raises:
      InputError: a file cannot be used, two columns would have the same name, or no file is left.
    """
    found = find_files(path)
    other = os.path.realpath(epath.Path(intervals).expanduser()) if intervals and len(found) > 1 else ""
    files: list[TableFile] = []
    remarks: list[str] = []
    for file_path, name in found:
        if os.path.realpath(file_path) == other:
            remarks.append(f"{file_path.name}: left out, since it is data.intervals")
            continue
        try:
            # The series of a long table are like files of a folder.
            long = options.named.series and not epath.Path(path).expanduser().is_dir()
            files.append(TableFile(file_path, "" if long else name, options))
        except IntervalsError as error:
            if len(found) == 1:
                raise
            remarks.append(f"{error}: left out")
    if not files:
        raise InputError(f"{path}: no file has values")
    return files, remarks


def load_files(
    path: str, options: TableOptions = NO_OPTIONS, *, intervals: str = "", labels: str = "column", limit: int = 0
) -> LoadedSeries:
    """Reads the series in a file, or in all files of a folder, see `open_files`.

    `labels` is 'column', 'intervals', or the way labels will be made; a `limit` of 0 keeps all series.

    Returns:
      A series per value column, named as the file, with '/column' if it has several; the columns of a file are a group.
      Each series of a long table is like a file of its own.

    Raises:
      InputError: a file cannot be used; names file, row or column, what was found and what is allowed.
    """
    recorded: list[Series] = []
    remarks: dict[str, list[str]] = {}
    forms: dict[str, TimeForm] = {}
    files, warnings = open_files(path, options, intervals)
    for file in files:
        if labels == "column" and not file.columns.label:
            raise InputError(
                f"{file.path}: no label column; found {listed([*file.columns.values, *file.columns.left_out])}; name"
                " one with --config.data.label_column, give data.intervals with data.labels=intervals, or have labels"
                " made with data.labels=rules or data.labels=injected"
            )
        read = _read_series(file)
        recorded += read
        for remark in file.remarks:  # without the folder, since warnings travel with detectors
            remarks.setdefault(remark, []).append(os.path.relpath(file.path, epath.Path(path).expanduser().parent))
        forms |= dict.fromkeys((item.group for item in read), TimeForm(file.time_format, file.has_offsets))
    if not recorded:
        raise InputError(f"{path}: no file has any rows")
    warnings += gathered(remarks, "files", ": --mode=preview shows them file by file")
    if labels == "intervals":
        recorded, about_labels = label_by_intervals(recorded, intervals, forms)
        warnings += about_labels
    recorded, answers = leave_out_answers(recorded, options.named)
    warnings += [*answers, *remark_on_extremes(recorded)]
    roles = tuple(role for file in files for role in file.roles)
    return LoadedSeries("files", recorded[:limit] if limit else recorded, tuple(warnings), roles=roles)


def _read_series(file: TableFile) -> list[Series]:
    series: list[Series] = []
    for part, rows in file.read().parts():
        table, columns = name_table(file.name, part), file.columns.values
        labels = np.zeros(len(rows), bool) if rows.labels is None else rows.labels
        series += [
            Series(
                name=name,
                values=values.copy(),
                labels=labels.copy(),
                timestamps=rows.times.view("datetime64[ns]"),
                group=table,
                column=column,
                labelled=rows.labels is not None,
            )
            for name, column, values in zip(name_series(table, columns), columns, rows.values.T, strict=True)
            if len(rows)
        ]
    return series
