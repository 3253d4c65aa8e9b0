"""Scores files of any length in bounded memory, and writes a score per row and alarms."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from etils import epath
from jaxtyping import Float
from tqdm import tqdm

from spear_jax import parallel
from spear_jax.data import LiveTable, TableFile, TableScaler, check_order, name_series, name_table
from spear_jax.detector.scorer import Column, Scorer
from spear_jax.detector.stream import ScoredRows, Stream
from spear_jax.errors import InputError
from spear_jax.evaluation import Alarm, AlarmRule, Alarms
from spear_jax.report import Envelopes
from spear_jax.storage import unfinished, write_whole

_ALARM_TIMES = ("start_time", "end_time", "peak_time")

# Explicit for CSV, since pandas would shorten midnights and whole seconds chunk by chunk.
TIME_FORMAT = "%Y-%m-%d %H:%M:%S.%f"


class Scoring(NamedTuple):
    """Options for scoring tables: see `Stream`; `combine` is 'none', 'max' or 'mean' over the columns."""

    stride: int
    overlap: str
    combine: str = "none"


class Totals(NamedTuple):
    """Numbers of rows, series, scores at or above the threshold, and alarms."""

    rows: int
    series: int
    predicted: int
    alarms: int


def score_table(
    scorer: Scorer,
    table: TableFile | LiveTable,
    scoring: Scoring,
    warn: Callable[[str], object] = lambda remark: None,
) -> Iterator[pd.DataFrame]:
    """Scores the rows of a table; each of its value columns is a series, or several of a long table.

    `warn` is called with `Stream.remarks`.

    Yields:
      Frames with the columns of scores/<split>.parquet except the label, in order, as soon as their scores are final.
    """
    scalers = _fit_ahead(scorer, table) if scorer.detector.config.quantizer.scale == "series" else {}
    streams: dict[str, Stream] = {}  # by series of a long table
    for rows in table.chunks():
        for part, own in rows.parts():
            place = f"{table.path}, rows {rows.first + 1} to {rows.first + len(rows)}"
            check_order(f"{place} of {part!r}" if part else place, own.times.view("datetime64[ns]"))
            if part not in streams:
                streams[part] = Stream(
                    scorer,
                    list_columns(table, part),
                    stride=scoring.stride,
                    overlap=scoring.overlap,
                    scaler=scalers.get(part),
                )
            scored = streams[part].add(own.values, own.times)
            if len(scored.values):
                yield _make_frame(scorer, name_table(table.name, part), table.columns.values, scored, scoring.combine)
            for remark in streams[part].remarks(ended=False):
                warn(remark)
    for part, stream in streams.items():
        scored = stream.finish()
        if len(scored.values):
            yield _make_frame(scorer, name_table(table.name, part), table.columns.values, scored, scoring.combine)
        for remark in stream.remarks(ended=True):
            warn(remark)


def list_columns(table: TableFile | LiveTable, part: str = "") -> list[Column]:
    """Returns the value columns of a table, or of a series of a long table."""
    columns = table.columns.values
    return [Column(*names) for names in zip(name_series(name_table(table.name, part), columns), columns, strict=True)]


def _fit_ahead(scorer: Scorer, table: TableFile | LiveTable) -> dict[str, TableScaler]:
    """Fits the range of each column, in each series of a long table, to all its rows, for quantizer.scale='series'."""
    extremes: dict[str, list[Float[np.ndarray, "2 columns"]]] = {}
    for rows in table.chunks():
        for part, own in rows.parts():
            extremes.setdefault(part, []).append(pd.DataFrame(own.values).agg(["min", "max"]).to_numpy())
    scalers = {part: scorer.scaler(list_columns(table, part)) for part in extremes}
    for part, scaler in scalers.items():
        scaler.fit(np.concatenate(extremes[part]), ended=True)
    return scalers


def _make_frame(scorer: Scorer, table: str, columns: Sequence[str], scored: ScoredRows, combine: str) -> pd.DataFrame:
    names: Sequence[str] = name_series(table, columns)
    values, scores = scored.values, scored.scores
    rows = len(values)
    if combine != "none" and len(names) > 1:
        names, values = [table], np.full((rows, 1), np.nan)
        scores = getattr(scores, combine)(axis=1, keepdims=True)
    width = len(names)
    times = scored.times.view("datetime64[ns]") if len(scored.times) else np.full(rows, "NaT", "datetime64[ns]")
    flat = scores.reshape(-1).astype(np.float32)
    return pd.DataFrame(
        {
            "series": np.tile(np.array(names, object), rows),
            "step": np.repeat(np.arange(scored.first, scored.first + rows), width),
            "timestamp": np.repeat(times, width),
            "value": values.reshape(-1),
            "score": flat,
            "predicted": flat >= np.float32(scorer.detector.threshold.value),
        }
    )


class AlarmTable:
    """The alarms of several series whose scores arrive in frames."""

    def __init__(self, rule: AlarmRule) -> None:
        """Starts without series."""
        self._rule = rule
        self._open: dict[str, Alarms] = {}
        self._final: dict[str, list[Alarm]] = {}

    def add(self, frame: pd.DataFrame) -> None:
        """Adds a frame of `score_table`."""
        for name, part in frame.groupby("series", sort=False):
            alarms = self._open.setdefault(str(name), Alarms(self._rule))
            times = part["timestamp"].to_numpy("datetime64[ns]").astype(np.int64)
            first = int(part["step"].iloc[0])
            final = alarms.add(first, part["score"].to_numpy(), part["predicted"].to_numpy(), times)
            self._final.setdefault(str(name), []).extend(final)

    def finish(self) -> pd.DataFrame:
        """Returns the alarms in order: first and last step, peak, their times, length, and score at the peak."""
        rows = [
            {"series": name, "start": alarm.start, "end": alarm.end, "peak": alarm.peak}
            | dict(zip(_ALARM_TIMES, np.array(alarm.times, "datetime64[ns]"), strict=True))
            | {"steps": alarm.end - alarm.start + 1, "score": alarm.score}
            for name, final in self._final.items()
            for alarm in final + self._open[name].finish()
        ]
        return pd.DataFrame(rows, columns=["series", "start", "end", "peak", *_ALARM_TIMES, "steps", "score"])


def write_scores(
    scorer: Scorer,
    files: Sequence[TableFile],
    folder: epath.Path,
    scoring: Scoring,
    *,
    file_format: Literal["parquet", "csv"],
    warnings: Sequence[str],
) -> Totals:
    """Scores files into one table, and writes their alarms and a figure, with the warnings.

    The folder gets alarms.csv, figures/scores.png and, last and atomically, scores.parquet or scores.csv.

    Raises:
      InputError: a row cannot be parsed, or there are no rows.
    """
    rows = predicted = 0
    series: set[str] = set()
    alarms, envelopes = AlarmTable(scorer.detector.alarm_rule), Envelopes()
    path = folder / f"scores.{file_format}"
    temporary = unfinished(path)
    try:
        with (
            temporary.open("wb") as out,
            contextlib.closing(_FrameWriter(out, file_format, warnings)) as writer,
            tqdm(
                total=sum(file.size for file in files), desc="scoring", unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            finished_bytes = 0
            for file in files:
                for frame in score_table(scorer, file, scoring, parallel.warn):
                    writer.write(frame)
                    alarms.add(frame)
                    envelopes.add(frame)
                    names = frame["series"].unique()  # the frame has a row per series for each row of the file
                    rows += len(frame) // len(names)
                    series.update(names)
                    predicted += int(frame["predicted"].sum())
                    bar.update(finished_bytes + file.bytes_read - bar.n)
                finished_bytes += file.size
        if not rows:
            raise InputError(f"{', '.join(str(file.path) for file in files)}: no file has any rows")
        alarm_frame = alarms.finish()
        # People open it in a spreadsheet, which takes such names for formulas.
        shown = alarm_frame.assign(series=alarm_frame["series"].str.replace(r"^(?=[=+@\t\r-])", "'", regex=True))
        write_whole(folder / "alarms.csv", shown.to_csv(index=False, date_format=TIME_FORMAT))
        envelopes.draw(folder / "figures" / "scores.png", scorer.detector.threshold.value, alarm_frame, warnings)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return Totals(rows, len(series), predicted, len(alarm_frame))


class _FrameWriter:
    """Writes frames to a CSV or Parquet file that is open for writing, on any file system."""

    def __init__(self, out: Any, file_format: Literal["parquet", "csv"], warnings: Sequence[str]) -> None:
        self._out, self._format = out, file_format
        self._metadata = {"warnings": json.dumps(list(warnings))}
        self._parquet: Any = None
        self._header = True

    def write(self, frame: pd.DataFrame) -> None:
        if self._format == "csv":
            self._out.write(frame.to_csv(index=False, header=self._header, date_format=TIME_FORMAT).encode())
            self._header = False
            return
        table = pa.Table.from_pandas(frame, preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **self._metadata})
        self._parquet = self._parquet or pa.parquet.ParquetWriter(self._out, table.schema)
        self._parquet.write_table(table)

    def close(self) -> None:
        if self._parquet:
            self._parquet.close()
