"""Scores files of any length with a trained detector, in bounded memory: a score per row, and alarms."""

import json
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from etils import epath
from tqdm import tqdm

from spear_jax.data import LiveTable, Scaler, TableFile
from spear_jax.detector.stream import Column, ScoredRows, Scorer, Stream, fit_scaler
from spear_jax.errors import InputError
from spear_jax.evaluation import Alarm, Alarms, Rule
from spear_jax.report import Envelopes
from spear_jax.storage import write_whole

TIMES = ("start_time", "end_time", "peak_time")


# In CSV. One for all: pandas would leave midnights and whole seconds shorter, piece by piece.
TIME_FORMAT = "%Y-%m-%d %H:%M:%S.%f"


def score_file(
    scorer: Scorer, file: TableFile | LiveTable, *, stride: int = 0, overlap: str = "mean", combine: str = "none"
) -> Iterator[pd.DataFrame]:
    """The rows of a file with their scores, piece by piece, in order.

    Args:
      scorer: the detector.
      file: what is scored; each of its value columns is a series.
      stride: see `Stream`.
      overlap: see `Stream`.
      combine: 'none', or 'max' or 'mean' over the columns for one score per row.

    Yields:
      Tables with the columns of scores/<split>.parquet, without label, as soon as their rows are final.
    """
    scaler = _scaler_that_looks_ahead(scorer, file)
    stream = Stream(scorer, columns(file), stride=stride, overlap=overlap, scaler=scaler)
    for rows in file.chunks():
        scored = stream.add(rows.values, rows.times)
        if len(scored.values):
            yield _table(scorer, file, scored, combine)
    last = stream.finish()
    if len(last.values):
        yield _table(scorer, file, last, combine)


def _scaler_that_looks_ahead(scorer: Scorer, file: TableFile | LiveTable) -> Scaler | None:
    """The range of each whole column, where the detector was trained so; every other scale is the stream's own."""
    if scorer.detector.config.quantizer.scale != "series":
        return None
    extremes = [pd.DataFrame(rows.values).agg(["min", "max"]).to_numpy() for rows in file.chunks()]
    return fit_scaler(
        scorer.detector, columns(file), np.concatenate([np.zeros((0, len(file.columns.values))), *extremes])
    )


def columns(file: TableFile | LiveTable) -> list[Column]:
    """The value columns of a file."""
    return [Column(*pair) for pair in zip(file.series_names, file.columns.values, strict=True)]


def _table(scorer: Scorer, file: TableFile | LiveTable, scored: ScoredRows, combine: str) -> pd.DataFrame:
    names: Sequence[str] = file.series_names
    values, scores = scored.values, scored.scores
    rows = len(values)
    if combine != "none" and len(names) > 1:
        names, values = [file.name], np.full((rows, 1), np.nan)
        scores = getattr(scores, combine)(axis=1, keepdims=True)
    width = len(names)
    stamps = scored.times.view("datetime64[ns]") if len(scored.times) else np.full(rows, "NaT", "datetime64[ns]")
    flat = scores.reshape(-1).astype(np.float32)
    return pd.DataFrame(
        {
            "series": np.tile(np.array(names, object), rows),
            "step": np.repeat(np.arange(scored.first, scored.first + rows), width),
            "timestamp": np.repeat(stamps, width),
            "value": values.reshape(-1),
            "score": flat,
            "predicted": flat >= np.float32(scorer.detector.threshold.value),
        }
    )


