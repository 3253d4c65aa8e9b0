"""Reads the Numenta Anomaly Benchmark (Lavin and Ahmad, ICMLA 2015): 58 files of recorded and artificial telemetry.

Each file is one series with timestamps; labels are windows around the anomalies, or the anomalies' single steps. The
rows of a window are those whose timestamp lies in it, both ends included. Rows stay in the order of the file: some
timestamps occur twice, and one file steps back by 55 minutes.
"""

from collections.abc import Sequence
from typing import Any

from spear_jax.data.series import Series
from spear_jax.data.sources.nab.nab_parser import NabFile, parse_nab
from spear_jax.data.sources.prepared import PublicDataset
from spear_jax.errors import InputError

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
    """Reads one series with timestamps per file, sorted by name.

    Args:
      directory: a local or gs:// copy in NAB's own layout. '' means `$SPEAR_DATA_DIR/nab` if that exists, else TFDS'
        own folder, where the data set is downloaded and prepared once.
      groups: some of `GROUPS`; () means all.
      files: parts of file names; a file is kept if its name contains one of them; () means all.
      labels: 'windows' or 'points', see `NabFile.labels`.
      unlabelled: 'normal' labels files without a window (the group artificialNoAnomaly and one file of
        realAWSCloudwatch) normal throughout; 'drop' leaves them out.
      limit: number of series to keep, those with anomalies first, then the shortest; 0 keeps all.

    Raises:
      InputError: the data cannot be read, or no file is left.
    """
    for group in groups:
        if group not in GROUPS:
            raise InputError(f"config.data.nab.groups: no group is named {group!r}; allowed: {', '.join(GROUPS)}")
    chosen = [file for file in NAB.read(directory) if not groups or file.group in groups]
    for part in files:
        if not any(part in file.name for file in chosen):
            raise InputError(
                f"config.data.nab.files: no file name contains {part!r}; allowed: parts of"
                f" {', '.join(file.name for file in chosen)}"
            )
    chosen = [file for file in chosen if not files or any(part in file.name for part in files)]
    if unlabelled == "drop":
        chosen = [file for file in chosen if len(file.windows)]
    if not chosen:
        raise InputError(
            f"nab: no file is left with config.data.nab.groups={tuple(groups)} and"
            f" config.data.nab.unlabelled={unlabelled!r}"
        )
    if limit:
        chosen = sorted(chosen, key=lambda file: (not len(file.windows), len(file.values), file.name))[:limit]
    return [
        Series(file.name, file.values, file.labels(labels), timestamps=file.timestamps.view("datetime64[ns]"))
        for file in sorted(chosen, key=lambda file: file.name)
    ]


def _make_builder() -> Any:
    from spear_jax.data.sources.nab.nab_builder import NumentaAnomalyBenchmark

    return NumentaAnomalyBenchmark()


NAB = PublicDataset("nab", NabFile, parse_nab, _make_builder)
