"""The Numenta Anomaly Benchmark (Lavin and Ahmad, ICMLA 2015): 58 files of real and made telemetry.

Each file is one series with time stamps; labels are windows around each anomaly, or the anomalies' single steps. A
window's rows are those whose time stamp lies in it, ends included. Rows are kept in the order of the file: some time
stamps come twice, and one file steps back by 55 minutes.
"""

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from etils import epath
from jaxtyping import Bool, Float, Int

from spear_jax.data import prepared
from spear_jax.data.prepared import one_line
from spear_jax.data.series import Series
from spear_jax.errors import InputError

_COMMIT = "ea702d75cc2258d9d7dd35ca8e5e2539d71f3140"
MIRRORS = (
    f"https://raw.githubusercontent.com/numenta/NAB/{_COMMIT}",
    f"https://cdn.jsdelivr.net/gh/numenta/NAB@{_COMMIT}",
)
GROUPS = (
    "artificialNoAnomaly",
    "artificialWithAnomaly",
    "realAWSCloudwatch",
    "realAdExchange",
    "realKnownCause",
    "realTraffic",
    "realTweets",
)
WINDOWS, POINTS = "labels/combined_windows.json", "labels/combined_labels.json"
LAYOUT = f"numenta/NAB's layout: data/<group>/<file>.csv, {WINDOWS} and {POINTS}"


@dataclasses.dataclass(frozen=True)
class File:
    """A file of the benchmark.

    Attributes:
      name: 'group/file', without '.csv'.
      timestamps: of each row, in nanoseconds since 1970, as recorded: not always increasing.
      values: of each row.
      windows: first and last time stamp of each labelled window, both in it.
      points: time stamp of each labelled anomaly.
    """

    name: str
    timestamps: Int[np.ndarray, "rows"]
    values: Float[np.ndarray, "rows"]
    windows: Int[np.ndarray, "windows 2"]
    points: Int[np.ndarray, "points"]

    @property
    def group(self) -> str:
        """What comes before the slash."""
        return self.name.partition("/")[0]

    def labels(self, kind: str) -> Bool[np.ndarray, "rows"]:
        """True where a row lies in a window ('windows') or is a labelled anomaly ('points')."""
        if kind == "points":
            return np.isin(self.timestamps, self.points)
        inside = np.zeros(len(self.timestamps), bool)
        for first, last in self.windows:
            inside |= (self.timestamps >= first) & (self.timestamps <= last)
        return inside


def load(
    directory: str = "",
    *,
    groups: Sequence[str] = ("realAWSCloudwatch",),
    files: Sequence[str] = (),
    labels: str = "windows",
    unlabelled: str = "normal",
    limit: int = 0,
) -> list[Series]:
    """One series per file, sorted by name.

    Args:
      directory: a local or gs:// copy in NAB's own layout. '' means `$SPEAR_DATA_DIR/nab` if that exists, else the
        data set is downloaded and prepared, once, in TFDS' own folder.
      groups: which of `GROUPS`; () means all.
      files: parts of file names; a file is kept if its name contains one of them; () means all.
      labels: 'windows' or 'points', see `File.labels`.
      unlabelled: files without a window (the group artificialNoAnomaly and one of realAWSCloudwatch) are 'normal'
        throughout, or 'drop'ped.
      limit: 0, or how many series to keep: those with anomalies first, the shortest first.

    Returns:
      Series with time stamps.

    Raises:
      InputError: the data cannot be read, or nothing is left of them.
    """
    for group in groups:
        if group not in GROUPS:
            raise InputError(f"data.nab.groups: {group!r} is no group of NAB; allowed: {', '.join(GROUPS)}")
    found = [one for one in _read(directory) if not groups or one.group in groups]
    for part in files:
        if not any(part in one.name for one in found):
            raise InputError(
                f"data.nab.files: no file's name contains {part!r}; found {', '.join(one.name for one in found)}"
            )
    found = [one for one in found if not files or any(part in one.name for part in files)]
    if unlabelled == "drop":
        found = [one for one in found if len(one.windows)]
    if not found:
        raise InputError(f"nab: no file is left with data.nab.groups={tuple(groups)} and unlabelled={unlabelled!r}")
    if limit:
        found = sorted(found, key=lambda one: (not len(one.windows), len(one.values), one.name))[:limit]
    return [
        Series(one.name, one.values, one.labels(labels), timestamps=one.timestamps.view("datetime64[ns]"))
        for one in sorted(found, key=lambda one: one.name)
    ]


