"""Fits a method to data, which gives scores, a threshold and, for SPEAR, a detector."""

import dataclasses
from collections.abc import Callable
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.backbones import Backbone
from spear_jax.config import METHODS, view_names
from spear_jax.data import Dataset, MethodScores, stitch_splits
from spear_jax.detector import Detector
from spear_jax.evaluation import DecisionRule, RunRecord, choose_rule, read_out
from spear_jax.methods.head_only import score_head_only
from spear_jax.methods.implementations import Trainable, find_implementation
from spear_jax.methods.supervised import logistic_regression
from spear_jax.model import PlacedModel
from spear_jax.training import train_model


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A fitted method.

    Attributes:
      scores: scores of every split.
      rule: decision rule chosen on the validation split.
      model: the trained model; None for a method outside the training loop.
      backbone: the model's backbone; None without one.
      detector: the detector to save and apply; None for all methods but SPEAR.
    """

    scores: MethodScores
    rule: DecisionRule
    model: PlacedModel | None = None
    backbone: Backbone | None = None
    detector: Detector | None = None


def fit(
    config: ConfigDict,
    dataset: Dataset,
    record: RunRecord,
    folder: epath.Path,
    *,
    on_start: Callable[[PlacedModel | None], object],
    on_epoch: Callable[[dict[str, Any]], object] | None = None,
    keep_stopped: bool = False,
) -> Fitted | None:
    """Fits the method of a config, in the training loop or outside it, scores every split, chooses readout and rule.

    Args:
      config: a complete config.
      dataset: the data to fit and to score.
      record: record of the run; gets times, warnings and all facts about backbone, model and training.
      folder: folder of the run; gets checkpoints/ and metrics.jsonl. Training resumes from the last checkpoint there.
      on_start: called with the model, or None for a method outside the loop, once all checks have passed; only an API
        endpoint can still reject the run.
      on_epoch: called with each epoch's line of metrics.jsonl.
      keep_stopped: whether to finish with the best parameters so far if a signal stops training.

    Returns:
      The fitted method; None if a signal stopped training and `keep_stopped` is False.

    Raises:
      InputError: the method cannot work with this backbone, these data or this machine.
      TrainingDivergedError: the loss is no longer finite.
    """
    with record.timed("loading"):
        started = find_implementation(config.method)(config, dataset, record)
    schedule = {"epochs": config.train.epochs, "patience": config.train.early_stopping.patience}
    if not isinstance(started, Trainable):
        record.training = schedule
        on_start(None)
        with record.timed("fitting and scoring"):
            _, scores, record.notes["readout"] = read_out(config, dataset, MethodScores(started()))
        return Fitted(scores, choose_rule(config, dataset, scores.steps["validation"]))

    record.model = started.model.description()
    on_start(started.model)
    untrained = started.model.embedding_on_host()
    result = train_model(started.model, dataset, config, folder, on_epoch)
    record.training = {
        **schedule,
        "epochs_done": result.progress.epoch,
        "steps": result.progress.step,
        "stopped": result.stopped,
        "best": result.progress.best,
        **record.training,
    }
    record.seconds["training"] = result.progress.seconds
    record.earlier_cpu_seconds = result.cpu_seconds_before
    record.memory["optimizer_bytes"] = result.optimizer_bytes
    if result.windows_per_second:
        record.throughput["training_windows_per_second"] = round(result.windows_per_second, 2)
    if result.stopped == "signal" and not keep_stopped:
        return None
    if best := result.progress.best:  # none if training was stopped before its first evaluation
        parallel.say(f"scoring with the best step ({best['step']}) ...")
    with record.timed("scoring"):
        model_scores = score_model(config, result.model, dataset, untrained=untrained)
        readout, scores, record.notes["readout"] = read_out(config, dataset, model_scores)
    rule = choose_rule(config, dataset, scores.steps["validation"])
    detector = None
    if METHODS[config.method].prompt:
        detector = Detector.trained(readout.write_to(config), dataset, untrained, result.model, rule, record)
    return Fitted(scores, rule, result.model, started.backbone, detector)


def score_model(config: ConfigDict, model: PlacedModel, dataset: Dataset, untrained: PlacedModel) -> MethodScores:
    """Scores every split with a trained model and, if there is a test split, with the controls that need training.

    They are a head alone, on the bin embeddings of the model before training, and, if steps have further views, a
    logistic regression on these, without a backbone.
    """
    scores, controls = {}, {}
    for split, examples in dataset.examples.items():
        with parallel.announced(f"scored {split}"):
            scores[split] = model.score(examples, split)
    if "test" in dataset.examples and config.controls.head_only and METHODS[config.method].prompt:
        head_scores = score_head_only(
            untrained,
            dataset.training,
            dataset.examples,
            positive_weight=config.train.positive_weight,
            seed=config.seed,
        )
        controls["head_only"] = stitch_splits(dataset, head_scores)
    if "test" in dataset.examples and METHODS[config.method].prompt and len(view_names(config)) > 1:
        with parallel.announced("control logistic regression: fitted, and scored all splits"):
            fitted = logistic_regression(dataset.training, dataset.examples, dataset.quantizer.bins, seed=config.seed)
        controls["logistic_regression"] = stitch_splits(dataset, fitted)
    is_window_head = config.head.kind == "window"
    windows = {split: step_scores[:, 0] for split, step_scores in scores.items()} if is_window_head else {}
    return MethodScores(stitch_splits(dataset, scores), windows, controls)
