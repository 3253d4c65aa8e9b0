"""Odd data and odd processes: masked arrays, forked children, constants without digits to spare, many columns."""

import multiprocessing
import time
from typing import Any

import numpy as np
import pytest
from conftest import Run

import spear_jax
from spear_jax.data import Series
from spear_jax.data.scaler import TableScaler
from spear_jax.data.tables.columns import check_unique
from spear_jax.errors import InputError
from spear_jax.methods.unsupervised import DETECTORS

pytestmark = pytest.mark.one_python


def test_masked_values_are_missing(finished: Run) -> None:
    loaded = spear_jax.SpearDetector.load(str(finished.workdir))
    values = np.sin(np.arange(100.0))
    missing = np.where(np.arange(100) % 10 == 3, np.nan, values)
    masked = np.ma.masked_array(np.where(np.isnan(missing), 1e6, missing), np.isnan(missing))
    np.testing.assert_array_equal(loaded.decision_function(masked), loaded.decision_function(missing))
    labels = np.ma.masked_array(np.zeros(100, int), np.arange(100) == 5)
    with pytest.raises(InputError, match="labels: some are masked"):
        spear_jax.SpearDetector(backbone="random:tiny").fit(values, labels)


def score(loaded: Any, answers: Any) -> None:
    try:
        answers.put(str(loaded.decision_function(np.arange(100.0)).shape))
    except InputError as error:
        answers.put(str(error))


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")
def test_a_forked_child_is_refused_instead_of_waiting_for_ever(finished: Run) -> None:
    loaded = spear_jax.SpearDetector.load(str(finished.workdir))
    loaded.decision_function(np.arange(100.0))
    fork = multiprocessing.get_context("fork")
    for detector in (loaded, spear_jax.SpearDetector.load(str(finished.workdir))):
        answers = fork.SimpleQueue()
        child = fork.Process(target=score, args=(detector, answers))
        child.start()
        child.join(30)
        child.kill()
        assert not answers.empty() and "forked child" in answers.get()


@pytest.mark.parametrize("level", [0.0, 7.0, 1e17, -1e17, 1e99])
def test_a_constant_is_in_the_middle_of_a_range(level: float) -> None:
    scaler = TableScaler("train", [None], reference_steps=8, margin=0, typical_width=1.0)
    scaler.fit(np.full((8, 1), level), ended=True)
    low, high = scaler.range_of(0)
    assert low < level < high and (level - low) / (high - low) == pytest.approx(0.5)


def test_names_of_many_columns_are_checked_at_once() -> None:
    names = [f"temperature of tank {number}" for number in range(100_000)]
    began = time.process_time()
    check_unique(names)
    assert time.process_time() - began < 1
    with pytest.raises(InputError, match="two columns are named"):
        check_unique([*names, names[7]])


@pytest.mark.parametrize("method", DETECTORS)
@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-160, 1e90])
def test_tiny_and_huge_values_have_scores(method: str, scale: float) -> None:
    values = scale * np.random.default_rng(0).integers(0, 5, 300)
    scores = DETECTORS[method](Series("a", values, np.zeros(300, bool)), 16, seed=0)
    assert np.isfinite(scores).all()
