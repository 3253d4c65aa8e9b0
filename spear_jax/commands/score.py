"""--mode=score: files, or rows as they come, scored with a trained detector."""

import dataclasses
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, BinaryIO

from etils import epath
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.config import carry, check_score_override, default_config, override, validate
from spear_jax.data import LOOKS_AHEAD, Columns, LiveTable, TableFile, find_files, split_names
from spear_jax.detector import (
    TIME_FORMAT,
    Detector,
    Scorer,
    columns,
    load_detector,
    rows_for_scale,
    score_file,
    write_scores,
)
from spear_jax.errors import InputError
from spear_jax.evaluation import Rule
from spear_jax.methods import load_method_backbone
from spear_jax.report import shortened
from spear_jax.training import StopSignal


def score_files(detector_path: str, source: str, workdir: str, overrides: Mapping[str, str]) -> None:
    """Scores files.

    Args:
      detector_path: a detector or run folder.
      source: a CSV or Parquet file, or a folder of them.
      workdir: a new folder, which gets scores.parquet (or .csv), alarms.csv and figures/scores.png.
      overrides: field -> value as typed.

    Raises:
      InputError: bad input; the folder is as it was.
    """
    began = time.monotonic()
    folder = epath.Path(workdir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--workdir={folder}: is not a new or empty folder; score writes to a new one")
    detector, config = _open(detector_path, overrides, live=False)
    places = find_files(source)
    found = [
        TableFile(path, name, named=_named(config), usual=_named(detector.config), labelled=False)
        for path, name in places
    ]
    series = [name for file in found for name in file.series_names]
    for name in series:
        if series.count(name) > 1:
            raise InputError(f"{source}: two series are named {name!r}")
    scorer, said = _place(detector, config, config.score.batch_size)
    stride = scorer.stride(config.score.stride)
    for warning in said:
        parallel.say(f"WARNING: {warning}")
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        counted = write_scores(
            scorer,
            found,
            folder,
            form=config.score.format,
            stride=stride,
            overlap=config.score.overlap or "mean",
            combine=config.data.combine,
            said=said,
        )
    except BaseException:
        if new:
            folder.rmtree()
        raise
    for file in found:
        for remark in file.remarks:
            parallel.say(f"WARNING: {file.path}: {remark}")
    for line in _scales(detector, found):
        parallel.say(line)
    threshold, rule = detector.threshold, detector.alarm_rule
    parallel.say(
        f"{counted['rows']:,} rows of {counted['series']:,} series scored, {counted['predicted']:,} scores at or above"
        f" the threshold {threshold.value:.4g} ({threshold.rule} on {detector.trained_on}),"
        f" {counted['alarms']:,} alarms (gaps of up to {rule.merge_gap} rows closed, alarms of fewer than"
        f" {rule.min_length} dropped)\n"
        f"{folder}: scores.{config.score.format}, alarms.csv, figures/scores.png ({time.monotonic() - began:.0f} s)"
    )


def score_live(detector_path: str, rows: BinaryIO | None, out: IO[str] | None, overrides: Mapping[str, str]) -> None:
    """Scores rows as they come: a line goes out for each as soon as its score is final.

    SIGINT and SIGTERM end the rows as their own end would: those that have come get their scores.

    Args:
      detector_path: a detector or run folder.
      rows: lines of CSV, column names first.
      out: gets CSV with the columns series, step, timestamp, value, score, predicted.
      overrides: field -> value as typed.

    Raises:
      InputError: bad input, or a detector that looks ahead. The rows before one that cannot be read have their scores.
    """
    if rows is None or out is None:
        raise InputError("--input=-: standard input or output is closed")
    with parallel.quiet():  # standard output is for scores
        detector, config = _open(detector_path, overrides, live=True)
    if detector.config.quantizer.scale == "series":
        raise InputError("--input=-: the detector's quantizer.scale='series' looks ahead; allowed are train, window")
    scorer, said = _place(detector, config, 1)
    stride, overlap = scorer.stride(config.score.stride), config.score.overlap or "first"

    def warn(warning: str) -> None:
        print(f"WARNING: {warning}", file=sys.stderr, flush=True)

    for warning in said:
        warn(warning)
    raw = rows.raw  # type: ignore[attr-defined]  # what has come is all in the pipe, not in a buffer
    file = LiveTable(
        raw,
        lambda remark: warn(f"standard input: {remark}"),
        named=_named(config),
        usual=_named(detector.config),
        labelled=False,
    )
    for line in (*_scales(detector, [file]), _latency(scorer, file, stride, overlap)):
        print(line, file=sys.stderr)
    # One window of each column at a time: a single shape, compiled once.
    scorer = scorer.with_batch_size(len(file.columns.values))
    header = True
    try:
        with StopSignal(file.end):
            for table in score_file(scorer, file, stride=stride, overlap=overlap, combine=config.data.combine):
                table.to_csv(out, index=False, header=header, date_format=TIME_FORMAT)
                out.flush()
                header = False
        if file.error:  # all rows before it have their scores
            raise file.error
    except BrokenPipeError:  # nobody reads on, as behind `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # else Python tries once more when it ends, and says so


def _latency(scorer: Scorer, file: LiveTable, stride: int, overlap: str) -> str:
    """How long a row of a live stream waits for its score, in rows; computing comes on top."""
    window = scorer.window
    first = max(window, rows_for_scale(scorer.detector, columns(file)))
    wait = stride - 1 if overlap == "first" else window
    return (
        f"the first scores come after {first} rows; from then on a row waits for at most {wait} more (windows of"
        f" {window} rows, one every {stride}, score.overlap={overlap})"
    )


def _scales(detector: Detector, found: Sequence[TableFile | LiveTable]) -> list[str]:
    """What each series is scaled by, where that is a choice."""
    if detector.config.quantizer.scale != "train":
        return []
    several = [column for file in found for column in columns(file)]
    known = [column.series for column in several if detector.range_of(*column)]
    new = [column.series for column in several if not detector.range_of(*column)]
    said = [f"scaled as in training: {shortened(known)}"] if known else []
    own = f"scaled by their own first {detector.config.quantizer.reference_steps} rows: {shortened(new)}"
    return said + ([own] if new else [])


def _open(detector_path: str, overrides: Mapping[str, str], *, live: bool) -> tuple[Detector, ConfigDict]:
    """The detector, with the alarm rule that is asked for, and a config with what else can be asked for."""
    detector, _ = load_detector(detector_path)
    config = default_config()
    config.data.name = "files"
    carry(detector.config, config)
    config.data.labels, config.data.combine = "column", detector.config.data.combine
    config.data.stride = max(config.data.window, 1)
    for field, text in overrides.items():
        check_score_override(field, live=live)
        override(config, field, text)
    validate(config)
    own = detector.alarm_rule
    gap = own.merge_gap if config.alarms.merge_gap < 0 else config.alarms.merge_gap
    detector = dataclasses.replace(detector, alarm_rule=Rule(gap, config.alarms.min_length or own.min_length))
    return detector, config


def _named(config: ConfigDict) -> Columns:
    """Returns the columns that a config names."""
    data = config.data
    return Columns(data.timestamp_column, tuple(split_names(data.value_columns)), data.label_column)


def _place(detector: Detector, config: ConfigDict, batch_size: int) -> tuple[Scorer, list[str]]:
    """The detector on the devices, and what has to be said about it."""
    backbone = load_method_backbone(config)
    looks_ahead = [LOOKS_AHEAD] if detector.config.quantizer.scale == "series" else []
    return Scorer.place(detector, backbone, batch_size), [*detector.remarks(backbone), *looks_ahead]
