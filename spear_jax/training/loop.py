"""Runs the training loop."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from spear_jax import parallel
from spear_jax.data import Dataset, TrainingCall, stitch, training_calls
from spear_jax.evaluation import ranking_metrics
from spear_jax.model import NotFiniteError, Params, PlacedModel, fit_heads, precompute_states
from spear_jax.training.checkpoints import Checkpoints
from spear_jax.training.log import Log, diagnose, epoch_line
from spear_jax.training.progress import Progress, Stopwatch
from spear_jax.training.signals import StopSignal
from spear_jax.training.step import StepMetrics, make_optimizer, make_train_call


class TrainingDivergedError(RuntimeError):
    """The loss is no longer finite."""


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """A trained model and how its training ended.

    Attributes:
      model: the model with the parameters of the best evaluation, or the latest ones before the first evaluation.
      progress: the progress of training.
      stopped: 'epochs' (all done), 'early' (early stopping) or 'signal' (SIGTERM or SIGINT; the state was saved, and
        the same call resumes from it).
      windows_per_second: throughput over the epochs of this start; None if it finished none.
      cpu_seconds_before: CPU seconds spent by earlier starts.
      optimizer_bytes: size of the optimizer's state.
    """

    model: PlacedModel
    progress: Progress
    stopped: str
    windows_per_second: float | None
    cpu_seconds_before: float
    optimizer_bytes: int


def train_model(
    model: PlacedModel,
    dataset: Dataset,
    config: ConfigDict,
    folder: epath.Path,
    on_epoch: Callable[[dict[str, Any]], object] | None = None,
) -> TrainingResult:
    """Trains a model, or resumes its training, until the last epoch, early stopping or a signal.

    The trainable arrays of `model` are freed as soon as training has better ones; the model cannot be used afterwards.

    Raises:
      TrainingDivergedError: the loss is not finite; the last finite checkpoint remains.
    """
    trainer = Trainer(*precompute_states(model, dataset), config, folder)
    cpu_seconds_before = trainer.progress.cpu_seconds
    stopped = trainer.run(on_epoch)
    return TrainingResult(
        model=dataclasses.replace(model, trainable=trainer.state["best" if trainer.progress.best else "trainable"]),
        progress=trainer.progress,
        stopped=stopped,
        windows_per_second=trainer.windows / trainer.seconds if trainer.seconds else None,
        cpu_seconds_before=cpu_seconds_before,
        optimizer_bytes=sum(leaf.nbytes for leaf in jax.tree.leaves(trainer.state["optimizer"])),
    )


class Epoch(NamedTuple):
    """The throughput of an epoch, and whether it finished or was stopped by a signal."""

    windows: int
    seconds: float
    finished: bool


class Trainer:
    """Trains a model in calls of several optimizer steps; saves, signals and logs happen between them.

    Attributes:
      state: the arrays of a checkpoint, on the devices: {'trainable', 'optimizer', 'best'}.
      progress: the rest of a checkpoint.
      windows: number of windows in the finished epochs of this start.
      seconds: duration of these epochs, without evaluations.
    """

    def __init__(self, model: PlacedModel, dataset: Dataset, config: ConfigDict, folder: epath.Path) -> None:
        """Starts from the model's parameters, or from the last checkpoint in the folder."""
        self._model, self._dataset, self._config = model, dataset, config
        optimizer = make_optimizer(config)
        self._train_call = make_train_call(model.module, optimizer, config.train.positive_weight)
        everywhere = parallel.replicated(model.mesh)
        self.state = {
            "trainable": jax.tree.map(jnp.copy, model.trainable),  # the training call donates its buffers
            "optimizer": jax.jit(optimizer.init, out_shardings=everywhere)(model.trainable),
            "best": model.trainable,
        }
        self.progress = Progress()
        self._checkpoints = Checkpoints(folder / "checkpoints")
        self._first_prompt = _prompt_vectors(model.trainable)
        if self._checkpoints.latest() is not None:
            first = self.state
            self.state, self.progress = self._checkpoints.restore(first)
            _free(first)
            parallel.say(f"resuming at step {self.progress.step}, epoch {self.progress.epoch + 1}")
        elif _begins_with_fitted_head(config, model):
            weight = config.train.positive_weight
            with parallel.announced("head fitted, as training begins with it"):
                head = fit_heads(model, dataset.training, positive_weight=weight, seed=config.seed)
            self.state["trainable"]["head"] = parallel.place(head, everywhere)
        self._log = Log(folder / "metrics.jsonl", self.progress.step, self.progress.log)
        self.windows, self.seconds = 0, 0.0

    def run(self, on_epoch: Callable[[dict[str, Any]], object] | None) -> str:
        """Trains to the end or until a signal; returns `TrainingResult.stopped`."""
        train = self._config.train
        precision = jax.default_matmul_precision(self._model.matmul_precision)
        with self._checkpoints, StopSignal() as stop, precision, parallel.gathering(self._model.mesh):
            while not self.progress.finished(train):
                stopwatch = Stopwatch(self.progress)
                epoch = self._train_epoch(stop, stopwatch)
                if not epoch.finished:
                    return "signal"
                line = self._evaluate(stopwatch)
                self._report(line, epoch)
                self._save()
                if on_epoch:
                    on_epoch(line)
                if parallel.agree(stop.received) and not self.progress.finished(train):
                    return "signal"
        return "epochs" if self.progress.epoch >= train.epochs else "early"

    def _train_epoch(self, stop: StopSignal, stopwatch: Stopwatch) -> Epoch:
        """Trains on the rest of the current epoch."""
        train, progress, examples = self._config.train, self.progress, self._dataset.training
        calls = training_calls(
            examples.lengths, train.batch_size, train.steps_per_call, self._config.seed, progress.epoch
        )
        progress.begin_epoch(calls)
        windows, began = 0, time.monotonic()
        saved = began
        with tqdm(
            total=calls[-1].end,
            initial=progress.step_in_epoch,
            desc=f"epoch {progress.epoch + 1}/{train.epochs}",
            unit="step",
            leave=False,
            disable=parallel.no_bar(),
        ) as bar:
            for call in calls:
                if call.first < progress.step_in_epoch:
                    continue  # done before this start
                metrics = self._train_on(call)
                progress.add(call, metrics)
                stopwatch.count()
                windows += int((call.rows >= 0).sum())
                loss = float(np.average(metrics.loss, weights=np.maximum(metrics.time_steps, 1e-9)))
                bar.update(len(call.rows))
                bar.set_postfix(loss=f"{loss:.4f}")
                self._log.write({"kind": "train", "step": progress.step, "epoch": progress.epoch + 1, "loss": loss})
                if call is calls[-1]:
                    break  # the evaluation follows, then a checkpoint
                stopping = parallel.agree(stop.received)
                if stopping or parallel.agree(time.monotonic() - saved >= train.save_seconds):
                    self._save()
                    saved = time.monotonic()
                if stopping:
                    return Epoch(windows, time.monotonic() - began, finished=False)
        epoch = Epoch(windows, time.monotonic() - began, finished=True)
        self.windows, self.seconds = self.windows + epoch.windows, self.seconds + epoch.seconds
        return epoch

    def _save(self) -> None:
        """Saves a checkpoint."""
        self.progress.log = self._log.digest
        self._checkpoints.save(self.state, self.progress)

    def _train_on(self, call: TrainingCall) -> StepMetrics:
        """Takes the optimizer steps of a call; returns their metrics.

        Raises:
          TrainingDivergedError: a metric is not finite.
        """
        # Padded to the shape that calls of this length are compiled for.
        missing = self._config.train.steps_per_call - len(call.rows)
        rows = np.pad(call.rows, ((0, missing), (0, 0)), constant_values=-1)
        batches = self._dataset.training.take(rows, call.length)
        self.state["trainable"], self.state["optimizer"], metrics = self._train_call(
            self.state["trainable"],
            self.state["optimizer"],
            self._model.frozen,
            parallel.shard_batch(batches, self._model.mesh, axis=1),
            len(call.rows),
        )
        metrics = StepMetrics(*(np.asarray(column, np.float64)[: len(call.rows)] for column in metrics))
        self._check_finite(np.isfinite(np.stack(metrics)).all(axis=0))
        return metrics

    def _evaluate(self, stopwatch: Stopwatch) -> dict[str, Any]:
        """Ends an epoch with an evaluation on the validation split; returns its line for metrics.jsonl."""
        trained = dataclasses.replace(self._model, trainable=self.state["trainable"])
        evaluation = evaluate_validation(trained, self._dataset)
        # If the validation loss is not finite, the next step's loss will not be either.
        self._check_finite(np.isfinite(np.array([evaluation["validation_loss"]], np.float64)))
        line = self.progress.end_epoch(evaluation, self._config.train.early_stopping.metric)
        line["prompt_moved"] = prompt_distances(self._first_prompt, _prompt_vectors(trained.trainable))
        if line["best"]:
            _free(self.state["best"])  # the caller may still refer to those of the model that training started from
            self.state["best"] = jax.tree.map(jnp.copy, trained.trainable)
        stopwatch.count()
        self._log.write(line)
        return line

    def _report(self, line: dict[str, Any], epoch: Epoch) -> None:
        """Prints the line of an epoch, and warnings about it."""
        epochs, progress = self._config.train.epochs, self.progress
        seconds_left = (epochs - progress.epoch) * progress.seconds / progress.epoch
        parallel.say(epoch_line(line, epochs, epoch.windows / epoch.seconds, seconds_left))
        for warning in diagnose(len(line["prompt_moved"]), line):
            parallel.say(f"  WARNING: {warning}")

    def _check_finite(self, finite: np.ndarray) -> None:
        """Raises before a non-finite value is saved; `finite` has a flag per step since the last check."""
        trainable, train = self.state["trainable"], self._config.train
        if finite.all() and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(trainable))):
            return
        step = self.progress.step + (len(finite) if finite.all() else int(np.argmin(finite)) + 1)
        self._checkpoints.wait()
        last = self._checkpoints.latest()
        rates = ["prompt_learning_rate", "head_learning_rate"]
        rates += ["embedding_learning_rate"] if "embedding" in trainable else []
        raise TrainingDivergedError(
            f"the loss is not finite at step {step} ({', '.join(f'train.{rate}={train[rate]:g}' for rate in rates)});"
            f" the last finite checkpoint is {'none' if last is None else f'step {last}'};"
            " lower the rates in a new --workdir"
        )


