"""--mode=score: scores files, or rows as they arrive, with a trained detector."""

import collections
import dataclasses
import os
import sys
import time
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.commands.run_folder import check_new_folder
from spear_jax.config import carry, check_score_override, default_config, override, validate, view_names
from spear_jax.data import (
    LOOKS_AHEAD,
    Columns,
    LiveTable,
    TableFile,
    TableOptions,
    look_ahead,
    open_files,
    read_table_options,
)
from spear_jax.detector import (
    TIME_FORMAT,
    Detector,
    Scorer,
    Scoring,
    list_columns,
    load_detector,
    score_table,
    write_scores,
)
from spear_jax.errors import InputError, plain
from spear_jax.evaluation import AlarmRule
from spear_jax.methods import load_method_backbone
from spear_jax.report import counted, describe_rule, shortened
from spear_jax.storage import OwnedFolder
from spear_jax.training import StopSignal


def score_files(detector_path: str, source: str, owned: OwnedFolder, overrides: Mapping[str, str]) -> None:
    """Scores a CSV or Parquet file, or a folder of them.

    A new folder gets scores.parquet (or .csv), alarms.csv and figures/scores.png.

    Raises:
      InputError: bad input; the folder is unchanged.
    """
    start = time.monotonic()
    folder = owned.path
    check_new_folder(owned, "score")
    detector, config = _load(detector_path, overrides, live=False)
    files, remarks = _open_files(source, config, detector)
    scorer, warnings = _place(detector, config, config.score.batch_size)
    stride = scorer.stride_or_window(config.score.stride)
    for warning in (*warnings, *remarks):
        parallel.warn(warning)
    owned.begin()
    totals = write_scores(
        scorer,
        files,
        folder,
        Scoring(stride, config.score.overlap or "mean", config.data.combine),
        file_format=config.score.format,
        warnings=warnings,
    )
    for file in files:
        for remark in file.remarks:
            parallel.warn(f"{file.path}: {remark}")
    for line in _describe_scales(detector, files):
        parallel.say(line)
    threshold, rule = detector.threshold, detector.alarm_rule
    parallel.say(
        f"{counted(totals.rows, 'row')} of {totals.series:,} series scored,"
        f" {counted(totals.predicted, 'score')} at or above the threshold {threshold.value:.4g}"
        f" ({threshold.rule} on {detector.trained_on}),"
        f" {counted(totals.alarms, 'alarm')} ({describe_rule(rule.merge_gap, rule.min_length, 'row')})\n"
        f"{folder}: scores.{config.score.format}, alarms.csv, figures/scores.png ({time.monotonic() - start:.0f} s)"
    )


def score_live(detector_path: str, overrides: Mapping[str, str]) -> None:
    """Scores rows of CSV as they arrive on standard input: writes a line for each as soon as its score is final.

    Standard output gets CSV with the columns series, step, timestamp, value, score, predicted.

    SIGINT and SIGTERM end the input: the rows that have arrived get their scores.

    Raises:
      InputError: bad input, or a detector that looks ahead. Rows before one that cannot be parsed get their scores.
    """
    if sys.stdin is None or sys.stdout is None:
        raise InputError("--input=-: standard input or output is closed")
    with parallel.quiet():  # standard output is for scores
        detector, config = _load(detector_path, overrides, live=True)
    if detector.config.quantizer.scale == "series":
        raise InputError("--input=-: the detector's quantizer.scale='series' looks ahead; allowed: train, window")
    views = detector.config.quantizer.views
    if look_ahead(view_names(detector.config)[1:]) is None:
        raise InputError(
            f"--input=-: the detector's quantizer.views={views!r} read the whole series, which live rows never have;"
            " allowed: views of the past"
        )
    scorer, warnings = _place(detector, config, 1)
    scoring = Scoring(
        scorer.stride_or_window(config.score.stride), config.score.overlap or "first", config.data.combine
    )

    def warn(warning: str) -> None:
        print(f"WARNING: {plain(warning)}", file=sys.stderr, flush=True)

    for warning in warnings:
        warn(warning)
    table = LiveTable(
        sys.stdin.buffer.raw,  # type: ignore[union-attr]  # unbuffered, so that select() sees every byte that has arrived
        lambda remark: warn(f"standard input: {remark}"),
        _table_options(config, detector),
    )
    for line in (*_describe_scales(detector, [table]), _describe_latency(scorer, table, scoring)):
        print(plain(line), file=sys.stderr)
    # One window per column at a time: a single shape, compiled once.
    scorer = scorer.with_batch_size(len(table.columns.values))
    header = True
    try:
        with StopSignal(table.end):
            for frame in score_table(scorer, table, scoring, warn):
                frame.to_csv(sys.stdout, index=False, header=header, date_format=TIME_FORMAT)
                sys.stdout.flush()
                header = False
        if table.error:  # all rows before it have been scored
            raise table.error
    except BrokenPipeError:  # the reader has closed the output, as `head` does
        # Otherwise Python reports the error again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _load(detector_path: str, overrides: Mapping[str, str], *, live: bool) -> tuple[Detector, ConfigDict]:
    """Loads a detector, with the alarm rule of the overrides, and makes a config for scoring files with it."""
    detector, _ = load_detector(detector_path)
    config = default_config()
    config.data.name = "files"
    carry(detector.config, config)
    config.data.labels, config.data.combine = "column", detector.config.data.combine
    for name in ("value_columns", "series_column", "missing_values"):  # those of the training, unless named again
        config.data[name] = detector.config.data[name]
    config.data.stride = max(config.data.window, 1)
    for field, text in overrides.items():
        check_score_override(field, live=live)
        override(config, field, text)
    validate(config)
    rule = detector.alarm_rule
    merge_gap = rule.merge_gap if config.alarms.merge_gap < 0 else config.alarms.merge_gap
    rule = AlarmRule(merge_gap, config.alarms.min_length or rule.min_length)
    return dataclasses.replace(detector, alarm_rule=rule), config


