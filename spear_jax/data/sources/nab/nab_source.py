"""The Numenta Anomaly Benchmark (Lavin and Ahmad, ICMLA 2015): 58 files of real and made telemetry.

Each file is one series with time stamps; labels are windows around each anomaly, or the anomalies' single steps. A
window's rows are those whose time stamp lies in it, ends included. Rows are kept in the order of the file: some time
stamps come twice, and one file steps back by 55 minutes.
"""

from collections.abc import Sequence
from typing import Any

from etils import epath

from spear_jax.data.series import Series
from spear_jax.data.sources import prepared
from spear_jax.data.sources.nab.nab_parser import NabFile, parse_nab
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


def load_nab(
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


def prepare_nab(directory: str = "") -> epath.Path:
    """Makes sure that `load(directory)` needs no download, and returns where the data lie.

    Raises:
      InputError: the local copy cannot be read, or no mirror gave a file.
    """
    local = prepared.local_copy(directory, "nab")
    if not local:
        return epath.Path(prepared.prepare_with_tfds(_builder).data_dir)
    parse_nab(local)
    return local


def _builder() -> Any:
    from spear_jax.data.sources.nab.nab_builder import NumentaAnomalyBenchmark

    return NumentaAnomalyBenchmark(mirrors=MIRRORS)


def _read(directory: str) -> list[NabFile]:
    local = prepared.local_copy(directory, "nab")
    if local:
        return parse_nab(local)
    examples = prepared.read_prepared(prepared.prepare_with_tfds(_builder), "files")
    return [NabFile(**(one | {"name": one["name"].decode()})) for one in examples]
