"""The training loop, to be read from top to bottom."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Float
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.data import Dataset, Examples, TrainingCall, order_digest, stitch, training_calls
from spear_jax.errors import InputError
from spear_jax.evaluation import ranking_metrics
from spear_jax.model import Assembled, Params, features, fit_head, score_windows
from spear_jax.training.checkpoints import Checkpoints
from spear_jax.training.log import Log, diagnose, epoch_line, progress_bar
from spear_jax.training.progress import Progress
from spear_jax.training.signals import StopSignal
from spear_jax.training.step import GRADIENT, LOSS, NORM, STEPS, UPDATE, make_optimizer, make_train_call


class TrainingDivergedError(RuntimeError):
    """The loss is no finite number any more."""


class StoppedError(RuntimeError):
    """A signal asked the run to stop; it has been saved.

    Attributes:
      trained: the best so far, or before the first evaluation the last.
    """

    def __init__(self, message: str, trained: "Trained") -> None:
        super().__init__(message)
        self.trained = trained


@dataclasses.dataclass(frozen=True)
class Trained:
    """What training ends with.

    Attributes:
      trainable: the parameters of the best evaluation, on the devices.
      progress: where training ended.
      stopped: 'epochs', 'early', or 'asked' by a signal.
      windows_per_second: over the epochs of this start; None if there were none.
      cpu_seconds_before: spent by earlier starts.
    """

    trainable: Params
    progress: Progress
    stopped: str
    windows_per_second: float | None
    cpu_seconds_before: float


def fit(
    config: ConfigDict,
    model: Assembled,
    dataset: Dataset,
    frozen: Params,
    mesh: Mesh,
    workdir: epath.Path,
    on_epoch: Callable[[dict[str, Any]], object] | None = None,
) -> Trained:
    """Trains, or goes on with training, until the epochs are done or nothing gets better.

    Args:
      config: a whole config.
      model: assembled from it.
      dataset: built from it.
      frozen: the model's frozen tree on the devices.
      mesh: the devices.
      workdir: the run's folder.
      on_epoch: is given the line that metrics.jsonl gets at the end of each epoch.

    Returns:
      The best parameters and where training ended.

    Raises:
      TrainingDivergedError: the loss is not finite; the last finite checkpoint stays.
      StoppedError: SIGTERM or SIGINT; the state was saved.
    """
    train, examples = config.train, dataset.training
    optimizer = make_optimizer(config)
    train_call = make_train_call(model.spear, optimizer, train.positive_weight)
    everywhere = parallel.replicated(mesh)

    trainable = parallel.place(model.trainable, everywhere)
    state = {
        "trainable": trainable,
        "optimizer": jax.jit(optimizer.init, out_shardings=everywhere)(trainable),
        "best": parallel.place(model.trainable, everywhere),
    }
    progress = Progress(seed=config.seed)
    checkpoints = Checkpoints(workdir / "checkpoints")
    if checkpoints.latest() is not None:
        state, progress = checkpoints.restore(state)
        parallel.say(f"resuming at step {progress.step}, epoch {progress.epoch + 1}")
    elif config.head.init == "fitted" and "head" in trainable and (not train.init_from or train.parts == "head"):
        read = features(
            model.spear,
            trainable,
            frozen,
            examples,
            batch_size=config.score.batch_size,
            mesh=mesh,
            progress="fitting the head",
        )
        head = fit_head(read, examples, spear=model.spear, positive_weight=train.positive_weight, seed=config.seed)
        state["trainable"] = {**trainable, "head": parallel.place(head, everywhere)}
    log = Log(workdir / "metrics.jsonl", progress.step)
    cpu_seconds_before = progress.cpu_seconds
    windows_here, seconds_here = 0, 0.0

    def outcome(stopped: str) -> Trained:
        return Trained(
            trainable=state["best" if progress.best else "trainable"],
            progress=progress,
            stopped=stopped,
            windows_per_second=windows_here / seconds_here if seconds_here else None,
            cpu_seconds_before=cpu_seconds_before,
        )

    def stop_now() -> None:
        said = f"stopped at step {progress.step}; the same command goes on from there"
        raise StoppedError(said, outcome("asked"))

    with checkpoints, StopSignal() as stop:
        while not finished(config, progress):
            # One epoch: calls of several steps; saves, signals and progress happen between them.
            lengths, seed = examples.lengths, config.seed
            calls = training_calls(lengths, train.batch_size, train.steps_per_call, seed, progress.epoch)
            check_order(calls, progress)
            began = saved = time.monotonic()
            seconds_before = progress.seconds
            cpu = CpuSeconds(progress)
            epoch_windows = 0
            with progress_bar(progress, calls[-1].end, train.epochs) as bar:
                for call in calls:
                    steps = len(call.rows)
                    if call.first < progress.step_in_epoch:
                        continue  # done before this start
                    batches = take_steps(examples, call, train.steps_per_call)
                    state["trainable"], state["optimizer"], stats = train_call(
                        state["trainable"],
                        state["optimizer"],
                        frozen,
                        parallel.shard_batch(batches, mesh, axis=1),
                        steps,
                    )
                    rows = np.asarray(stats, np.float64)[:steps]
                    check_finite(rows, state["trainable"], progress, config, checkpoints)
                    add_up(progress.sums, rows)
                    progress.step += steps
                    progress.step_in_epoch = call.end
                    progress.seconds = seconds_before + time.monotonic() - began
                    cpu.count()
                    epoch_windows += int((call.rows >= 0).sum())
                    bar.update(steps)
                    loss = float(np.average(rows[:, LOSS], weights=np.maximum(rows[:, STEPS], 1e-9)))
                    bar.set_postfix(loss=f"{loss:.4f}")
                    log.write(
                        {
                            "kind": "train",
                            "step": progress.step,
                            "epoch": progress.epoch + 1,
                            "loss": loss,
                        }
                    )
                    if call is calls[-1]:
                        break  # the evaluation comes first, and saves
                    stopping = parallel.agree(stop.asked)
                    if stopping or parallel.agree(time.monotonic() - saved >= train.save_seconds):
                        checkpoints.save(state, progress)
                        saved = time.monotonic()
                    if stopping:
                        stop_now()
            seconds = time.monotonic() - began
            windows_here, seconds_here = windows_here + epoch_windows, seconds_here + seconds

            evaluation = evaluate_validation(config, model.spear, state["trainable"], frozen, dataset, mesh)
            # The next step's loss would be as little finite as this one.
            loss_row = np.array([[evaluation["validation_loss"]]], np.float64)
            check_finite(loss_row, state["trainable"], progress, config, checkpoints)
            line = end_epoch(config, progress, evaluation)
            line["prompt_moved"] = moved(model.trainable, state["trainable"])
            if line["best"]:
                state["best"] = jax.tree.map(jnp.copy, state["trainable"])
            progress.seconds = seconds_before + time.monotonic() - began
            cpu.count()
            log.write(line)
            left = (train.epochs - progress.epoch) * progress.seconds / progress.epoch
            parallel.say(epoch_line(line, train.epochs, epoch_windows / seconds, left))
            for warning in diagnose(len(model.trainable.get("prompt", {}).get("vectors", ())), line):
                parallel.say(f"  WARNING: {warning}")
            checkpoints.save(state, progress)
            if on_epoch:
                on_epoch(line)
            if parallel.agree(stop.asked) and not finished(config, progress):
                stop_now()

    return outcome("epochs" if progress.epoch >= train.epochs else "early")


class CpuSeconds:
    """Adds what this process uses to `Progress.cpu_seconds`."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._last = progress, time.process_time()

    def count(self) -> None:
        """Up to now, since it was last counted."""
        now = time.process_time()
        self._progress.cpu_seconds += now - self._last
        self._last = now


