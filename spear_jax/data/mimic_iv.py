"""MIMIC-IV vital signs: one series per intensive care stay and signal, of irregular length.

Reads the release's own files (Johnson et al., Scientific Data 2023): `icu/icustays.csv.gz`, `icu/d_items.csv.gz` and
`icu/chartevents.csv.gz`, which holds over 300 million rows in the full release and is streamed once; what is needed of
it is prepared beside the data. Itemids and plausibility limits are those of mimic-code's vitalsign.sql, but arterial
and non-invasive pressures stay apart. Times are shifted per patient, so only differences within a patient mean
anything. Nobody labelled anomalies: labels come from rules or injection.

The full release is credentialed and is never downloaded; all that is made from it falls under its data use agreement.
The openly licensed demo has the same layout and is called a demo in every result.
"""

import dataclasses
import gzip
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from etils import epath
from jaxtyping import Float32, Int64
from tqdm import tqdm

from spear_jax.data import prepared
from spear_jax.data.prepared import one_line
from spear_jax.data.series import Loaded, Series
from spear_jax.errors import InputError

ACCESS = (
    "MIMIC-IV is not downloaded: credentialed access is granted at https://physionet.org/content/mimiciv/ and the open"
    " demo lies at https://physionet.org/content/mimic-iv-demo/; unpack one and name its folder in data.dir"
)
AGREEMENT = (
    "made from MIMIC-IV, credentialed data: its data use agreement forbids passing on records, and what is derived from"
    " them (scores, figures, detectors) is to be shared with credentialed users only"
)
DEMO = "made from the MIMIC-IV demo (100 patients, ODbL): a stand-in, not the paper's data"
STAYS, ITEMS, EVENTS = "icu/icustays.csv.gz", "icu/d_items.csv.gz", "icu/chartevents.csv.gz"
LAYOUT = f"the release's layout: {STAYS}, {ITEMS} and {EVENTS}"
_BLOCK_BYTES = 1 << 25  # of text that is parsed at a time


class Signal(NamedTuple):
    """A vital sign: its itemids, and the limits between which a value is plausible; `low` itself is not."""

    items: tuple[int, ...]
    low: float
    high: float


SIGNALS = {
    "heart_rate": Signal((220045,), 0, 300),
    "respiratory_rate": Signal((220210, 224690), 0, 70),
    "spo2": Signal((220277,), 0, 100),
    "systolic_noninvasive": Signal((220179,), 0, 400),
    "diastolic_noninvasive": Signal((220180,), 0, 300),
    "mean_noninvasive": Signal((220181,), 0, 300),
    "systolic_arterial": Signal((220050, 225309), 0, 400),
    "diastolic_arterial": Signal((220051, 225310), 0, 300),
    "mean_arterial": Signal((220052, 225312), 0, 300),
    "temperature": Signal((223761, 223762), 10, 50),  # in degrees Celsius
}
FAHRENHEIT = 223761


@dataclasses.dataclass(frozen=True)
class Stay:
    """The vital signs of one intensive care stay.

    Attributes:
      subject: the patient.
      stay: the stay.
      signal: index into `SIGNALS` of each measurement; sorted by it, then by time.
      time: of each measurement, in seconds since 1970 of the shifted calendar.
      value: in the signal's unit; where a signal was charted twice at one time, the mean.
    """

    subject: int
    stay: int
    signal: Int64[np.ndarray, "measurements"]
    time: Int64[np.ndarray, "measurements"]
    value: Float32[np.ndarray, "measurements"]


def load(
    directory: str = "",
    *,
    signals: Sequence[str] = (),
    resample_hours: float = 0.0,
    min_steps: int = 2,
    prepared_dir: str = "",
    limit: int = 0,
) -> Loaded:
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
    source = local_copy(directory)
    demo = is_demo(source)
    numbers = {name: i for i, name in enumerate(SIGNALS)}
    series: list[Series] = []
    empty = 0
    for stay in prepare(directory, prepared_dir):
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
    return Loaded("mimic_iv_demo" if demo else "mimic_iv", series, tuple(warnings))


def is_demo(source: epath.Path) -> bool:
    """True for the open demo, which its README or its 100 patients tell."""
    readme, patients = source / "README.txt", source / "hosp" / "patients.csv.gz"
    if readme.exists() and re.search(r"\bdemo\b", readme.read_bytes().decode(errors="replace").lower()):
        return True
    return patients.exists() and len(_read_csv(patients, ("subject_id",))) == 100


def prepare(directory: str = "", prepared_dir: str = "") -> Iterator[Stay]:
    """The stays of a release, read from its files the first time and from what TFDS prepared after that.

    Raises:
      InputError: there is no copy, it cannot be read, or the prepared data cannot be kept.
    """
    source = local_copy(directory)
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
        from spear_jax.data.builders.mimic_iv.builder import MimicIvVitalSigns

        return MimicIvVitalSigns(source=source, data_dir=str(root / _fingerprint(source)))

    for example in prepared.read(prepared.prepare(builder), "stays"):
        yield Stay(**(example | {"subject": int(example["subject"]), "stay": int(example["stay"])}))