def prepare(directory: str = "") -> epath.Path:
    """Makes sure that `load(directory)` needs no download, and returns where the data lie.

    Raises:
      InputError: the local copy cannot be read, or no mirror gave a file.
    """
    local = prepared.local_copy(directory, "nab")
    if not local:
        return epath.Path(prepared.prepare(_builder).data_dir)
    parse(local)
    return local


def parse(source: epath.PathLike) -> list[File]:
    """Reads every labelled file from a folder in NAB's layout.

    Raises:
      InputError: something is missing, damaged or contradicts the labels; names the file.
    """
    root = epath.Path(source)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected {LAYOUT}")
    windows, points = _read_json(root / WINDOWS), _read_json(root / POINTS)
    if windows.keys() != points.keys():
        odd = sorted(windows.keys() ^ points.keys())[0]
        raise InputError(f"{root}: {odd!r} is in only one of {WINDOWS} and {POINTS}")
    return [_file(root, name, windows[name], points[name]) for name in sorted(windows)]


def _builder() -> Any:
    from spear_jax.data.builders.nab.builder import NumentaAnomalyBenchmark

    return NumentaAnomalyBenchmark(mirrors=MIRRORS)


def _read(directory: str) -> list[File]:
    local = prepared.local_copy(directory, "nab")
    if local:
        return parse(local)
    examples = prepared.read(prepared.prepare(_builder), "files")
    return [File(**(one | {"name": one["name"].decode()})) for one in examples]


def _read_json(path: epath.Path) -> Mapping[str, list[Any]]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as fault:
        raise InputError(f"{path}: no such file; expected {LAYOUT}") from fault
    except (OSError, ValueError) as fault:
        raise InputError(f"{path}: cannot be read as JSON ({one_line(fault)})") from fault
    if not isinstance(content, dict) or not all(isinstance(labels, list) for labels in content.values()):
        raise InputError(f"{path}: expected an object with a list of labels for each file")
    return content


def _file(root: epath.Path, name: str, windows: list[Any], points: list[Any]) -> File:
    path = root / "data" / name
    try:
        table = pd.read_csv(io.BytesIO(path.read_bytes()))
        times = _nanoseconds(table["timestamp"])
        values = pd.to_numeric(table["value"]).to_numpy(np.float64, copy=True)
    except FileNotFoundError as fault:
        raise InputError(f"{path}: no such file, though {root / WINDOWS} names it") from fault
    except KeyError as fault:
        raise InputError(f"{path}: no column {fault}; found {', '.join(map(str, table.columns))}") from fault
    except (OSError, ValueError, TypeError) as fault:  # pandas' ParserError and EmptyDataError are ValueErrors
        raise InputError(f"{path}: not a readable csv ({one_line(fault)})") from fault
    if not len(values):
        raise InputError(f"{path}: no rows")
    if np.isinf(values).any():
        raise InputError(f"{path}: row {int(np.argmax(np.isinf(values))) + 2}: infinite value; allowed: finite numbers")

    try:
        limits = _nanoseconds(np.array(windows, str).reshape(-1)).reshape(-1, 2)
        labels = _nanoseconds(np.array(points, str).reshape(-1))
    except (ValueError, TypeError) as fault:
        raise InputError(f"{root / WINDOWS}: {name!r}: cannot be read as times ({one_line(fault)})") from fault
    for first, last in limits:
        if not times.min() <= first <= last <= times.max():
            raise InputError(
                f"{root / WINDOWS}: {name!r}: window {_shown(first)} to {_shown(last)} does not lie within the file,"
                f" {_shown(times.min())} to {_shown(times.max())}, or ends before it begins"
            )
    for one in labels:
        if one not in times:
            raise InputError(f"{root / POINTS}: {name!r}: no row has the time {_shown(one)}")
    return File(name.removesuffix(".csv"), times, values, limits, labels)


def _nanoseconds(times: Any) -> Int[np.ndarray, "times"]:
    parsed = pd.to_datetime(pd.Series(times, dtype=str), format="ISO8601")
    if parsed.isna().any():
        raise ValueError(f"no time in row {int(parsed.isna().argmax()) + 2}")
    return parsed.to_numpy("datetime64[ns]").view(np.int64).copy()


def _shown(nanoseconds: int) -> str:
    return str(np.datetime64(int(nanoseconds), "ns").astype("datetime64[s]")).replace("T", " ")
