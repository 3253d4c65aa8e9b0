"""NASA's SMAP and MSL telemetry with expert-labelled anomalies (Hundman et al., KDD 2018).

81 labelled channels: column 0 is a telemetry value, the other 24 (SMAP) or 54 (MSL) are command
flags. Each channel has a train array without labelled anomalies and a test array; labels are ranges
of test steps, read with inclusive ends (no end lies beyond its array). Values are handed on as they
are: M-6 reaches 258.1 where everything else stays within -1.5 and 4.2, and 16 channels have
constant train telemetry; the scaler has to cope.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from spear_jax.data.series import Series
from spear_jax.data.sources import prepared
from spear_jax.data.sources.nasa.nasa_parser import SPACECRAFT, Channel, parse_nasa
from spear_jax.errors import InputError

# The S3 archive that telemanom's README names answers 403 since late 2024 (khundman/telemanom#85).
# These hold its arrays and csv at a fixed commit.
_COMMIT = "7ffb98d0c18189cc3d9ab732b4cb0278200a0af0"


MIRRORS = (
    f"https://raw.githubusercontent.com/imperial-qore/TranAD/{_COMMIT}/data/SMAP_MSL",
    f"https://cdn.jsdelivr.net/gh/imperial-qore/TranAD@{_COMMIT}/data/SMAP_MSL",
)


PARTS = ("test", "train+test")


def load_nasa(
    directory: str = "",
    *,
    spacecraft: str = "both",
    parts: str = "test",
    column: int = 0,
    limit: int = 0,
) -> list[Series]:
    """One series per labelled channel, sorted by channel id.

    Args:
      directory: a local or gs:// copy: a folder in telemanom's layout, or its data.zip. '' means
        `$SPEAR_DATA_DIR/nasa` if that exists, else the data set is downloaded and prepared, once,
        in TFDS' own folder.
      spacecraft: 'smap', 'msl' or 'both'.
      parts: 'test', or 'train+test': the train array, labelled normal, followed by the test array.
      column: which column; 0 is the telemetry value.
      limit: 0, or how many channels to keep: SMAP and MSL by turns, each shortest test array first
        and those with anomalies before those without. So two channels show both spacecraft.

    Returns:
      Series whose `reference` is the column of the train array.

    Raises:
      InputError: the data cannot be read, or an argument is impossible.
    """
    if spacecraft not in SPACECRAFT:
        raise InputError(f"spacecraft is {spacecraft!r}; allowed: {', '.join(SPACECRAFT)}")
    if parts not in PARTS:
        raise InputError(f"parts is {parts!r}; allowed: {', '.join(PARTS)}")
    if limit < 0:
        raise InputError(f"limit is {limit}; allowed: 0 (all channels) or more")
    local = prepared.local_copy(directory, "nasa")
    channels = parse_nasa(local) if local else _read_prepared()
    channels = [c for c in channels if c.spacecraft in SPACECRAFT[spacecraft]]
    if limit:
        channels = _by_turns(channels)[:limit]
    return [_series(c, parts, column) for c in sorted(channels, key=lambda c: c.name)]


def prepare_nasa(directory: str = "") -> epath.Path:
    """Makes sure that `load(directory)` needs no download, and returns where the data lie.

    Raises:
      InputError: the local copy cannot be read, or no mirror gave a file.
    """
    local = prepared.local_copy(directory, "nasa")
    if not local:
        return epath.Path(prepared.prepare_with_tfds(_builder).data_dir)
    parse_nasa(local)
    return local


def _by_turns(channels: Sequence[Channel]) -> list[Channel]:
    """SMAP and MSL by turns; in each, channels with anomalies first, then the shortest."""
    ordered = sorted(channels, key=lambda c: (not c.labels.any(), len(c.labels), c.name))
    smap = [c for c in ordered if c.spacecraft == "SMAP"]
    msl = [c for c in ordered if c.spacecraft == "MSL"]
    return [c for pair in itertools.zip_longest(smap, msl) for c in pair if c]


def _series(channel: Channel, parts: str, column: int) -> Series:
    columns = channel.test.shape[1]
    if not 0 <= column < columns:
        raise InputError(f"column is {column}, but channel {channel.name!r} has columns 0 to {columns - 1}")
    # Copies: a view would keep all other columns in memory, and what TFDS read is not writeable.
    stretches = (channel.train[:, column], channel.test[:, column], channel.labels)
    past, values, labels = map(np.copy, stretches)
    if parts == "train+test":
        values = np.concatenate([past, values])
        labels = np.concatenate([np.zeros(len(past), bool), labels])
    return Series(channel.name, values, labels, reference=past)


def _builder() -> Any:
    from spear_jax.data.sources.nasa.nasa_builder import NasaTelemetry

    return NasaTelemetry(mirrors=MIRRORS)


def _read_prepared() -> list[Channel]:
    return [
        Channel(
            name=example["name"].decode(),
            spacecraft=example["spacecraft"].decode(),
            train=example["train"],
            test=example["test"],
            labels=example["labels"],
        )
        for example in prepared.read_prepared(prepared.prepare_with_tfds(_builder), "channels")
    ]
