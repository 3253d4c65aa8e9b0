"""The modes: what happens in a run, from a config to a finished folder."""

import dataclasses
import time
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.commands import memory
from spear_jax.config import differences, to_json
from spear_jax.data import Dataset, MethodScores, build_dataset, load_series
from spear_jax.detector import Detector
from spear_jax.errors import InputError
from spear_jax.evaluation import compose_results, judge_scores, per_series, versions, write_results
from spear_jax.methods import (
    TRAINED,
    WORDINGS,
    assemble_method,
    check_zero_shot_api,
    load_method_backbone,
    prepare_questions,
    score_trained,
    score_untrained,
)
from spear_jax.model import Inspection, Params, PlacedModel, inspect, warn
from spear_jax.parallel import plain_warnings
from spear_jax.report import introduce, results_table, write_report
from spear_jax.storage import read_json, write_whole
from spear_jax.training import Progress, train_model


def train_and_evaluate(config: ConfigDict, workdir: str, command: str) -> str:
    """Trains and evaluates; goes on where an earlier run of the same folder stopped.

    Args:
      config: a whole config.
      workdir: the run's folder.
      command: what gives these results again, for results.json.

    Returns:
      Why the run stopped before its end, '' if it is done.

    Raises:
      InputError: bad input; the folder is as it was.
    """
    began = time.monotonic()
    folder = epath.Path(workdir)
    done = check_folder(config, folder)
    parallel.barrier("looked")  # before the main process changes what the others look at
    if done:
        parallel.say(f"{folder}: this run is done; its results:\n{results_table(done)}")
        return ""
    dataset = build_dataset(config, load_series(config))
    outcome = (_fit if config.method in TRAINED else _apply)(config, dataset, folder, began)
    if isinstance(outcome, Progress):
        return f"stopped at step {outcome.step}; the same command goes on from there"
    fitted, dataset = time.monotonic(), outcome.dataset

    with plain_warnings():
        evaluated = judge_scores(config, dataset, outcome.scored)
    content = compose_results(
        config,
        outcome.model.description() if outcome.model else {},
        outcome.backbone,
        dataset,
        evaluated,
        command=command,
        threshold_from=dataset.name,
        seconds={**outcome.seconds, "evaluation": time.monotonic() - fitted},
        cpu_seconds=outcome.cpu_seconds,
        training={
            "epochs": config.train.epochs,
            "patience": config.train.early_stopping.patience,
            **outcome.training,
        },
    )
    if outcome.windows_per_second:
        content["throughput"] = {"training_windows_per_second": round(outcome.windows_per_second, 2)}
    if outcome.model is not None:
        content["memory"] = {"optimizer_bytes": outcome.optimizer_bytes, "peak_bytes": memory.peak()}
    artifact = ""
    if outcome.model is not None and config.method == "spear":
        artifact = ", detector/"
        if parallel.is_main():
            detector = Detector.trained(
                config,
                outcome.model,
                outcome.trainable,
                dataset,
                backbone=outcome.backbone,
                threshold=evaluated.threshold,
                alarm_rule=evaluated.alarm_rule,
                test={name: one["test"] for name, one in ({"spear": content} | content["controls"]).items()},
            )
            detector.save(folder / "detector", versions())
    if parallel.is_main():
        of_series = per_series(evaluated)
        write_report(folder, config, content, dataset, evaluated, of_series, outcome.inspection)
        write_results(folder, content, dataset, evaluated, of_series)
    parallel.barrier("written")
    parallel.say(results_table(content))
    parallel.say(
        f"\n{folder}: report.html, results.json, scores/, figures/{artifact} ({time.monotonic() - began:.0f} s)"
    )
    return ""


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """A method's scores, and what the results say of how it came to them.

    Attributes:
      dataset: with the warnings of the method.
      scored: the scores.
      seconds: what took how long.
      model: None for a method without a model of ours.
      trainable: the model's best parameters.
      backbone: what is said of it.
      training: how training went.
      windows_per_second: while training.
      optimizer_bytes: of the optimizer's state.
      cpu_seconds: of earlier starts.
      inspection: of the prompt, where there is one.
    """

    dataset: Dataset
    scored: MethodScores
    seconds: dict[str, float]
    model: PlacedModel | None = None
    trainable: Params = dataclasses.field(default_factory=dict)
    backbone: dict[str, Any] = dataclasses.field(default_factory=dict)
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    windows_per_second: float | None = None
    optimizer_bytes: int = 0
    cpu_seconds: float = 0.0
    inspection: Inspection | None = None


