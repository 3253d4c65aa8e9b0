"""Scores files of any length with a trained detector, in bounded memory."""

import dataclasses
import json
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Bool, Float
from ml_collections import ConfigDict
from tqdm import tqdm

from spear_jax import parallel
from spear_jax.data.batches import Examples
from spear_jax.data.files import CHUNK_ROWS, File
from spear_jax.data.scaler import Scaler
from spear_jax.data.series import Series
from spear_jax.data.windows import Windows
from spear_jax.detector import Detector
from spear_jax.errors import InputError
from spear_jax.model import Assembled
from spear_jax.scoring import score_windows


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A detector on its devices.

    Attributes:
      detector: quantizer, threshold and config.
      model: assembled from it.
      trainable: its parameters on the devices.
      frozen: the backbone and the bin embeddings on the devices.
      mesh: the devices.
    """

    detector: Detector
    model: Assembled = dataclasses.field(repr=False)
    trainable: Any = dataclasses.field(repr=False)
    frozen: Any = dataclasses.field(repr=False)
    mesh: Mesh

    @classmethod
    def place(cls, detector: Detector, model: Assembled) -> "Scorer":
        """Puts a model onto all devices."""
        mesh = parallel.make_mesh()
        everywhere = parallel.replicated(mesh)
        return cls(
            detector,
            model,
            parallel.place(model.trainable, everywhere),
            parallel.place(model.frozen, everywhere),
            mesh,
        )

    def __call__(
        self,
        values: Float[np.ndarray, "windows time"],
        real: Bool[np.ndarray, "windows time"],
        scaler: Scaler,
        columns: np.ndarray,
    ) -> Float[np.ndarray, "windows time"]:
        """P(anomalous) per step of windows of raw values, each of the column that `columns` names."""
        config = self.detector.config
        windows = Windows(values, np.zeros_like(real), real, columns, np.zeros(len(values), int))
        mask = real & np.isfinite(values) if config.quantizer.missing == "mask" else real
        examples = Examples(
            bins=self.detector.quantizer(scaler(windows)),
            mask=mask,
            targets=np.zeros(values.shape, np.float32),
            lengths=np.full(len(values), values.shape[1]),
        )
        batch_size = config.score.batch_size
        return score_windows(
            self.model.spear, self.trainable, self.frozen, examples, batch_size=batch_size, mesh=self.mesh
        )


def score_file(scorer: Scorer, file: File, *, window: int, stride: int, combine: str) -> Iterator[pd.DataFrame]:
    """The rows of a file with their scores, piece by piece, in order.

    A row is given out as soon as no later window can touch it: scores of overlapping windows are averaged, and the
    last window ends with the file.

    Args:
      scorer: the detector.
      file: what is scored; each of its value columns is a series.
      window: steps in a window.
      stride: steps from one window to the next.
      combine: 'none', or 'max' or 'mean' over the columns for one score per row.

    Yields:
      Tables with the columns of scores/<split>.parquet, without label.
    """
    columns = len(file.columns.values)
    scaler = _scaler(scorer.detector.config, file, scorer.detector.typical_width)
    values, times = np.zeros((0, columns)), np.zeros(0, np.int64)
    sums, counts = np.zeros((0, columns)), np.zeros(0)
    base = following = 0  # number of the buffer's first row; where the next window begins

    def score(starts: np.ndarray, length: int) -> None:
        """Adds the scores of windows that begin at rows of the buffer."""
        cut = np.full((len(starts), columns, window), np.nan)
        cut[:, :, :length] = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)[starts]
        real = np.broadcast_to(np.arange(window) < length, (len(starts) * columns, window))
        number = np.tile(np.arange(columns), len(starts))
        found = scorer(cut.reshape(-1, window), real, scaler, number).reshape(len(starts), columns, window)
        for start, one in zip(starts, found, strict=True):
            sums[start : start + length] += one[:, :length].T
            counts[start : start + length] += 1

    def take(rows: int) -> pd.DataFrame:
        """Takes the first rows out of the buffer."""
        nonlocal values, times, sums, counts, base
        table = _table(
            scorer.detector, file, base, times[:rows], values[:rows], sums[:rows] / counts[:rows, None], combine
        )
        values, times, sums, counts = values[rows:], times[rows:], sums[rows:], counts[rows:]
        base += rows
        return table

    for rows in file.chunks():
        size = len(rows.values)
        values, times = np.concatenate([values, rows.values]), np.concatenate([times, rows.times])
        sums, counts = np.concatenate([sums, np.zeros((size, columns))]), np.concatenate([counts, np.zeros(size)])
        starts = np.arange(following, base + len(values) - window + 1, stride)
        if len(starts):
            score(starts - base, window)
            following = int(starts[-1]) + stride
        done = min(following, base + len(values) - window) - base  # a last window may begin there
        if done > 0:
            yield take(done)
    if not len(values):
        return
    if base + len(values) < window:
        score(np.zeros(1, int), len(values))
    elif (counts == 0).any():
        score(np.array([len(values) - window]), window)
    yield take(len(values))


def write_scores(
    scorer: Scorer,
    files: list[File],
    path: epath.Path,
    *,
    window: int,
    stride: int,
    combine: str,
    said: Sequence[str],
) -> dict[str, int]:
    """Scores files into one Parquet table, with a progress bar; the table appears when it is whole.

    Args:
      scorer: the detector.
      files: what is scored.
      path: of the table.
      window: see `score_file`.
      stride: see `score_file`.
      combine: see `score_file`.
      said: warnings, kept in the table's metadata.

    Returns:
      Rows scored, and how many of them are predicted to be anomalous.

    Raises:
      InputError: a row that cannot be read, or none at all.
    """
    counted = {"rows": 0, "predicted": 0}
    unfinished = path.with_name(f".{path.name}.unfinished")
    writer = None
    try:
        with (
            unfinished.open("wb") as out,
            tqdm(
                total=sum(file.size for file in files), desc="scoring", unit="B", unit_scale=True, disable=None
            ) as bar,
        ):
            before = 0
            for file in files:
                for table in score_file(scorer, file, window=window, stride=stride, combine=combine):
                    found = pa.Table.from_pandas(table, preserve_index=False)
                    metadata = {**(found.schema.metadata or {}), "warnings": json.dumps(list(said))}
                    found = found.replace_schema_metadata(metadata)
                    writer = writer or pa.parquet.ParquetWriter(out, found.schema)
                    writer.write_table(found)
                    counted["rows"] += len(table)
                    counted["predicted"] += int(table["predicted"].sum())
                    bar.update(before + file.bytes_read - bar.n)
                before += file.size
            if not writer:
                raise InputError(f"{', '.join(str(file.path) for file in files)}: no file has a row")
            writer.close()
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return counted


def _scaler(config: ConfigDict, file: File, typical_width: float) -> Scaler:
    """The ranges that a new series gets: of its first rows, or of all of them where the detector looks ahead."""
    quantizer = config.quantizer
    needed = quantizer.reference_steps
    parts: list[np.ndarray] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without values has no extremes
        for rows in file.chunks(max(needed, 2) if quantizer.scale == "train" else CHUNK_ROWS):
            if quantizer.scale == "series":
                parts.append(np.stack([np.nanmin(rows.values, axis=0), np.nanmax(rows.values, axis=0)]))
                continue
            parts.append(rows.values)
            if sum(map(len, parts)) >= needed:
                break
    reference = np.concatenate(parts) if parts else np.zeros((0, len(file.columns.values)))
    series = [
        Series(name, column, np.zeros(len(column), bool))
        for name, column in zip(file.columns.values, reference.T, strict=True)
    ]
    return Scaler(
        quantizer.scale, series, [], reference_steps=needed, margin=quantizer.margin, typical_width=typical_width
    )


def _table(
    detector: Detector,
    file: File,
    first: int,
    times: np.ndarray,
    values: Float[np.ndarray, "rows columns"],
    scores: Float[np.ndarray, "rows columns"],
    combine: str,
) -> pd.DataFrame:
    rows, columns = values.shape
    names: Sequence[str] = file.series_names
    if combine != "none" and columns > 1:
        names, values = [file.name], np.full((rows, 1), np.nan)
        scores = getattr(scores, combine)(axis=1, keepdims=True)
    width = len(names)
    stamps = times.view("datetime64[ns]") if len(times) else np.full(rows, "NaT", "datetime64[ns]")
    flat = scores.reshape(-1).astype(np.float32)
    return pd.DataFrame(
        {
            "series": np.tile(np.array(names, object), rows),
            "step": np.repeat(np.arange(first, first + rows), width),
            "timestamp": np.repeat(stamps, width),
            "value": values.reshape(-1),
            "score": flat,
            "predicted": flat >= np.float32(detector.threshold.value),
        }
    )