def check_order(calls: Sequence[TrainingCall], progress: Progress) -> None:
    """Notes the order of an epoch that begins, or proves that a resumed one goes on in its order.

    Raises:
      InputError: the order is another one.
    """
    if progress.order not in ("", order_digest(calls)):
        raise InputError(
            f"epoch {progress.epoch + 1} began with other windows than the data give now; the data of this run have"
            " changed: use a new --workdir"
        )
    progress.order = order_digest(calls)


def end_epoch(config: ConfigDict, progress: Progress, evaluation: dict[str, float | None]) -> dict[str, Any]:
    """Closes an epoch with its evaluation; returns its line for the log."""
    best = take_evaluation(config, progress, evaluation)
    sums = progress.sums
    progress.epoch += 1
    progress.step_in_epoch, progress.sums, progress.order = 0, {}, ""
    return {
        "kind": "evaluation",
        "step": progress.step,
        "epoch": progress.epoch,
        "loss": sums["loss"] / max(sums["steps"], 1),
        **evaluation,
        "prompt_gradient": sums["gradient"] / sums["count"],
        "prompt_update": sums["update"] / sums["count"],
        "best": best,
    }


def moved(start: Params, now: Params) -> list[float]:
    """The distance of each prompt vector from where training began; nothing where no prompt is trained."""
    if "prompt" not in start:
        return []
    change = np.asarray(now["prompt"]["vectors"]) - np.asarray(start["prompt"]["vectors"])
    return np.linalg.norm(change, axis=1).tolist()