def _fit(config: ConfigDict, dataset: Dataset, folder: epath.Path, began: float) -> _Outcome | Progress:
    """Trains in the loop; returns how far it came where a signal stopped it."""
    backbone, model = assemble_method(config, dataset.window, parallel.make_mesh())
    if backbone is not None:
        dataset = dataclasses.replace(dataset, warnings=(*dataset.warnings, *warn(config, backbone)))
    loaded = time.monotonic()
    _open(folder, config)
    introduce(config, dataset, backbone, model)
    trained = train_model(model, dataset, config, folder)
    if trained.stopped == "signal":
        return trained.progress
    source = Detector.load(epath.Path(config.train.init_from)) if config.train.init_from else None
    parallel.say(f"scoring with the best step ({trained.progress.best['step']}), and the controls ...")
    fitted = time.monotonic()
    scored = score_trained(config, trained.model, dataset, start=model)
    return _Outcome(
        dataset=dataset,
        scored=scored,
        seconds={
            "loading": loaded - began,
            "training": trained.progress.seconds,
            "scoring": time.monotonic() - fitted,
        },
        model=model,
        trainable=trained.model.trainable,
        backbone=backbone.description() if backbone else {},
        training={
            "epochs_done": trained.progress.epoch,
            "steps": trained.progress.step,
            "stopped": trained.stopped,
            "best": trained.progress.best,
            **({"trained_on": source.trained_on} if source else {}),
        },
        windows_per_second=trained.windows_per_second,
        optimizer_bytes=trained.optimizer_bytes,
        cpu_seconds=trained.cpu_seconds_before,
        inspection=inspect(trained.model, backbone, dataset),
    )


def _apply(config: ConfigDict, dataset: Dataset, folder: epath.Path, began: float) -> _Outcome:
    """Scores with a method that the loop has no part in."""
    mesh = parallel.make_mesh()
    backbone, asked = None, None
    if config.method in WORDINGS:
        backbone = load_method_backbone(config, mesh)
        asked = prepare_questions(config, backbone, dataset)
        dataset = dataclasses.replace(
            dataset,
            warnings=(*dataset.warnings, *warn(config, backbone), *asked.warnings),
            notes={**dataset.notes, "zero_shot": asked.notes},
        )
    if config.method == "zero_shot_api":
        check_zero_shot_api(config, dataset)
    loaded = time.monotonic()
    introduce(config, dataset, backbone, None)
    with plain_warnings():
        scored = score_untrained(config, dataset, asked, mesh)
    _open(folder, config)  # last, for what an endpoint refuses is known when it is asked
    dataset = dataclasses.replace(dataset, warnings=(*dataset.warnings, *scored.warnings))
    return _Outcome(
        dataset=dataset,
        scored=scored,
        seconds={"loading": loaded - began, "fitting and scoring": time.monotonic() - loaded},
        backbone=backbone.description() if backbone else {},
    )


def _open(folder: epath.Path, config: ConfigDict) -> None:
    """The run's folder, once nothing is known that could stop the run."""
    if parallel.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "config.json", to_json(config).encode())
    parallel.barrier("folder")


def check_folder(config: ConfigDict, folder: epath.Path) -> dict[str, Any] | None:
    """Looks at what is in a run's folder.

    Returns:
      The results, if the run is done; None if it is still to run or to go on.

    Raises:
      InputError: the folder is another run's, or no run's.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise InputError(f"--workdir={folder}: is a file; needed is a folder, new or of the same run")
    if not (folder / "config.json").exists():
        if any(folder.iterdir()):
            raise InputError(f"--workdir={folder}: is not empty and holds no run; use a new folder")
        return None
    before = read_json(folder / "config.json")
    different = differences(before, config)
    if different:
        raise InputError(
            f"--workdir={folder}: holds a run of another config, which differs in {'; '.join(different)};"
            " use a new folder"
        )
    if not (folder / "results.json").exists():
        return None
    done = read_json(folder / "results.json")
    same = (config.train.epochs, config.train.early_stopping.patience)
    if "epochs" not in done["training"]:
        raise InputError(f"--workdir={folder}: holds an evaluation, not a training; use a new folder")
    return done if (done["training"]["epochs"], done["training"]["patience"]) == same else None
