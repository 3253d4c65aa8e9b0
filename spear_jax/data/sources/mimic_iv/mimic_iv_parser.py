"""Parses vital signs from the MIMIC-IV tables."""

import dataclasses
import gzip
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from etils import epath
from jaxtyping import Float32, Int8, Int64
from tqdm import tqdm

from spear_jax.data.runs import find_equal_runs
from spear_jax.errors import InputError, one_line

AGREEMENT = (
    "made from MIMIC-IV, credentialed data: its data use agreement forbids passing on records, and what is derived from"
    " them (scores, figures, detectors) may be shared with credentialed users only"
)

DEMO = "made from the MIMIC-IV demo (100 patients, ODbL): a stand-in, not the paper's data"
STAYS, ITEMS, EVENTS = "icu/icustays.csv.gz", "icu/d_items.csv.gz", "icu/chartevents.csv.gz"
LAYOUT = f"the release's layout: {STAYS}, {ITEMS} and {EVENTS}"
_BLOCK_BYTES = 1 << 25  # text parsed at a time


class Signal(NamedTuple):
    """A vital sign: its itemids and the interval of plausible values, (low, high]."""

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
      subject: number of the patient.
      stay: number of the stay.
      signal: index into `SIGNALS` of each measurement; measurements are sorted by it, then by time.
      time: time of each measurement, in seconds since 1970 of the shifted calendar.
      value: value of each measurement, in the signal's unit; the mean if a signal was charted twice at one time.
    """

    subject: int
    stay: int
    signal: Int64[np.ndarray, "measurements"]
    time: Int64[np.ndarray, "measurements"]
    value: Float32[np.ndarray, "measurements"]


def is_demo(source: epath.Path) -> bool:
    """Returns whether a release is the open demo, judging by its README or its 100 patients."""
    readme, patients = source / "README.txt", source / "hosp" / "patients.csv.gz"
    if readme.exists() and re.search(r"\bdemo\b", readme.read_bytes().decode(errors="replace").lower()):
        return True
    return patients.exists() and len(_read_csv(patients, ("subject_id",))) == 100


def parse_mimic_iv(source: epath.PathLike) -> Iterator[Stay]:
    """Streams a release's chartevents with a progress bar; only the vital signs are held in memory.

    Yields all stays in order of stay number, including those without a plausible measurement.

    Raises:
      InputError: a file is damaged or lacks a column.
    """
    root = epath.Path(source)
    charted = set(_read_csv(root / ITEMS, ("itemid",))["itemid"])
    signal_of = {item: i for i, signal in enumerate(SIGNALS.values()) for item in signal.items}
    if not charted & signal_of.keys():
        raise InputError(f"{root / ITEMS}: lists none of the itemids {', '.join(map(str, signal_of))}")
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
        # NaN compares as False, so values that are not numbers are dropped as well.
        plausible = (
            (items[place] == item) & (ids[stay] == block["stay_id"]) & (value > low[number]) & (value <= high[number])
        )
        plausible &= block["charttime"] != np.iinfo(np.int64).min
        for column, chosen, dtype in zip(
            columns,
            (stay, number, block["charttime"], value),
            (np.int32, np.int8, np.int64, np.float32),
            strict=True,
        ):
            column.append(chosen[plausible].astype(dtype))
    stay, number, time, value = (_join(column) for column in columns)
    order = np.lexsort((time, number, stay))
    stay, number, time, value = stay[order], number[order], time[order], value[order]
    del order
    subjects = stays["subject_id"].to_numpy(np.int64)
    ends = np.searchsorted(stay, np.arange(len(ids)), side="right")
    for i, (begin, end) in enumerate(itertools.pairwise([0, *ends.tolist()])):
        here = slice(begin, end)
        yield Stay(int(subjects[i]), int(ids[i]), *_average_repeats(number[here], time[here], value[here]))


def _read_csv(path: epath.Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        with path.open("rb") as file, gzip.open(file) as text:
            return pd.read_csv(text, usecols=list(columns), dtype="int64")
    except (OSError, EOFError, ValueError) as error:  # pandas' errors are ValueErrors
        raise InputError(
            f"{path}: cannot be read ({one_line(error)}); required columns: {', '.join(columns)}"
        ) from error


def _blocks(path: epath.Path) -> Iterator[dict[str, np.ndarray]]:
    """Yields the needed columns block by block; values as float64, times as seconds."""
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
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(
            f"{path}: cut off or not readable ({one_line(error)}); required columns: {', '.join(types)}"
        ) from error


def _join(blocks: list[np.ndarray]) -> np.ndarray:
    column = np.concatenate(blocks)
    blocks.clear()  # so that only one column at a time is held twice
    return column


def _average_repeats(
    signal: Int8[np.ndarray, "charted"], time: Int64[np.ndarray, "charted"], value: Float32[np.ndarray, "charted"]
) -> tuple[Int64[np.ndarray, "measurements"], Int64[np.ndarray, "measurements"], Float32[np.ndarray, "measurements"]]:
    """Averages the values of a signal that were charted at the same time; rows are sorted by signal and time."""
    starts, ends = find_equal_runs(signal, time)
    means = np.add.reduceat(value.astype(np.float64), starts) / (ends - starts)
    return signal[starts].astype(np.int64), time[starts], means.astype(np.float32)