class AlarmTable:
    """The alarms of all series, gathered piece by piece."""

    def __init__(self, rule: Rule) -> None:
        """Nothing seen yet."""
        self._rule = rule
        self._series: dict[str, Alarms] = {}
        self._found: dict[str, list[Alarm]] = {}

    def add(self, table: pd.DataFrame) -> None:
        """Takes rows of `score_file`."""
        for name, part in table.groupby("series", sort=False):
            alarms = self._series.setdefault(str(name), Alarms(self._rule))
            times = part["timestamp"].to_numpy("datetime64[ns]").astype(np.int64)
            found = alarms.add(int(part["step"].iloc[0]), part["score"].to_numpy(), part["predicted"].to_numpy(), times)
            self._found.setdefault(str(name), []).extend(found)

    def finish(self) -> pd.DataFrame:
        """All alarms in order: of each the first and last step, the peak, their times, and the score at the peak."""
        rows = [
            {"series": name, "start": one.start, "end": one.end, "peak": one.peak}
            | dict(zip(TIMES, np.array(one.times, "datetime64[ns]"), strict=True))
            | {"steps": one.end - one.start + 1, "score": one.score}
            for name, found in self._found.items()
            for one in found + self._series[name].finish()
        ]
        return pd.DataFrame(rows, columns=["series", "start", "end", "peak", *TIMES, "steps", "score"])


def write_scores(
    scorer: Scorer,
    files: Sequence[TableFile],
    folder: epath.Path,
    *,
    form: str,
    stride: int,
    overlap: str,
    combine: str,
    said: Sequence[str],
) -> dict[str, int]:
    """Scores files into one table, with a progress bar; writes the alarms and a figure too.

    The scores come last, and whole.

    Args:
      scorer: the detector.
      files: what is scored.
      folder: gets scores.parquet or scores.csv, alarms.csv and figures/scores.png.
      form: 'parquet' or 'csv', of the scores.
      stride: see `Stream`.
      overlap: see `Stream`.
      combine: see `score_file`.
      said: warnings, kept in the Parquet table's metadata and in the figure.

    Returns:
      How many rows the files have, how many series were scored, how many of their scores are at or above the
      threshold, and how many alarms there are.

    Raises:
      InputError: a row that cannot be read, or none at all.
    """
    rows = predicted = 0
    series: set[str] = set()
    alarms, drawn = AlarmTable(scorer.detector.alarm_rule), Envelopes()
    path = folder / f"scores.{form}"
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with (
            unfinished.open("wb") as out,
            _Writer(out, form, said) as writer,
            tqdm(
                total=sum(file.size for file in files), desc="scoring", unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            before = 0
            for file in files:
                for table in score_file(scorer, file, stride=stride, overlap=overlap, combine=combine):
                    writer.write(table)
                    alarms.add(table)
                    drawn.add(table)
                    names = table["series"].unique()  # a row of the file is a row of the table for each of them
                    rows += len(table) // len(names)
                    series.update(names)
                    predicted += int(table["predicted"].sum())
                    bar.update(before + file.bytes_read - bar.n)
                before += file.size
        if not rows:
            raise InputError(f"{', '.join(str(file.path) for file in files)}: no file has a row")
        found = alarms.finish()
        write_whole(folder / "alarms.csv", found.to_csv(index=False, date_format=TIME_FORMAT).encode())
        drawn.draw(folder / "figures" / "scores.png", scorer.detector.threshold.value, found, said)
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return {"rows": rows, "series": len(series), "predicted": predicted, "alarms": len(found)}


class _Writer:
    """Tables to one file, as they come."""

    def __init__(self, out: IO[bytes], form: str, said: Sequence[str]) -> None:
        self._out, self._form, self._said = out, form, list(said)
        self._parquet: Any = None
        self._begun = False

    def write(self, table: pd.DataFrame) -> None:
        if self._form == "csv":
            text = table.to_csv(index=False, header=not self._begun, date_format=TIME_FORMAT)
            self._out.write(text.encode())
            self._begun = True
            return
        found = pa.Table.from_pandas(table, preserve_index=False)
        found = found.replace_schema_metadata({**(found.schema.metadata or {}), "warnings": json.dumps(self._said)})
        self._parquet = self._parquet or pa.parquet.ParquetWriter(self._out, found.schema)
        self._parquet.write_table(found)

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *fault: object) -> None:
        if self._parquet:
            self._parquet.close()