def finished(config: ConfigDict, progress: Progress) -> bool:
    """True when the epochs are done or the best evaluation lies too far back."""
    return progress.epoch >= config.train.epochs or progress.stale_epochs >= config.train.early_stopping.patience


def take_steps(examples: Examples, call: TrainingCall, steps_per_call: int) -> dict[str, np.ndarray]:
    """The batches of a call, filled up to the shape that calls of its length are compiled for."""
    rows = np.full((steps_per_call, call.rows.shape[1]), -1)
    rows[: len(call.rows)] = call.rows
    return examples.take(rows, call.length)


def add_up(sums: dict[str, float], rows: Float[np.ndarray, "steps 5"]) -> None:
    """Adds the steps of a call to an epoch's sums."""
    for name, value in {
        "loss": (rows[:, LOSS] * rows[:, STEPS]).sum(),
        "steps": rows[:, STEPS].sum(),
        "gradient": rows[:, GRADIENT].sum(),
        "update": (rows[:, UPDATE] / np.maximum(rows[:, NORM], 1e-12)).sum(),
        "count": len(rows),
    }.items():
        sums[name] = sums.get(name, 0.0) + float(value)


def check_finite(
    rows: np.ndarray,
    trainable: Params,
    progress: Progress,
    config: ConfigDict,
    checkpoints: Checkpoints,
) -> None:
    """Stops before anything that is not finite is saved."""
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if not len(bad) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(trainable))):
        return
    step = progress.step + (int(bad[0]) if len(bad) else len(rows) - 1) + 1
    checkpoints.wait()
    last = checkpoints.latest()
    raise TrainingDivergedError(
        f"the loss is not finite at step {step} (train.prompt_learning_rate={config.train.prompt_learning_rate:g},"
        f" train.head_learning_rate={config.train.head_learning_rate:g}"
        + (
            f", train.embedding_learning_rate={config.train.embedding_learning_rate:g}"
            if "embedding" in trainable
            else ""
        )
        + f"); the last finite checkpoint is {'none' if last is None else f'step {last}'};"
        " lower the rates in a new --workdir"
    )


def evaluate_validation(
    config: ConfigDict,
    spear: nn.Module,
    trainable: Params,
    frozen: Params,
    dataset: Dataset,
    mesh: Mesh,
) -> dict[str, float | None]:
    """Loss, AUROC and AUPR on the validation part, per step; the loss alone, NaN, if a score is not finite."""
    examples = dataset.examples["validation"]
    scores = score_windows(
        spear,
        trainable,
        frozen,
        examples,
        batch_size=config.score.batch_size,
        mesh=mesh,
        progress="validation",
    )
    if not np.isfinite(scores).all():
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


def take_evaluation(config: ConfigDict, progress: Progress, evaluation: dict[str, float | None]) -> bool:
    """Notes an evaluation; True if it is the best so far. Without a ranking metric, the loss decides."""
    metric = f"validation_{config.train.early_stopping.metric}"
    value = evaluation[metric]
    if value is None:
        metric, value = "validation_loss", evaluation["validation_loss"]
    sign = -1.0 if metric == "validation_loss" else 1.0
    assert value is not None
    if progress.best and sign * value <= sign * progress.best["value"]:
        progress.stale_epochs += 1
        return False
    progress.best = {
        "metric": metric,
        "value": value,
        "epoch": progress.epoch + 1,
        "step": progress.step,
    }
    progress.stale_epochs = 0
    return True
