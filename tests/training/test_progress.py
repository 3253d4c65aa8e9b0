"""Progress: which evaluation is the best, when training ends, and that a resumed epoch keeps its order."""

from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from spear_jax.data.batches import training_calls
from spear_jax.errors import InputError
from spear_jax.training.progress import Progress
from spear_jax.training.step import StepMetrics


def evaluation(loss: float, aupr: float | None) -> dict[str, Any]:
    return {"validation_loss": loss, "validation_aupr": aupr}


def test_the_metric_decides_on_the_best_evaluation() -> None:
    progress = Progress()
    values = [(0.5, 0.3), (0.4, 0.3), (0.9, 0.6)]
    assert [progress.record(evaluation(*value), "aupr") for value in values] == [True, False, True]
    assert (progress.best["metric"], progress.best["value"], progress.stale_epochs) == ("validation_aupr", 0.6, 0)


def test_the_loss_decides_where_the_metric_is_undefined() -> None:
    progress = Progress()
    assert [progress.record(evaluation(loss, None), "aupr") for loss in (0.5, 0.6, 0.4)] == [True, False, True]
    assert (progress.best["metric"], progress.best["value"]) == ("validation_loss", 0.4)


@pytest.mark.parametrize(("epoch", "stale", "finished"), [(4, 1, False), (5, 0, True), (3, 2, True)])
def test_training_ends_after_its_epochs_or_when_nothing_gets_better(epoch: int, stale: int, finished: bool) -> None:
    train = ConfigDict({"epochs": 5, "early_stopping": {"patience": 2}})
    assert Progress(epoch=epoch, stale_epochs=stale).finished(train) == finished


def test_an_epoch_is_resumed_in_its_own_order_only() -> None:
    lengths = np.full(12, 8)
    calls, other = (training_calls(lengths, 4, 2, seed, 0) for seed in (0, 1))
    progress = Progress()
    progress.begin_epoch(calls)
    progress.begin_epoch(calls)
    with pytest.raises(InputError, match="the data of this run have changed"):
        progress.begin_epoch(other)


def test_an_epoch_weighs_its_losses_by_their_time_steps() -> None:
    progress = Progress()
    columns = {"gradient_norm": [2.0, 4.0], "update_norm": [1.0, 3.0], "prompt_norm": [1.0, 2.0]}
    metrics = StepMetrics(
        loss=np.array([1.0, 4.0]),
        time_steps=np.array([30.0, 10.0]),
        **{name: np.array(values) for name, values in columns.items()},
    )
    (call,) = training_calls(np.full(8, 8), 4, 2, 0, 0)
    progress.add(call, metrics)
    assert (progress.step, progress.step_in_epoch) == (2, 2)
    line = progress.end_epoch(evaluation(0.5, 0.5), "aupr")
    assert (line["loss"], line["prompt_gradient"], line["prompt_update"]) == (1.75, 3.0, 1.25)
    assert (progress.epoch, progress.step_in_epoch, progress.sums) == (1, 0, {})
