"""MIMIC-IV vital signs: one series per intensive care stay and signal, of irregular length.

Reads the release's own files (Johnson et al., Scientific Data 2023): `icu/icustays.csv.gz`, `icu/d_items.csv.gz` and
`icu/chartevents.csv.gz`, which holds over 300 million rows in the full release and is streamed once; what is needed of
it is prepared beside the data. Itemids and plausibility limits are those of mimic-code's vitalsign.sql, but arterial
and non-invasive pressures stay apart. Times are shifted per patient, so only differences within a patient mean
anything. Nobody labelled anomalies: labels come from rules or injection.

The full release is credentialed and is never downloaded; all that is made from it falls under its data use agreement.
The openly licensed demo has the same layout and is called a demo in every result.
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
    " demo lies at https://physionet.org/content/mimic-iv-demo/; unpack one and name its folder in data.dir"
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
    """One series per stay and signal, named '<stay>/<signal>', in groups by patient.

    Args:
      directory: a local copy of the release. '' means `$SPEAR_DATA_DIR/mimic_iv`, else `mimic_iv_demo` there.
      signals: which of `SIGNALS`; () means all.
      resample_hours: 0 keeps the irregular times; else the mean over each such span, NaN where none was measured.
      min_steps: shorter series are left out.
      prepared_dir: where what was read is kept for the next time; '' means `spear_jax` in the release's folder.
      limit: 0, or how many series to keep: signal by signal, in order of the stays.

    Raises:
      InputError: there is no copy, it cannot be read, or nothing is left of it.
    """
    for signal in signals:
        if signal not in SIGNALS:
            raise InputError(f"data.mimic_iv.signals: {signal!r} is unknown; allowed: {', '.join(SIGNALS)}")
    signals = tuple(signals) or tuple(SIGNALS)
    source = mimic_iv_copy(directory)
    demo = is_demo(source)
    numbers = {name: i for i, name in enumerate(SIGNALS)}
    series: list[Series] = []
    empty = 0
    for stay in prepare_mimic_iv(directory, prepared_dir):
        before = len(series)
        for signal in signals:
            here = stay.signal == numbers[signal]
            time, value = stay.time[here], stay.value[here]
            if resample_hours:
                time, value = _resampled(time, value, resample_hours)
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
        empty += len(series) == before
    if not series:
        raise InputError(f"{source / EVENTS}: no stay has {min_steps} measurements of {', '.join(signals)}")
    if limit:
        rank = {signal: i for i, signal in enumerate(signals)}
        series = sorted(series, key=lambda one: rank[one.name.partition("/")[2]])[:limit]
    warnings = [DEMO if demo else AGREEMENT]
    if empty:
        warnings.append(f"{empty} stays have fewer than {min_steps} measurements of every chosen signal: left out")
    return LoadedSeries("mimic_iv_demo" if demo else "mimic_iv", series, tuple(warnings))


def prepare_mimic_iv(directory: str = "", prepared_dir: str = "") -> Iterator[Stay]:
    """The stays of a release, read from its files the first time and from what TFDS prepared after that.

    Raises:
      InputError: there is no copy, it cannot be read, or the prepared data cannot be kept.
    """
    source = mimic_iv_copy(directory)
    for name in (STAYS, ITEMS, EVENTS):
        if not (source / name).exists():
            raise InputError(f"{source / name}: no such file; expected {LAYOUT}")
    root = epath.Path(prepared_dir).expanduser() if prepared_dir else source / "spear_jax"
    if "://" in str(root):
        raise InputError(f"{root}: cannot hold the prepared data; data.mimic_iv.prepared_dir can name a local folder")
    try:
        # Beside the data and for its owner alone, never in TFDS' own folder, which others may read.
        root.mkdir(parents=True, exist_ok=True)
        os.chmod(root, 0o700)  # noqa: PTH101
        (root / "README.txt").write_text(f"Prepared by spear_jax, {DEMO if is_demo(source) else AGREEMENT}.\n")
    except OSError as fault:
        raise InputError(
            f"{root}: cannot hold the prepared data ({one_line(fault)}); data.mimic_iv.prepared_dir can name another"
            " folder, which should be yours alone"
        ) from fault

    def builder() -> Any:
        from spear_jax.data.sources.mimic_iv.mimic_iv_builder import MimicIvVitalSigns

        return MimicIvVitalSigns(source=source, data_dir=str(root / _fingerprint(source)))

    for example in prepared.read_prepared(prepared.prepare_with_tfds(builder), "stays"):
        yield Stay(**(example | {"subject": int(example["subject"]), "stay": int(example["stay"])}))


def mimic_iv_copy(directory: str) -> epath.Path:
    """Where the release lies; see `load`.

    Raises:
      InputError: there is no copy.
    """
    found = prepared.local_copy(directory, "mimic_iv") or prepared.local_copy("", "mimic_iv_demo")
    if found is None:
        raise InputError(ACCESS)
    if not found.is_dir():
        raise InputError(f"{found}: no such folder; {ACCESS}")
    return found


def _fingerprint(source: epath.Path) -> str:
    """Changes with the files, so that data prepared from others are not taken for theirs."""
    about = [(name, (source / name).stat().length, (source / name).stat().mtime) for name in (STAYS, EVENTS)]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]


def _resampled(time: np.ndarray, value: np.ndarray, hours: float) -> tuple[np.ndarray, np.ndarray]:
    if not len(time):
        return time, value
    span = round(hours * 3600)
    place = (time - time[0]) // span
    count = np.bincount(place)
    with np.errstate(invalid="ignore"):
        mean = (np.bincount(place, value) / count).astype(np.float32)
    return time[0] + span * np.arange(len(count)), mean
