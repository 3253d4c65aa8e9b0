"""Owns and checks the folder of a run, and writes the files of the run."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.backbones import choose_dtype
from spear_jax.config import differences, flatten, to_json
from spear_jax.data import Dataset, LoadedSeries
from spear_jax.detector import Detector
from spear_jax.errors import InputError
from spear_jax.evaluation import Evaluation, RunRecord, compose_results, per_series, read_results, write_results
from spear_jax.model import Inspection
from spear_jax.report import results_table, write_report
from spear_jax.storage import OwnedFolder, read_json, write_whole

DATA = "data.json"
WRITTEN = ("report.html", "results.json", "per_series.parquet", "scores", "figures", "detector")
"""The files and folders of a finished run that people look at."""


@contextlib.contextmanager
def own_folder(workdir: str, mode: str) -> Iterator[OwnedFolder]:
    """Owns a folder within a with block, on behalf of all processes of a run; see `OwnedFolder.locked`."""
    folder, error = OwnedFolder(epath.Path(workdir), mode), None
    with contextlib.ExitStack() as stack:
        if parallel.is_main():
            try:
                stack.enter_context(folder.locked())
            except (InputError, OSError) as reason:
                error = reason
        if parallel.agree(error is not None):
            raise error or InputError(f"--workdir={workdir}: the first process cannot own it")
        yield folder


def settle_dtype(config: ConfigDict, folder: epath.Path) -> None:
    """Replaces `backbone.dtype=auto` by what the folder's run began with, or by what suits this machine.

    So a run goes on in one dtype wherever it is resumed, and its detector scores as it was trained.
    """
    if config.backbone.dtype == "auto" and (folder / "config.json").exists():
        config.backbone.dtype = flatten(read_json(folder / "config.json")).get("backbone.dtype", "auto")
    config.backbone.dtype = choose_dtype(config.backbone.dtype)


def finished_results(config: ConfigDict, owned: OwnedFolder) -> dict[str, Any] | None:
    """Reads the results of a finished training run.

    Returns:
      The content of results.json; None if the run has not started or is not finished.

    Raises:
      InputError: the folder contains another run, or other files.
    """
    folder = owned.path
    if owned.is_new():
        return None
    if not (folder / "config.json").exists():
        raise InputError(f"--workdir={folder}: is not empty and contains no run; use a new folder")
    different = differences(read_json(folder / "config.json"), config)
    if different:
        raise InputError(
            f"--workdir={folder}: contains a run of another config, which differs in {'; '.join(different)};"
            " use a new folder"
        )
    if not (folder / "results.json").exists():
        return None
    content = read_results(folder / "results.json")
    if "epochs" not in content["training"]:
        raise InputError(f"--workdir={folder}: contains an evaluation, not a training run; use a new folder")
    schedule = (config.train.epochs, config.train.early_stopping.patience)
    return content if (content["training"]["epochs"], content["training"]["patience"]) == schedule else None


def check_same_data(config: ConfigDict, folder: epath.Path, loaded: LoadedSeries) -> None:
    """Checks that a run on the user's own files goes on with the data that it began with, wherever they are now."""
    if config.data.name != "files" or not (folder / "config.json").exists():
        return
    there, here = read_json(folder / "config.json")["data"], config.data
    changed = "values, labels or times"
    if (folder / DATA).exists():
        stored, fingerprint = read_json(folder / DATA), loaded.fingerprint()
        same = stored.get("sha256") == fingerprint["sha256"]
        parts = [name for name in ("values", "labels", "times") if name in stored and stored[name] != fingerprint[name]]
        changed = " and ".join(parts) or changed
    else:  # a run of an earlier version
        same = (there["dir"], there["intervals"]) == (here.dir, here.intervals)
    if not same:
        raise InputError(
            f"--workdir={folder}: contains a run on other data (config.data.dir={there['dir']!r} there, {here.dir!r}"
            f" here, with different {changed}); use a new folder"
        )


def check_evaluation_folder(config: ConfigDict, owned: OwnedFolder) -> None:
    """Checks that a folder is new, or contains the same evaluation, unfinished."""
    folder = owned.path
    if owned.is_new():
        return
    finished = (folder / "results.json").exists() and not owned.abandoned
    unfinished = (folder / "config.json").exists() and not (finished or (folder / "checkpoints").exists())
    if not unfinished or differences(read_json(folder / "config.json"), config):
        raise InputError(f"--workdir={folder}: is not empty; --mode=evaluate writes to a new folder")


def check_new_folder(owned: OwnedFolder, mode: str) -> None:
    """Checks that a folder is new or empty, or that a process of this mode died while it wrote there."""
    if not (owned.is_new() or owned.abandoned):
        raise InputError(f"--workdir={owned.path} must be a new or empty folder with --mode={mode}")


def open_folder(owned: OwnedFolder, config: ConfigDict, loaded: LoadedSeries) -> None:
    """Begins to write the run's folder, with its config.json; called once all checks have passed.

    The digest of the user's own files is kept beside it, for `check_same_data`.
    """
    if parallel.is_main():
        folder = owned.path
        owned.begin()
        write_whole(folder / "config.json", to_json(config))
        if config.data.name == "files":
            write_whole(folder / DATA, json.dumps(loaded.fingerprint()))
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
