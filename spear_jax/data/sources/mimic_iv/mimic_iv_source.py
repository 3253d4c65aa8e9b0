"""Reads MIMIC-IV vital signs: one series per intensive care stay and signal, of irregular length.

Reads the release's own files (Johnson et al., Scientific Data 2023): `icu/icustays.csv.gz`, `icu/d_items.csv.gz` and
`icu/chartevents.csv.gz`. The last has over 300 million rows in the full release; it is streamed once, and its vital
signs are stored next to the data. Itemids and plausibility limits are those of mimic-code's vitalsign.sql, but arterial
and non-invasive pressures are kept apart. Times are shifted per patient, so only differences within a patient are
meaningful. Anomalies are not labelled: labels come from rules or injection.

The full release is credentialed and never downloaded; everything made from it falls under its data use agreement. The
openly licensed demo has the same layout, and every result calls it a demo.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from spear_jax.data.series import LoadedSeries, Series
from spear_jax.data.sources import prepared
from spear_jax.data.sources.mimic_iv.mimic_iv_parser import (
    AGREEMENT,
    DEMO,
    EVENTS,
    ITEMS,
    LAYOUT,
    SIGNALS,
    STAYS,
    Stay,
    is_demo,
)
from spear_jax.errors import InputError, one_line

ACCESS = (
    "MIMIC-IV is not downloaded: credentialed access is granted at https://physionet.org/content/mimiciv/ and the open"
    " demo is at https://physionet.org/content/mimic-iv-demo/; unpack one and name its folder in data.dir"
)


def load_mimic_iv(
    directory: str = "",
    *,
    signals: Sequence[str] = (),
    resample_hours: float = 0.0,
    min_steps: int = 2,
    prepared_dir: str = "",
    limit: int = 0,
) -> LoadedSeries:
    """Reads one series per stay and signal, named '<stay>/<signal>' and grouped by patient.

    Args:
      directory: a local copy of the release. '' means `$SPEAR_DATA_DIR/mimic_iv`, else `mimic_iv_demo` there.
      signals: some of `SIGNALS`; () means all.
      resample_hours: 0 keeps the irregular times; else each step is the mean over that many hours, NaN if nothing was
        measured.
      min_steps: shorter series are left out.
      prepared_dir: folder for the extracted vital signs; '' means `spear_jax` in the release's folder.
      limit: number of series to keep, signal by signal in order of the stays; 0 keeps all.

    Raises:
      InputError: there is no copy, it cannot be read, or no series is long enough.
    """
    for signal in signals:
        if signal not in SIGNALS:
            raise InputError(f"config.data.mimic_iv.signals: {signal!r} is unknown; allowed: {', '.join(SIGNALS)}")
    signals = tuple(signals) or tuple(SIGNALS)
    source = mimic_iv_copy(directory)
    demo = is_demo(source)
    numbers = {name: i for i, name in enumerate(SIGNALS)}
    series: list[Series] = []
    empty_stays = 0
    for stay in prepare_mimic_iv(directory, prepared_dir):
        before = len(series)
        for signal in signals:
            chosen = stay.signal == numbers[signal]
            time, value = stay.time[chosen], stay.value[chosen]
            if resample_hours:
                time, value = _resample(time, value, resample_hours)
            if len(value) >= min_steps:
                series.append(
                    Series(
                        name=f"{stay.stay}/{signal}",
                        values=value,
                        labels=np.zeros(len(value), bool),
                        timestamps=(time * 10**9).view("datetime64[ns]"),
                        labelled=False,
                        group=str(stay.subject),
                    )
                )
        empty_stays += len(series) == before
    if not series:
        raise InputError(f"{source / EVENTS}: no stay has {min_steps} measurements of {', '.join(signals)}")
    if limit:
        rank = {signal: i for i, signal in enumerate(signals)}
        series = sorted(series, key=lambda item: rank[item.name.partition("/")[2]])[:limit]
    warnings = [DEMO if demo else AGREEMENT]
    if empty_stays:
        warnings.append(f"stays left out for fewer than {min_steps} measurements of every chosen signal: {empty_stays}")
    return LoadedSeries("mimic_iv_demo" if demo else "mimic_iv", series, tuple(warnings))


def prepare_mimic_iv(directory: str = "", prepared_dir: str = "") -> Iterator[Stay]:
    """Yields the stays of a release, read from its files the first time and from TFDS' prepared copy afterwards.

    Raises:
      InputError: there is no copy, it cannot be read, or its folder cannot store the prepared data.
    """
    source = mimic_iv_copy(directory)
    for name in (STAYS, ITEMS, EVENTS):
        if not (source / name).exists():
            raise InputError(f"{source / name}: no such file; expected {LAYOUT}")
    root = epath.Path(prepared_dir).expanduser() if prepared_dir else source / "spear_jax"
    if "://" in str(root):
        raise InputError(f"config.data.mimic_iv.prepared_dir={str(root)!r} must be a local folder")
    try:
        # Next to the data and private to its owner, never in TFDS' own folder, which others may read.
        root.mkdir(parents=True, exist_ok=True)
        os.chmod(root, 0o700)  # noqa: PTH101
        (root / "README.txt").write_text(f"Prepared by spear_jax, {DEMO if is_demo(source) else AGREEMENT}.\n")
    except OSError as error:
        raise InputError(
            f"{root}: cannot store the prepared data ({one_line(error)}); set config.data.mimic_iv.prepared_dir to"
            " another folder, private to you"
        ) from error

    def make_builder() -> Any:
        from spear_jax.data.sources.mimic_iv.mimic_iv_builder import MimicIvVitalSigns

        return MimicIvVitalSigns(source=source, data_dir=str(root / _fingerprint(source)))

    for example in prepared.read_prepared(prepared.prepare_with_tfds(make_builder), "stays"):
        yield Stay(**(example | {"subject": int(example["subject"]), "stay": int(example["stay"])}))


def mimic_iv_copy(directory: str) -> epath.Path:
    """Returns the folder of the release; see `load_mimic_iv`.

    Raises:
      InputError: there is no copy.
    """
    folder = prepared.local_copy(directory, "mimic_iv") or prepared.local_copy("", "mimic_iv_demo")
    if folder is None:
        raise InputError(ACCESS)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {ACCESS}")
    return folder


def _fingerprint(source: epath.Path) -> str:
    """Returns a digest that changes with the files, so that prepared data always match them."""
    versions = [(name, (source / name).stat().length, (source / name).stat().mtime) for name in (STAYS, EVENTS)]
    return hashlib.sha256(json.dumps(versions).encode()).hexdigest()[:12]


def _resample(time: np.ndarray, value: np.ndarray, hours: float) -> tuple[np.ndarray, np.ndarray]:
    if not len(time):
        return time, value
    span = round(hours * 3600)
    place = (time - time[0]) // span
    count = np.bincount(place)
    with np.errstate(invalid="ignore"):
        mean = (np.bincount(place, value) / count).astype(np.float32)
    return time[0] + span * np.arange(len(count)), mean
