"""The modes: what happens in a run, from a config to a finished folder."""

import dataclasses
import time
import warnings
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from spear_jax import config as configs
from spear_jax import evaluation, hub, memory, methods, parallel, preview, probing, report, tables, training
from spear_jax.baselines import zero_shot
from spear_jax.baselines.zero_shot_api import check_zero_shot_api
from spear_jax.data import dataset as datasets
from spear_jax.data import mimic_iv, nab, nasa
from spear_jax.detector import CARRIED, OF_THE_MACHINE, Detector
from spear_jax.errors import InputError
from spear_jax.files import read_json, write_whole
from spear_jax.inspection import Inspection, inspect
from spear_jax.introduction import explain, introduce
from spear_jax.model import Assembled, Params, warn


def train(config: ConfigDict, workdir: str, command: str) -> None:
    """Trains and evaluates; goes on where an earlier run of the same folder stopped.

    Args:
      config: a whole config.
      workdir: the run's folder.
      command: what gives these results again, for results.json.

    Raises:
      InputError: bad input; the folder is as it was.
    """
    began = time.monotonic()
    folder = epath.Path(workdir)
    done = check_folder(config, folder)
    parallel.barrier("looked")  # before the main process changes what the others look at
    if done:
        parallel.say(f"{folder}: this run is done; its results:\n{tables.table(done)}")
        return
    jax.config.update("jax_default_matmul_precision", config.backbone.matmul_precision)
    dataset = datasets.build(config, datasets.load(config))
    outcome = (_fit if config.method in methods.TRAINED else _apply)(config, dataset, folder, began)
    fitted, dataset = time.monotonic(), outcome.dataset

    with plain_warnings():
        evaluated = evaluation.evaluate(config, dataset, outcome.scored)
    content = evaluation.results(
        config,
        outcome.model,
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
        state = jax.eval_shape(training.make_optimizer(config).init, outcome.model.trainable)
        content["memory"] = {"optimizer_bytes": memory.size(state), "peak_bytes": memory.peak()}
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
            detector.save(folder / "detector", evaluation.versions())
    if parallel.is_main():
        of_series = evaluation.per_series(evaluated)
        report.write(folder, config, content, dataset, evaluated, of_series, outcome.inspection)
        evaluation.write(folder, content, dataset, evaluated, of_series)
    parallel.barrier("written")
    parallel.say(tables.table(content))
    parallel.say(
        f"\n{folder}: report.html, results.json, scores/, figures/{artifact} ({time.monotonic() - began:.0f} s)"
    )


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
      cpu_seconds: of earlier starts.
      inspection: of the prompt, where there is one.
    """

    dataset: datasets.Dataset
    scored: evaluation.Scored
    seconds: dict[str, float]
    model: Assembled | None = None
    trainable: Params = dataclasses.field(default_factory=dict)
    backbone: dict[str, Any] = dataclasses.field(default_factory=dict)
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    windows_per_second: float | None = None
    cpu_seconds: float = 0.0
    inspection: Inspection | None = None


def _fit(config: ConfigDict, dataset: datasets.Dataset, folder: epath.Path, began: float) -> _Outcome:
    """Trains in the loop."""
    mesh = parallel.make_mesh()
    backbone, model = methods.assemble(config, dataset.window, mesh)
    if backbone is not None:
        dataset = dataclasses.replace(dataset, warnings=(*dataset.warnings, *warn(config, backbone)))
    frozen = parallel.place(model.frozen, parallel.replicated(mesh))
    loaded = time.monotonic()
    _open(folder, config)
    introduce(config, dataset, backbone, model)
    batch_size = config.score.batch_size
    read = probing.states_once(model, dataset, frozen, batch_size=batch_size, mesh=mesh)
    trained = training.fit(config, *read, mesh, folder)
    source = Detector.load(epath.Path(config.train.init_from)) if config.train.init_from else None
    parallel.say(f"scoring with the best step ({trained.progress.best['step']}), and the controls ...")
    fitted = time.monotonic()
    scored = methods.score(config, model, trained.trainable, frozen, dataset, mesh)
    return _Outcome(
        dataset=dataset,
        scored=scored,
        seconds={
            "loading": loaded - began,
            "training": trained.progress.seconds,
            "scoring": time.monotonic() - fitted,
        },
        model=model,
        trainable=trained.trainable,
        backbone=evaluation.backbone_about(backbone),
        training={
            "epochs_done": trained.progress.epoch,
            "steps": trained.progress.step,
            "stopped": trained.stopped,
            "best": trained.progress.best,
            **({"trained_on": source.trained_on} if source else {}),
        },
        windows_per_second=trained.windows_per_second,
        cpu_seconds=trained.cpu_seconds_before,
        inspection=inspect(model, trained.trainable, frozen, backbone, dataset, mesh),
    )


def _apply(config: ConfigDict, dataset: datasets.Dataset, folder: epath.Path, began: float) -> _Outcome:
    """Scores with a method that the loop has no part in."""
    mesh = parallel.make_mesh()
    backbone, asked = None, None
    if config.method in zero_shot.METHODS:
        backbone = methods.load(config, mesh)
        asked = zero_shot.prepare(config, backbone, dataset)
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
        scored = methods.score_untrained(config, dataset, asked, mesh)
    _open(folder, config)  # last, for what an endpoint refuses is known when it is asked
    dataset = dataclasses.replace(dataset, warnings=(*dataset.warnings, *scored.warnings))
    return _Outcome(
        dataset=dataset,
        scored=scored,
        seconds={"loading": loaded - began, "fitting and scoring": time.monotonic() - loaded},
        backbone=evaluation.backbone_about(backbone),
    )


def _open(folder: epath.Path, config: ConfigDict) -> None:
    """The run's folder, once nothing is known that could stop the run."""
    if parallel.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "config.json", configs.to_json(config).encode())
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
    different = configs.differences(before, config)
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