def _place(detector: Detector, config: ConfigDict, batch_size: int) -> tuple[Scorer, list[str]]:
    """Puts a detector on all devices; returns it with warnings about its scores."""
    backbone = load_method_backbone(config)
    looks_ahead = [LOOKS_AHEAD] if detector.config.quantizer.scale == "series" else []
    return Scorer.place(detector, backbone, batch_size), [*detector.remarks(backbone), *looks_ahead]


def _open_files(source: str, config: ConfigDict, detector: Detector) -> tuple[list[TableFile], list[str]]:
    """Opens the files to score; returns them with remarks on those that are left out."""
    files, remarks = open_files(source, _table_options(config, detector))
    wide = [column.series for file in files for column in list_columns(file) if not file.columns.series]
    for name, count in collections.Counter(wide).items():
        if count > 1:
            raise InputError(f"{source}: two series are named {name!r}")
    return files, remarks


def _table_options(config: ConfigDict, detector: Detector) -> TableOptions:
    """Returns how tables are read: by what the config names, else as in training."""
    trained = detector.config.data
    usual = Columns(trained.timestamp_column, detector.trained_columns, trained.label_column)
    return read_table_options(config.data, usual=usual, labelled=False)


def _describe_scales(detector: Detector, tables: Sequence[TableFile | LiveTable]) -> list[str]:
    """Returns a line about the series that are scaled as in training, and one about all others."""
    if detector.config.quantizer.scale != "train":
        return []
    trained: list[str] = []
    new: list[str] = []
    if any(table.columns.series for table in tables):
        return ["series of long tables are scaled as in training, new ones by their own first rows"]
    for table in tables:
        for column in list_columns(table):
            (trained if detector.range_of(*column) else new).append(column.series)
    steps = detector.config.quantizer.reference_steps
    lines = [f"scaled as in training: {shortened(trained)}"] if trained else []
    return lines + ([f"scaled by their own first {steps} rows: {shortened(new)}"] if new else [])


def _describe_latency(scorer: Scorer, table: LiveTable, scoring: Scoring) -> str:
    """Returns a line about the number of rows until a score is final, not counting the time to compute it."""
    window, stride = scorer.window, scoring.stride
    readout = scorer.detector.readout
    ahead, delay = look_ahead(view_names(scorer.detector.config)[1:]) or 0, readout.look_ahead
    first_delay = delay + readout.awaited_rows - 1
    # Of a window's scores with score.overlap='first', those of all but its last rows are read out at once.
    if scoring.overlap == "first":
        first_delay = -(-max(first_delay + 1 - window, 0) // stride) * stride
    first = max(window + ahead + first_delay, scorer.scaler(list_columns(table)).awaited_rows)
    wait = (stride - 1 if scoring.overlap == "first" else window) + ahead + delay
    then = f"a row waits for at most {wait} more" if wait else "each row is scored at once"
    return (
        f"the first scores come after {first} rows; from then on {then} (windows of {window} rows, one every"
        f" {stride}, score.overlap={scoring.overlap})"
    )
