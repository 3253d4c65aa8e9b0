"""Reads NASA's SMAP and MSL telemetry with expert-labelled anomalies (Hundman et al., KDD 2018).

Column 0 of each of the 81 labelled channels is a telemetry value; the other 24 (SMAP) or 54 (MSL) are command flags. A
channel has a train array without labelled anomalies and a test array; labels are ranges of test steps, read with
inclusive ends (no end lies beyond its array). Values are not cleaned: M-6 reaches 258.1 where everything else stays
within -1.5 and 4.2, and the train telemetry of 16 channels is constant; the scaler must handle both.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from spear_jax.data.series import Series
from spear_jax.data.sources.nasa.nasa_parser import SPACECRAFT, Channel, parse_nasa
from spear_jax.data.sources.prepared import PublicDataset
from spear_jax.errors import InputError


def load_nasa(
    directory: str = "",
    *,
    spacecraft: str = "both",
    parts: str = "test",
    column: int = 0,
    limit: int = 0,
) -> list[Series]:
    """Reads one series per labelled channel, sorted by id; `reference` is the same column of the train array.

    Args:
      directory: a local or gs:// copy: a folder in telemanom's layout, or its data.zip. '' means
        `$SPEAR_DATA_DIR/nasa` if that exists, else TFDS' own folder, where the data set is downloaded and prepared
        once.
      spacecraft: 'smap', 'msl' or 'both'.
      parts: 'test', or 'train+test': the train array, labelled normal, followed by the test array.
      column: index of the column; 0 is the telemetry value.
      limit: number of channels to keep; 0 keeps all. SMAP and MSL alternate, so that two channels show both
        spacecraft; channels with anomalies come first, then the shortest test arrays.

    Raises:
      InputError: the data cannot be read, or a channel has no such column.
    """
    channels = [channel for channel in NASA.read(directory) if channel.spacecraft in SPACECRAFT[spacecraft]]
    if limit:
        channels = _alternate(channels)[:limit]
    return [_to_series(channel, parts, column) for channel in sorted(channels, key=lambda channel: channel.name)]


def _alternate(channels: Sequence[Channel]) -> list[Channel]:
    """Alternates SMAP and MSL; of each, channels with anomalies come first, then the shortest."""
    ordered = sorted(channels, key=lambda channel: (not channel.labels.any(), len(channel.labels), channel.name))
    smap = [channel for channel in ordered if channel.spacecraft == "SMAP"]
    msl = [channel for channel in ordered if channel.spacecraft == "MSL"]
    return [channel for pair in itertools.zip_longest(smap, msl) for channel in pair if channel]


def _to_series(channel: Channel, parts: str, column: int) -> Series:
    columns = channel.test.shape[1]
    if not 0 <= column < columns:
        raise InputError(
            f"config.data.nasa.column={column}: channel {channel.name!r} has columns 0 to {columns - 1} only"
        )
    # Copies: a view would keep all other columns in memory, and arrays read by TFDS are not writable.
    past, values, labels = map(np.copy, (channel.train[:, column], channel.test[:, column], channel.labels))
    if parts == "train+test":
        values = np.concatenate([past, values])
        labels = np.concatenate([np.zeros(len(past), bool), labels])
    return Series(channel.name, values, labels, reference=past)


def _make_builder() -> Any:
    from spear_jax.data.sources.nasa.nasa_builder import NasaTelemetry

    return NasaTelemetry()


NASA = PublicDataset("nasa", Channel, parse_nasa, _make_builder)
