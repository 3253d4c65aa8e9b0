"""Parses the Numenta Anomaly Benchmark in its own layout."""

import dataclasses
import io
from typing import Any

import numpy as np
import pandas as pd
from etils import epath
from jaxtyping import Bool, Float, Int

from spear_jax.errors import InputError, one_line
from spear_jax.storage import read_json

WINDOWS, POINTS = "labels/combined_windows.json", "labels/combined_labels.json"
LAYOUT = f"numenta/NAB's layout: data/<group>/<file>.csv, {WINDOWS} and {POINTS}"


@dataclasses.dataclass(frozen=True)
class NabFile:
    """A file of the benchmark.

    Attributes:
      name: 'group/file', without '.csv'.
      timestamps: time of each row in nanoseconds since 1970, as recorded: not always increasing.
      values: value of each row.
      windows: first and last timestamp of each labelled window, both inclusive.
      points: timestamp of each labelled anomaly.
    """

    name: str
    timestamps: Int[np.ndarray, "rows"]
    values: Float[np.ndarray, "rows"]
    windows: Int[np.ndarray, "windows 2"]
    points: Int[np.ndarray, "points"]

    @property
    def group(self) -> str:
        """Returns the part of the name before the slash."""
        return self.name.partition("/")[0]

    def labels(self, kind: str) -> Bool[np.ndarray, "rows"]:
        """Returns True for each row that lies in a window ('windows') or is a labelled anomaly ('points')."""
        if kind == "points":
            return np.isin(self.timestamps, self.points)
        inside = np.zeros(len(self.timestamps), bool)
        for first, last in self.windows:
            inside |= (self.timestamps >= first) & (self.timestamps <= last)
        return inside


def parse_nab(source: epath.PathLike) -> list[NabFile]:
    """Reads every labelled file from a folder in NAB's layout.

    Raises:
      InputError: a file is missing, damaged or contradicts the labels.
    """
    root = epath.Path(source)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected {LAYOUT}")
    windows, points = _read_labels(root / WINDOWS), _read_labels(root / POINTS)
    if windows.keys() != points.keys():
        name = sorted(windows.keys() ^ points.keys())[0]
        raise InputError(f"{root}: {name!r} is in only one of {WINDOWS} and {POINTS}")
    return [_read_file(root, name, windows[name], points[name]) for name in sorted(windows)]


def _read_labels(path: epath.Path) -> dict[str, list[Any]]:
    """Reads the labels of each file."""
    if not path.exists():
        raise InputError(f"{path}: no such file; expected {LAYOUT}")
    labels = read_json(path)
    if not all(isinstance(file_labels, list) for file_labels in labels.values()):
        raise InputError(f"{path}: expected a list of labels for each file")
    return labels


def _read_file(root: epath.Path, name: str, windows: list[Any], points: list[Any]) -> NabFile:
    path = root / "data" / name
    try:
        table = pd.read_csv(io.BytesIO(path.read_bytes()))
        times = _nanoseconds(table["timestamp"])
        values = pd.to_numeric(table["value"]).to_numpy(np.float64, copy=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, though {root / WINDOWS} names it") from error
    except KeyError as error:
        raise InputError(f"{path}: no column {error}; found {', '.join(map(str, table.columns))}") from error
    except (OSError, ValueError, TypeError) as error:  # pandas' ParserError and EmptyDataError are ValueErrors
        raise InputError(f"{path}: not a readable CSV file ({one_line(error)})") from error
    if not len(values):
        raise InputError(f"{path}: no rows")
    if np.isinf(values).any():
        raise InputError(f"{path}: row {int(np.argmax(np.isinf(values))) + 2}: infinite value; allowed: finite numbers")

    try:
        limits = _nanoseconds(np.array(windows, str).reshape(-1)).reshape(-1, 2)
        labels = _nanoseconds(np.array(points, str).reshape(-1))
    except (ValueError, TypeError) as error:
        raise InputError(f"{root / WINDOWS}: {name!r}: cannot be read as times ({one_line(error)})") from error
    for first, last in limits:
        if not times.min() <= first <= last <= times.max():
            raise InputError(
                f"{root / WINDOWS}: {name!r}: window {_format_time(first)} to {_format_time(last)} does not lie within"
                f" the file, {_format_time(times.min())} to {_format_time(times.max())}, or ends before it begins"
            )
    for time in labels:
        if time not in times:
            raise InputError(f"{root / POINTS}: {name!r}: no row has the time {_format_time(time)}")
    return NabFile(name.removesuffix(".csv"), times, values, limits, labels)


def _nanoseconds(times: Any) -> Int[np.ndarray, "times"]:
    parsed = pd.to_datetime(pd.Series(times, dtype=str), format="ISO8601")
    if parsed.isna().any():
        raise ValueError(f"no time in row {int(parsed.isna().argmax()) + 2}")
    return parsed.to_numpy("datetime64[ns]").view(np.int64).copy()


def _format_time(nanoseconds: int) -> str:
    return str(np.datetime64(int(nanoseconds), "ns").astype("datetime64[s]")).replace("T", " ")