def evaluate(config: ConfigDict, detector_path: str, workdir: str, command: str, *, overridden: Sequence[str]) -> None:
    """Applies a trained detector to another data set.

    Quantizer, embedding, prompt, head and backbone come from the detector.

    Args:
      config: a whole config.
      detector_path: a detector or run folder.
      workdir: a new folder.
      command: what gives these results again, for results.json.
      overridden: fields given on the command line.

    Raises:
      InputError: bad input, or an override of what the detector carries; the folder is as it was.
    """
    began = time.monotonic()
    for field in overridden:
        section = field.partition(".")[0]
        if (section in CARRIED and field not in OF_THE_MACHINE) or field in ("data.window", "seed"):
            raise InputError(f"--config.{field}: comes from the detector in --mode=evaluate and cannot be changed")
        if section in ("method", "train", "tsmote", "lstm", "lora", "zero_shot"):
            raise InputError(f"--config.{field}: is of training; --mode=evaluate trains nothing")
        if section in ("threshold", "alarms") and field != "threshold.reuse" and config.threshold.reuse:
            raise InputError(
                f"--config.{field}: the detector has its threshold and alarm rule; add --config.threshold.reuse=False"
            )
    folder = epath.Path(workdir)
    detector, commit = load_detector(detector_path)
    here = {field: configs.flatten(config)[field] for field in overridden if field in OF_THE_MACHINE}
    carry(detector, config)
    config.update_from_flattened_dict(here)
    if config.data.window:
        config.data.stride = min(config.data.stride, config.data.window)
    config.seed = detector.config.seed
    _check_new(config, folder)
    jax.config.update("jax_default_matmul_precision", config.backbone.matmul_precision)
    loaded = datasets.load(config)
    dataset = datasets.build(config, loaded, quantizer=detector.quantizer, typical_width=detector.typical_width)
    mesh = parallel.make_mesh()
    backbone = methods.load(config, mesh)
    dataset = dataclasses.replace(dataset, warnings=(*dataset.warnings, *detector.remarks(backbone)))
    configs.check_length(config, dataset.window, backbone.max_positions)
    model = detector.assemble(backbone)
    everywhere = parallel.replicated(mesh)
    trainable, frozen = parallel.place(model.trainable, everywhere), parallel.place(model.frozen, everywhere)
    reuse = config.threshold.reuse
    with plain_warnings():
        scored = methods.score(config, model, trainable, frozen, dataset, mesh)
        carried = (detector.threshold, detector.alarm_rule) if reuse else (None, None)
        evaluated = evaluation.evaluate(config, dataset, scored, threshold=carried[0], alarm_rule=carried[1])
    inspection = inspect(model, trainable, frozen, backbone, dataset, mesh)
    content = evaluation.results(
        config,
        model,
        evaluation.backbone_about(backbone),
        dataset,
        evaluated,
        command=command,
        threshold_from=detector.trained_on if reuse else dataset.name,
        seconds={"evaluation": time.monotonic() - began},
        training={"detector": str(detector_path), **commit, "trained_on": detector.trained_on},
    )
    if parallel.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "config.json", configs.to_json(config).encode())
        of_series = evaluation.per_series(evaluated)
        report.write(folder, config, content, dataset, evaluated, of_series, inspection)
        evaluation.write(folder, content, dataset, evaluated, of_series)
    parallel.say(tables.table(content))


