"""Checks the folder of a run, and writes the files of the run."""

import json
import time
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.config import differences, to_json
from spear_jax.data import Dataset, LoadedSeries
from spear_jax.detector import Detector
from spear_jax.errors import InputError
from spear_jax.evaluation import Evaluation, RunRecord, compose_results, per_series, write_results
from spear_jax.model import Inspection
from spear_jax.report import results_table, write_report
from spear_jax.storage import read_json, write_whole

DATA = "data.json"
WRITTEN = ("report.html", "results.json", "per_series.parquet", "scores", "figures", "detector")
"""The files and folders of a finished run that people look at."""


def finished_results(config: ConfigDict, folder: epath.Path) -> dict[str, Any] | None:
    """Reads the results of a finished training run.

    Returns:
      The content of results.json; None if the run has not started or is not finished.

    Raises:
      InputError: the folder contains another run, or other files.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise InputError(f"--workdir={folder}: is a file; it must be a new folder, or that of the same run")
    if not (folder / "config.json").exists():
        if any(folder.iterdir()):
            raise InputError(f"--workdir={folder}: is not empty and contains no run; use a new folder")
        return None
    different = differences(read_json(folder / "config.json"), config)
    if different:
        raise InputError(
            f"--workdir={folder}: contains a run of another config, which differs in {'; '.join(different)};"
            " use a new folder"
        )
    if not (folder / "results.json").exists():
        return None
    content = read_json(folder / "results.json")
    if "epochs" not in content["training"]:
        raise InputError(f"--workdir={folder}: contains an evaluation, not a training run; use a new folder")
    schedule = (config.train.epochs, config.train.early_stopping.patience)
    return content if (content["training"]["epochs"], content["training"]["patience"]) == schedule else None


def check_same_data(config: ConfigDict, folder: epath.Path, loaded: LoadedSeries) -> None:
    """Checks that a run on the user's own files goes on with the data that it began with, wherever they are now."""
    if config.data.name != "files" or not (folder / "config.json").exists():
        return
    there, here = read_json(folder / "config.json")["data"], config.data
    if (folder / DATA).exists():
        same = read_json(folder / DATA)["sha256"] == loaded.digest()
    else:  # a run of an earlier version
        same = (there["dir"], there["intervals"]) == (here.dir, here.intervals)
    if not same:
        raise InputError(
            f"--workdir={folder}: contains a run on other data (config.data.dir={there['dir']!r} there, {here.dir!r}"
            " here, with different values, labels or times); use a new folder"
        )


def check_evaluation_folder(config: ConfigDict, folder: epath.Path) -> None:
    """Checks that a folder is new, or contains the same evaluation, unfinished."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--workdir={folder}: is a file; it must be a new folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    unfinished = (folder / "config.json").exists() and not any(
        (folder / name).exists() for name in ("results.json", "checkpoints")
    )
    if not unfinished or differences(read_json(folder / "config.json"), config):
        raise InputError(f"--workdir={folder}: is not empty; --mode=evaluate writes to a new folder")


def check_new_folder(folder: epath.Path, mode: str) -> None:
    """Checks that a folder is new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--workdir={folder} must be a new or empty folder with --mode={mode}")


def open_folder(folder: epath.Path, config: ConfigDict, loaded: LoadedSeries) -> None:
    """Creates the run's folder with its config.json; called once all checks have passed.

    The digest of the user's own files is kept beside it, for `check_same_data`.
    """
    if parallel.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "config.json", to_json(config).encode())
        if config.data.name == "files":
            write_whole(folder / DATA, json.dumps({"sha256": loaded.digest()}).encode())
    parallel.barrier("folder")


def write_run(
    folder: epath.Path,
    config: ConfigDict,
    dataset: Dataset,
    evaluation: Evaluation,
    record: RunRecord,
    inspection: Inspection | None,
    detector: Detector | None = None,
) -> None:
    """Writes the files of a run into its folder, results.json last, and prints the table of its results."""
    content = compose_results(config, dataset, evaluation, record)
    if parallel.is_main():
        if detector is not None:
            detector.save(folder / "detector")
        series_metrics = per_series(evaluation)
        write_report(folder, config, content, dataset, evaluation, series_metrics, inspection)
        write_results(folder, content, dataset, evaluation, series_metrics)
    parallel.barrier("written")
    parallel.say(results_table(content))


def describe_folder(folder: epath.Path, began: float) -> str:
    """Returns the line that names a finished run's folder, its content and the seconds since `began` (monotonic)."""
    names = [f"{name}/" if (folder / name).is_dir() else name for name in WRITTEN if (folder / name).exists()]
    return f"\n{folder}: {', '.join(names)} ({time.monotonic() - began:.0f} s)"
