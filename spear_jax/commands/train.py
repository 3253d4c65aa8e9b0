"""Trains and evaluates: from a config to a finished run folder."""

import dataclasses
import time

from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.commands import memory
from spear_jax.commands.run_folder import (
    check_same_data,
    describe_folder,
    finished_results,
    open_folder,
    settle_dtype,
    write_run,
)
from spear_jax.data import build_dataset, load_series
from spear_jax.evaluation import RunRecord, judge_scores
from spear_jax.methods import fit
from spear_jax.model import PlacedModel, inspect_prompt
from spear_jax.parallel import plain_warnings
from spear_jax.report import introduce, results_table
from spear_jax.storage import OwnedFolder


def train_and_evaluate(config: ConfigDict, owned: OwnedFolder, command: str) -> str:
    """Trains and evaluates, or resumes an earlier run in the same folder.

    Returns:
      The reason why the run stopped early; '' if it is finished.

    Raises:
      InputError: bad input; the folder is unchanged.
    """
    began = time.monotonic()
    folder = owned.path
    settle_dtype(config, folder)
    finished = finished_results(config, owned)
    parallel.barrier("looked")  # before the main process changes the folder that the others check
    record = RunRecord(command)
    with record.timed("loading"):
        if not finished or config.data.name == "files":  # public data do not change
            loaded = load_series(config)
            check_same_data(config, folder, loaded)
        if finished:
            parallel.say(f"{folder}: this run is done; its results:\n{results_table(finished)}")
            parallel.say(describe_folder(folder, began))
            return ""
        dataset = build_dataset(config, loaded)
    record.add_dataset(dataset)

    def on_start(model: PlacedModel | None) -> None:
        if model is not None:  # without a model, an API endpoint may still reject the run
            open_folder(owned, config, loaded)
        introduce(config, dataset, record, model)

    with plain_warnings():
        fitted = fit(config, dataset, record, folder, on_start=on_start)
        if fitted is None:
            return f"by a signal at step {record.training['steps']}; the same command resumes it"
        inspection = inspect_prompt(fitted.model, fitted.backbone, dataset) if fitted.model is not None else None
        with record.timed("evaluation"), parallel.announced("metrics of the method and all controls computed"):
            evaluation = judge_scores(config, dataset, fitted.scores, fitted.rule)
    detector = fitted.detector
    if fitted.model is not None:
        record.memory["peak_bytes"] = memory.peak_bytes()
    if detector is not None:
        controls = {name: metrics["test"] for name, metrics in evaluation.controls.items()}
        detector = dataclasses.replace(detector, test={config.method: evaluation.metrics["test"], **controls})
    open_folder(owned, config, loaded)
    write_run(folder, config, dataset, evaluation, record, inspection, detector)
    parallel.say(describe_folder(folder, began))
    return ""
