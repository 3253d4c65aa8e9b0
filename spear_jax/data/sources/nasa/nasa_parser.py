"""Parses the NASA telemetry in telemanom's layout."""

import dataclasses
import io
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
from etils import epath
from jaxtyping import Bool, Float32

from spear_jax.errors import InputError, one_line
from spear_jax.storage import read_npy

LABELS = "labeled_anomalies.csv"
LAYOUT = f"telemanom's layout: data.zip or data/train, data/test or train, test, and {LABELS}"
SPACECRAFT = {"both": ("SMAP", "MSL"), "smap": ("SMAP",), "msl": ("MSL",)}
_LARGEST_ZIP = 1 << 32  # bytes; the archive unpacks to 0.5 GB
Folder: TypeAlias = epath.Path | zipfile.Path  # both have /, exists, is_dir and read_bytes


@dataclasses.dataclass(frozen=True)
class Channel:
    """A labelled channel with all its columns.

    Attributes:
      name: channel id, e.g. 'P-1'.
      spacecraft: 'SMAP' or 'MSL'.
      train: telemetry and command flags of the stretch without labelled anomalies.
      test: the same columns of the labelled stretch.
      labels: True where a test step is anomalous.
    """

    name: str
    spacecraft: str
    train: Float32[np.ndarray, "past columns"]
    test: Float32[np.ndarray, "time columns"]
    labels: Bool[np.ndarray, "time"]


def parse_nasa(source: epath.PathLike) -> list[Channel]:
    """Reads all labelled channels from a folder or zip in telemanom's layout, sorted by id.

    The labels of a channel with several rows (P-2) are merged; a channel without a row (T-10) is left out, since it has
    no labels.

    Args:
      source: a folder that holds `data.zip`, `data/{train,test}/<id>.npy` or `{train,test}/<id>.npy`, or the zip
        itself, local or gs://. `labeled_anomalies.csv` is in the folder, next to it or inside the zip.

    Raises:
      InputError: a file is missing, damaged or contradicts the labels.
    """
    arrays, labels = _find_files(epath.Path(source))
    rows = _read_rows(labels)
    return [_read_channel(name, rows[name], arrays, labels) for name in sorted(rows)]


def _find_files(source: epath.Path) -> tuple[Folder, Folder]:
    """Returns the folder with train/ and test/, and the path of the labels."""
    archive = source if source.suffix == ".zip" else source / "data.zip"
    root: Folder = source
    if archive.exists() and not archive.is_dir():
        try:
            opened = zipfile.ZipFile(io.BytesIO(_read(archive)))
        except (NotImplementedError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(f"{archive}: not a complete zip file ({one_line(error)})") from error
        if (size := sum(info.file_size for info in opened.infolist())) > _LARGEST_ZIP:
            raise InputError(f"{archive}: its files take {size:,} bytes; allowed: at most {_LARGEST_ZIP:,}")
        opened.filename = str(archive)  # appears in the paths below it, and so in messages
        root = zipfile.Path(opened)
    elif not source.is_dir():
        raise InputError(f"{source}: no such folder; expected {LAYOUT}")

    # The copy on Kaggle (patrickfleith) unpacks to data/data.
    folders: list[Folder] = [root / "data", root, root / "data" / "data"]
    arrays = next((folder for folder in folders if (folder / "test").is_dir()), None)
    if arrays is None:
        raise InputError(f"{root}: no arrays test/<channel>.npy; expected {LAYOUT}")
    tables: list[Folder] = [source / LABELS, source.parent / LABELS, root / LABELS, arrays / LABELS]
    labels = next((table for table in tables if table.exists()), None)
    if labels is None:
        raise InputError(f"{source / LABELS}: no such file; expected {LAYOUT}")
    return arrays, labels


def _read_rows(path: Folder) -> dict[str, list[dict[str, str]]]:
    """Reads the rows of the labels as text, by channel."""
    try:
        table = pd.read_csv(io.BytesIO(_read(path)), dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' ParserError and EmptyDataError are ValueErrors
        raise InputError(f"{path}: not a readable CSV file ({one_line(error)})") from error
    for column in ("chan_id", "spacecraft", "anomaly_sequences", "num_values"):
        if column not in table:
            raise InputError(f"{path}: no column {column!r}; found {', '.join(table.columns)}")
    rows: dict[str, list[dict[str, str]]] = {}
    for row in table.to_dict("records"):
        if row["spacecraft"] not in SPACECRAFT["both"]:
            raise InputError(
                f"{path}: channel {row['chan_id']!r}: spacecraft is {row['spacecraft']!r}; allowed: SMAP, MSL"
            )
        rows.setdefault(row["chan_id"], []).append(row)
    if not rows:
        raise InputError(f"{path}: no rows")
    return rows


def _read_channel(name: str, rows: Sequence[dict[str, str]], arrays: Folder, path: Folder) -> Channel:
    train_path, test_path = (arrays / part / f"{name}.npy" for part in ("train", "test"))
    train, test = _read_array(train_path), _read_array(test_path)
    if train.shape[1] != test.shape[1]:
        raise InputError(f"{train_path}: {train.shape[1]} columns, but {test_path} has {test.shape[1]}")
    steps = len(test)
    labels = np.zeros(steps, bool)
    for row in rows:
        if row["num_values"] != str(steps):
            raise InputError(
                f"{path}: channel {name!r}: num_values is {row['num_values']!r}, but {test_path} has {steps} steps"
            )
        for start, end in _parse_ranges(row["anomaly_sequences"], f"{path}: channel {name!r}"):
            if not 0 <= start <= end < steps:
                raise InputError(
                    f"{path}: channel {name!r}: anomaly range [{start}, {end}] does not fit {steps}"
                    f" steps; allowed: 0 <= start <= end <= {steps - 1}"
                )
            labels[start : end + 1] = True
    return Channel(name, rows[0]["spacecraft"], train, test, labels)


def _parse_ranges(text: str, where: str) -> list[list[int]]:
    """Parses [start, end] pairs with inclusive ends, in the order of the file, which is not always sorted."""
    try:
        pairs = json.loads(text)
        valid = isinstance(pairs, list) and all(isinstance(start, int) and isinstance(end, int) for start, end in pairs)
    except (TypeError, ValueError, RecursionError):
        valid = False
    if not valid:
        raise InputError(f"{where}: anomaly_sequences is {text!r}; expected a JSON list of [start, end]")
    return pairs


def _read_array(path: Folder) -> Float32[np.ndarray, "time columns"]:
    array = read_npy(_read(path), str(path))
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiub":
        raise InputError(f"{path}: {array.dtype} array of shape {array.shape}; expected numbers (time, columns)")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if np.isinf(array).any():
        raise InputError(f"{path}: infinite value; allowed: finite float32 numbers or NaN")
    return array


def _read(path: Folder) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        struct.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from error