def load_detector(detector_path: str) -> tuple[Detector, dict[str, str]]:
    """A detector, and the commit that it was pulled at where it comes from the Hub."""
    found = hub.local(detector_path)
    detector = Detector.load(found)
    if found == epath.Path(detector_path):
        return detector, {}
    parallel.say(f"detector {detector_path}: commit {found.name} of the Hub")
    return detector, {"commit": found.name}


def carry(detector: Detector, config: ConfigDict) -> None:
    """Puts copies of what a detector carries into a config."""
    carrying = detector.config.copy_and_resolve_references()
    for part in CARRIED:
        config[part] = carrying[part]
    config.data.window = carrying.data.window


def _check_new(config: ConfigDict, folder: epath.Path) -> None:
    """Refuses a folder that holds anything but the same evaluation, killed before its end."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--workdir={folder}: is a file; needed is a new folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    begun = (folder / "config.json").exists() and not any(
        (folder / n).exists() for n in ("results.json", "checkpoints")
    )
    if not begun or configs.differences(read_json(folder / "config.json"), config):
        raise InputError(f"--workdir={folder}: is not empty; evaluate writes to a new folder")


def prepare(config: ConfigDict) -> None:
    """Downloads and prepares the data, nothing else."""
    if config.data.name == "synthetic":
        parallel.say("data.name='synthetic' is generated; there is nothing to prepare")
        return
    if config.data.name == "files":
        parallel.say("data.name='files' is read where it lies; there is nothing to prepare")
        return
    if config.data.name == "mimic_iv":
        stays = sum(1 for _ in mimic_iv.prepare(config.data.dir, config.data.mimic_iv.prepared_dir))
        parallel.say(f"mimic_iv: {stays} stays are prepared")
        return
    source = {"nasa": nasa, "nab": nab}[config.data.name]
    parallel.say(f"{config.data.name}: prepared in {source.prepare(config.data.dir)}")


def show(config: ConfigDict) -> None:
    """Prints what was understood of the data, and how they would be divided, before anything is trained."""
    loaded = datasets.load(config)
    parallel.say(f"{loaded.name}: {preview.total(loaded.series)}\n\n{preview.table(loaded.series)}\n")
    for warning in loaded.warnings:  # before the split, which may be refused for what they say
        parallel.say(f"WARNING: {warning}")
    with plain_warnings():
        dataset = datasets.build(config, loaded)
    for line in (*preview.divided(dataset), *explain(dataset.notes)):
        parallel.say(line)
    for warning in dataset.warnings[len(loaded.warnings) :]:
        parallel.say(f"WARNING: {warning}")


def export(detector_path: str, workdir: str) -> None:
    """Writes a detector with its prompt in the files of PEFT's prompt tuning beside it.

    Args:
      detector_path: a detector or run folder.
      workdir: a new folder.

    Raises:
      InputError: bad input, or a prompt that means nothing to PEFT; the folder is as it was.
    """
    folder = epath.Path(workdir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--workdir={folder}: is not a new or empty folder; export writes to a new one")
    detector, _ = load_detector(detector_path)
    detector.export(folder)
    parallel.say(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


class plain_warnings(warnings.catch_warnings):  # noqa: N801
    """Warnings as one plain line each."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.showwarning = lambda message, *_, **__: parallel.say(f"WARNING: {message}")
        return entered