def _begins_with_fitted_head(config: ConfigDict, model: PlacedModel) -> bool:
    """Returns whether a new run fits the head first; the head of a trained detector is fitted already."""
    new_head = not config.train.init_from or config.train.parts == "head"
    return config.head.init == "fitted" and "head" in model.trainable and new_head


def _prompt_vectors(trainable: Params) -> np.ndarray:
    """Returns a copy of all members' prompt vectors on the host; none if no prompt is trained."""
    if "prompt" not in trainable:
        return np.zeros((0, 0))
    vectors = np.array(trainable["prompt"]["vectors"])
    return vectors.reshape(-1, vectors.shape[-1])


def prompt_distances(start: np.ndarray, now: np.ndarray) -> list[float]:
    """Returns the distance of each prompt vector from its initial value."""
    return np.linalg.norm(now - start, axis=1).tolist()


def _free(tree: Any) -> None:
    """Frees the device memory of all arrays of a tree."""
    for leaf in jax.tree.leaves(tree):
        leaf.delete()


def evaluate_validation(model: PlacedModel, dataset: Dataset) -> dict[str, float | None]:
    """Returns loss, AUROC and AUPR over the steps of the validation split, or only a NaN loss if any is not finite."""
    examples = dataset.examples["validation"]
    try:
        scores = model.score(examples, "validation")
    except NotFiniteError:
        return {"validation_loss": np.nan}
    p = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
    loss = -np.where(examples.targets > 0, np.log(p), np.log(1 - p))[examples.mask].mean()
    steps = stitch(dataset.windows["validation"], scores, dataset.recorded)
    auroc, aupr = ranking_metrics(steps.label, steps.score)
    return {
        "validation_loss": float(loss),
        "validation_auroc": auroc,
        "validation_aupr": aupr,
        "validation_base_rate": float(steps.label.mean()),
        "validation_score_spread": float(steps.score.max() - steps.score.min()),
    }
