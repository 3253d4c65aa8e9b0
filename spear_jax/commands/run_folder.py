"""Checks the folder of a run, and writes the files of the run."""

from typing import Any

from etils import epath
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.config import differences, to_json
from spear_jax.data import Dataset
from spear_jax.detector import Detector
from spear_jax.errors import InputError
from spear_jax.evaluation import Evaluation, RunRecord, compose_results, per_series, versions, write_results
from spear_jax.model import Inspection
from spear_jax.report import results_table, write_report
from spear_jax.storage import read_json, write_whole


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


def open_folder(folder: epath.Path, config: ConfigDict) -> None:
    """Creates the run's folder with its config.json; called once all checks have passed."""
    if parallel.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "config.json", to_json(config).encode())
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
    """Writes the files of a run, results.json last, and prints the table of its results."""
    open_folder(folder, config)
    content = compose_results(config, dataset, evaluation, record)
    if parallel.is_main():
        if detector is not None:
            detector.save(folder / "detector", versions())
        series_metrics = per_series(evaluation)
        write_report(folder, config, content, dataset, evaluation, series_metrics, inspection)
        write_results(folder, content, dataset, evaluation, series_metrics)
    parallel.barrier("written")
    parallel.say(results_table(content))
