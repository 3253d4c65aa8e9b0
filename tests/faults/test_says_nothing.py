"""A detector that says nothing about a column says so: for a file, live rows and in Python."""

import dataclasses
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Run, Spear
from etils import epath

import spear_jax
from spear_jax.detector.artifact import Detector

pytestmark = pytest.mark.one_python


@pytest.mark.parametrize("fault", ["alike", "outside", ""])
def test_it_is_said_everywhere(
    spear: Spear, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    detector = Detector.load(epath.Path(finished.workdir))
    if fault == "alike":
        head = {name: np.zeros_like(array) for name, array in detector.trainable["head"].items()}
        detector = dataclasses.replace(detector, trainable={**detector.trainable, "head": head})
    detector.save(epath.Path(tmp_path / "detector"))
    values = np.random.default_rng(0).normal(size=600)
    if fault == "outside":
        values[300:] += 100  # the range is that of the first 256 rows
    table = tmp_path / "t.csv"
    pd.DataFrame({"a": values}).to_csv(table, index=False)
    expected = {
        "alike": "are alike (0.5): the detector says nothing",
        "outside": "so far lie far outside the range",
    }.get(fault)
    score = ("--mode=score", f"--detector={tmp_path / 'detector'}")
    scored = spear(*score, f"--input={table}", f"--workdir={tmp_path / 'scored'}")
    assert scored.code == 0, scored.err
    with table.open() as rows:
        monkeypatch.setattr(sys, "stdin", rows)
        live = spear(*score, "--input=-")
    assert live.code == 0, live.err
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        spear_jax.SpearDetector.load(str(tmp_path / "detector")).decision_function(values)
    for said in (scored.out, live.err, " ".join(str(warning.message) for warning in caught)):
        if expected:
            assert expected in said
        else:
            assert "alike" not in said and "outside" not in said
