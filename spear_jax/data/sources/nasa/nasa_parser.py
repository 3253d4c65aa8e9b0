"""Parses the NASA telemetry in telemanom's layout."""

import dataclasses
import io
import json
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
from etils import epath
from jaxtyping import Bool, Float32

from spear_jax.errors import InputError, one_line

LABELS = "labeled_anomalies.csv"


LAYOUT = f"telemanom's layout: data.zip or data/train, data/test or train, test, and {LABELS}"


SPACECRAFT = {"both": ("SMAP", "MSL"), "smap": ("SMAP",), "msl": ("MSL",)}


Folder: TypeAlias = epath.Path | zipfile.Path  # Both have /, exists, is_dir and read_bytes.


@dataclasses.dataclass(frozen=True)
class Channel:
    """A labelled channel with all its columns.

    Attributes:
      name: channel id, e.g. 'P-1'.
      spacecraft: 'SMAP' or 'MSL'.
      train: telemetry and command flags of the part without labelled anomalies.
      test: the same columns of the labelled part.
      labels: True where a test step is anomalous.
    """

    name: str
    spacecraft: str
    train: Float32[np.ndarray, "past columns"]
    test: Float32[np.ndarray, "time columns"]
    labels: Bool[np.ndarray, "time"]


def parse_nasa(source: epath.PathLike) -> list[Channel]:
    """Reads all labelled channels from a folder or zip in telemanom's layout.

    A channel with several rows of labels (P-2) gets the union of them; a channel without a row
    (T-10) is left out, as nothing is known of it.

    Args:
      source: folder that holds `data.zip`, `data/{train,test}/<id>.npy` or `{train,test}/<id>.npy`,
        or the zip itself; `labeled_anomalies.csv` lies in it, beside it or inside the zip. Local or
        gs://.

    Returns:
      Channels sorted by id.

    Raises:
      InputError: something is missing, damaged or contradicts the labels; names the file.
    """
    arrays, labels = _find(epath.Path(source))
    rows = _read_csv(labels)
    return [_channel(name, rows[name], arrays, labels) for name in sorted(rows)]


def _find(source: epath.Path) -> tuple[Folder, Folder]:
    """The folder that holds train and test, and the csv."""
    archive = source if source.suffix == ".zip" else source / "data.zip"
    root: Folder = source
    if archive.exists() and not archive.is_dir():
        try:
            opened = zipfile.ZipFile(io.BytesIO(_read(archive)))
        except (NotImplementedError, zipfile.BadZipFile) as fault:
            raise InputError(f"{archive}: not a whole zip file ({one_line(fault)})") from fault
        opened.filename = str(archive)  # Named in the paths below it, hence in messages.
        root = zipfile.Path(opened)
    elif not source.is_dir():
        raise InputError(f"{source}: no such folder; expected {LAYOUT}")

    # data/data is what the copy on Kaggle (patrickfleith) unpacks to.
    folders: list[Folder] = [root / "data", root, root / "data" / "data"]
    arrays = next((f for f in folders if (f / "test").is_dir()), None)
    if arrays is None:
        raise InputError(f"{root}: holds no arrays test/<channel>.npy; expected {LAYOUT}")
    tables: list[Folder] = [source / LABELS, source.parent / LABELS, root / LABELS, arrays / LABELS]
    labels = next((t for t in tables if t.exists()), None)
    if labels is None:
        raise InputError(f"{source / LABELS}: no such file; expected {LAYOUT}")
    return arrays, labels


def _read_csv(path: Folder) -> dict[str, list[dict[str, str]]]:
    """Rows of the csv as text, by channel."""
    try:
        table = pd.read_csv(io.BytesIO(_read(path)), dtype=str, keep_default_na=False)
    except ValueError as fault:  # pandas' ParserError and EmptyDataError are ValueErrors.
        raise InputError(f"{path}: not a readable csv ({one_line(fault)})") from fault
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


def _channel(name: str, rows: Sequence[dict[str, str]], arrays: Folder, path: Folder) -> Channel:
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
        for start, end in _ranges(row["anomaly_sequences"], f"{path}: channel {name!r}"):
            if not 0 <= start <= end < steps:
                raise InputError(
                    f"{path}: channel {name!r}: anomaly range [{start}, {end}] does not fit {steps}"
                    f" steps; allowed: 0 <= start <= end <= {steps - 1}"
                )
            labels[start : end + 1] = True
    return Channel(name, rows[0]["spacecraft"], train, test, labels)


def _ranges(text: str, where: str) -> list[tuple[int, int]]:
    """[start, end] pairs, ends inclusive, in the order of the file (not always sorted)."""
    try:
        pairs = json.loads(text)
        good = isinstance(pairs, list) and all(isinstance(start, int) and isinstance(end, int) for start, end in pairs)
    except (TypeError, ValueError):
        good = False
    if not good:
        raise InputError(f"{where}: anomaly_sequences is {text!r}; expected a JSON list of [start, end]")
    return pairs


def _read_array(path: Folder) -> Float32[np.ndarray, "time columns"]:
    try:
        array = np.lib.format.read_array(io.BytesIO(_read(path)), allow_pickle=False)
    except (ValueError, tokenize.TokenError) as fault:  # numpy tokenizes a header it cannot parse.
        raise InputError(f"{path}: not a whole .npy file ({one_line(fault)})") from fault
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiub":
        raise InputError(f"{path}: {array.dtype} array of shape {array.shape}; expected numbers (time, columns)")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if np.isinf(array).any():
        raise InputError(f"{path}: holds an infinite value; allowed: finite float32 numbers or NaN")
    return array


def _read(path: Folder) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as fault:
        raise InputError(f"{path}: no such file") from fault
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as fault:
        raise InputError(f"{path}: cannot be read ({one_line(fault)})") from fault