def parse(source: epath.PathLike) -> Iterator[Stay]:
    """Streams a release's chartevents, in memory for the vital signs alone, with a progress bar.

    Args:
      source: folder of the release.

    Yields:
      All stays, in order of their number, also those without a plausible measurement.

    Raises:
      InputError: a file is damaged or lacks a column; names it.
    """
    root = epath.Path(source)
    known = set(_read_csv(root / ITEMS, ("itemid",))["itemid"])
    signal_of = {item: i for i, signal in enumerate(SIGNALS.values()) for item in signal.items}
    if not known & signal_of.keys():
        raise InputError(f"{root / ITEMS}: knows none of the itemids {', '.join(map(str, signal_of))}")
    stays = _read_csv(root / STAYS, ("subject_id", "stay_id")).drop_duplicates("stay_id").sort_values("stay_id")
    ids = stays["stay_id"].to_numpy(np.int64)
    items = np.array(sorted(signal_of))
    signals = np.array([signal_of[item] for item in items])
    low, high = (np.array([getattr(signal, end) for signal in SIGNALS.values()]) for end in ("low", "high"))

    columns: tuple[list[np.ndarray], ...] = ([], [], [], [])
    for block in _blocks(root / EVENTS):
        item = block["itemid"]
        place = np.minimum(np.searchsorted(items, item), len(items) - 1)
        number = signals[place]
        value = np.where(item == FAHRENHEIT, (block["valuenum"] - 32) / 1.8, block["valuenum"])
        stay = np.minimum(np.searchsorted(ids, block["stay_id"]), len(ids) - 1)
        # NaN compares as False, so a value that is no number goes as well.
        good = (
            (items[place] == item) & (ids[stay] == block["stay_id"]) & (value > low[number]) & (value <= high[number])
        )
        good &= block["charttime"] != np.iinfo(np.int64).min
        for column, found, kind in zip(
            columns,
            (stay, number, block["charttime"], value),
            (np.int32, np.int8, np.int64, np.float32),
            strict=True,
        ):
            column.append(found[good].astype(kind))
    stay, number, time, value = (_joined(column) for column in columns)
    order = np.lexsort((time, number, stay))
    stay, number, time, value = stay[order], number[order], time[order], value[order]
    del order
    subjects = stays["subject_id"].to_numpy(np.int64)
    ends = np.searchsorted(stay, np.arange(len(ids)), side="right")
    for i, (begin, end) in enumerate(itertools.pairwise([0, *ends.tolist()])):
        here = slice(begin, end)
        yield Stay(int(subjects[i]), int(ids[i]), *_averaged(number[here], time[here], value[here]))


def local_copy(directory: str) -> epath.Path:
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


def _read_csv(path: epath.Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        with path.open("rb") as file, gzip.open(file) as text:
            return pd.read_csv(text, usecols=list(columns), dtype="int64")
    except (OSError, EOFError, ValueError) as fault:  # pandas' errors are ValueErrors
        raise InputError(
            f"{path}: cannot be read ({one_line(fault)}); needed are the columns {', '.join(columns)}"
        ) from fault


def _blocks(path: epath.Path) -> Iterator[dict[str, np.ndarray]]:
    """The columns that are needed, block by block; values as float64, times as seconds."""
    types = {"stay_id": pa.int64(), "itemid": pa.int64(), "valuenum": pa.float64(), "charttime": pa.timestamp("s")}
    try:
        with (
            path.open("rb") as file,
            tqdm(total=path.stat().length, desc=path.name, unit="B", unit_scale=True, disable=None) as bar,
        ):
            stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "gzip")
            reader = pa.csv.open_csv(
                stream,
                read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES),
                convert_options=pa.csv.ConvertOptions(include_columns=list(types), column_types=types),
            )
            for batch in reader:
                bar.update(file.tell() - bar.n)
                columns = {name: batch.column(name) for name in types}
                yield {
                    "stay_id": columns["stay_id"].fill_null(-1).to_numpy(zero_copy_only=False),
                    "itemid": columns["itemid"].fill_null(-1).to_numpy(zero_copy_only=False),
                    "valuenum": columns["valuenum"].fill_null(np.nan).to_numpy(zero_copy_only=False),
                    "charttime": columns["charttime"].cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy(),
                }
    except (pa.ArrowException, OSError, KeyError) as fault:
        raise InputError(
            f"{path}: cut off or not readable ({one_line(fault)}); needed are the columns {', '.join(types)}"
        ) from fault


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    whole = np.concatenate(parts)
    parts.clear()  # one column at a time is held twice
    return whole


def _averaged(number: np.ndarray, time: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One measurement per signal and time."""
    if not len(value):
        return number.astype(np.int64), time, value
    first = np.append(True, (np.diff(number) != 0) | (np.diff(time) != 0))
    group = np.cumsum(first) - 1
    mean = np.bincount(group, value) / np.bincount(group)
    return number[first].astype(np.int64), time[first], mean.astype(np.float32)


def _resampled(time: np.ndarray, value: np.ndarray, hours: float) -> tuple[np.ndarray, np.ndarray]:
    if not len(time):
        return time, value
    span = round(hours * 3600)
    place = (time - time[0]) // span
    count = np.bincount(place)
    with np.errstate(invalid="ignore"):
        mean = (np.bincount(place, value) / count).astype(np.float32)
    return time[0] + span * np.arange(len(count)), mean
