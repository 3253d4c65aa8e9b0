"""The training loop, to be read from top to bottom."""

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.checkpoints import Checkpoints, Progress
from spear_jax.data.batches import Call, Examples, digest, training_calls
from spear_jax.data.dataset import Dataset
from spear_jax.data.windows import stitch
from spear_jax.errors import InputError
from spear_jax.metrics import ranking_metrics
from spear_jax.model import Assembled, Params, merge
from spear_jax.probing import features, fit_head
from spear_jax.scoring import score_windows
from spear_jax.training_log import Log, diagnose, epoch_line, progress_bar

# What a step reports, in the order of the columns of `Stats`.
LOSS, STEPS, GRADIENT, UPDATE, NORM = range(5)
Stats = Float[Array, "steps 5"]


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


def loss_sum(
    spear: nn.Module, trainable: Params, frozen: Params, batch: dict[str, Array], positive_weight: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Binary cross-entropy summed over the real steps of a batch, and the number of these steps."""
    logits = spear.apply(merge(trainable, frozen), batch["bins"], batch["mask"])
    loss = optax.sigmoid_binary_cross_entropy(logits, batch["targets"])
    weight = jnp.where(batch["targets"] > 0, positive_weight, 1.0) * batch["mask"]
    return jnp.sum(loss * weight), jnp.sum(batch["mask"], dtype=jnp.float32)


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW with a learning rate of its own for each trainable part."""
    train = config.train

    def adamw(rate: float) -> optax.GradientTransformation:
        after: optax.Schedule = {
            "constant": optax.constant_schedule(rate),
            "linear": optax.linear_schedule(rate, rate * train.decay_to, train.decay_steps),
            "cosine": optax.cosine_decay_schedule(rate, train.decay_steps, train.decay_to),
        }[train.schedule]
        if train.warmup_steps:
            # Starts above 0, so that the first step already moves the prompt.
            ramp = optax.linear_schedule(rate / train.warmup_steps, rate, train.warmup_steps)
            after = optax.join_schedules([ramp, after], [train.warmup_steps])
        return optax.adamw(after, weight_decay=train.weight_decay)

    return optax.chain(
        optax.clip_by_global_norm(train.clip_norm),
        optax.partition(
            {
                "prompt": adamw(train.prompt_learning_rate),
                "head": adamw(train.head_learning_rate),
                "embedding": adamw(train.embedding_learning_rate),
                "network": adamw(train.network_learning_rate),
                "backbone": adamw(train.backbone_learning_rate),
            },
            lambda tree: dict(zip(tree, tree, strict=True)),  # a whole part has one label: its name
        ),
    )


def make_train_call(
    spear: nn.Module, optimizer: optax.GradientTransformation, positive_weight: float
) -> Callable[..., tuple[Params, Any, Stats]]:
    """One jitted call of several optimizer steps.

    Returns:
      call(trainable, optimizer_state, frozen, batches, steps): `batches` hold steps on the leading axis, of which
      the first `steps` are done; the trainable state is donated.
    """

    def one_step(i: Array, carry: Any, frozen: Params, batches: dict[str, Array]) -> Any:
        trainable, state, stats = carry
        batch = jax.tree.map(lambda steps: jax.lax.dynamic_index_in_dim(steps, i, keepdims=False), batches)

        def mean_loss(trainable: Params) -> tuple[Array, Array]:
            total, steps = loss_sum(spear, trainable, frozen, batch, positive_weight)
            return total / jnp.maximum(steps, 1), steps

        (loss, steps), gradient = jax.value_and_grad(mean_loss, has_aux=True)(trainable)
        updates, state = optimizer.update(gradient, state, trainable)
        # Diagnostics of the prompt: a prompt that stands still is the commonest way to fail.
        row = jnp.stack(
            [
                loss,
                steps,
                optax.tree.norm(gradient.get("prompt", {})) + 0.0,
                optax.tree.norm(updates.get("prompt", {})) + 0.0,
                optax.tree.norm(trainable.get("prompt", {})) + 0.0,
            ]
        )
        return optax.apply_updates(trainable, updates), state, stats.at[i].set(row)

    def call(
        trainable: Params, state: Any, frozen: Params, batches: dict[str, Array], steps: Array
    ) -> tuple[Params, Any, Stats]:
        stats = jnp.zeros((batches["bins"].shape[0], 5), jnp.float32)
        return jax.lax.fori_loop(
            0,
            steps,
            lambda i, carry: one_step(i, carry, frozen, batches),
            (trainable, state, stats),
        )

    return jax.jit(call, donate_argnums=(0, 1))


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

            evaluation = evaluate(config, model.spear, state["trainable"], frozen, dataset, mesh)
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


def check_order(calls: Sequence[Call], progress: Progress) -> None:
    """Notes the order of an epoch that begins, or proves that a resumed one goes on in its order.

    Raises:
      InputError: the order is another one.
    """
    if progress.order not in ("", digest(calls)):
        raise InputError(
            f"epoch {progress.epoch + 1} began with other windows than the data give now; the data of this run have"
            " changed: use a new --workdir"
        )
    progress.order = digest(calls)


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


def take_steps(examples: Examples, call: Call, steps_per_call: int) -> dict[str, np.ndarray]:
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


def evaluate(
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


class StopSignal:
    """SIGTERM and SIGINT, remembered until the call under way is done; a second one ends the program at once."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        """Listens to nothing yet.

        Args:
          then: is called when a signal comes, between any two instructions of the program.
        """
        self._then = then

    def __enter__(self) -> "StopSignal":
        self.asked = False
        # Signals reach the main thread alone, and only there can be listened to.
        heard = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        self._before = {number: signal.signal(number, self._ask) for number in heard}
        return self

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True
        self._then()
        self._restore()

    def __exit__(self, *fault: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
