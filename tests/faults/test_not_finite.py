"""No NaN comes in with weights or detectors, and none goes out as a score."""

import io
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from conftest import Run, Spear, check_refusal, evaluate, quick
from etils import epath

import spear_jax
from spear_jax.detector.artifact import Detector
from spear_jax.errors import InputError
from spear_jax.model import placed

pytestmark = pytest.mark.one_python


@pytest.mark.parametrize(
    ("tensor", "parameters"),
    [
        ("embeddings.word_embeddings.weight", "embedding.table"),  # [MASK], the row of missing values
        ("encoder.layer.0.output.dense.bias", "backbone."),
    ],
)
def test_weights_with_nan_are_refused(spear: Spear, bert: Path, tmp_path: Path, tensor: str, parameters: str) -> None:
    tensors = safetensors.numpy.load_file(bert / "model.safetensors")
    tensors[tensor][4] = np.nan
    safetensors.numpy.save_file(tensors, bert / "model.safetensors")
    fields = {"backbone.name": bert}
    outcome = spear(*quick(tmp_path / "run", fields))
    check_refusal(outcome, "the parameters ", parameters, "are not all finite")


def test_a_detector_with_nan_is_refused(finished: Run) -> None:
    detector = Detector.load(epath.Path(finished.workdir))
    detector.trainable["prompt"]["vectors"][0, 0] = np.nan
    backbone = spear_jax.load_backbone("random:tiny")
    with pytest.raises(InputError, match=r"the parameters prompt\.vectors of the model are not all finite"):
        detector.assemble(backbone)


class Input(io.BytesIO):
    """Standard input that ends at once."""

    raw: Any = property(lambda self: self)


def test_no_way_out_gives_nan(spear: Spear, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "t.csv"
    pd.DataFrame({"a": np.arange(100.0)}).to_csv(table, index=False)
    loaded = spear_jax.SpearDetector.load(str(finished.workdir))
    monkeypatch.setattr(placed, "score_batch", lambda *arguments: jnp.full(arguments[-1]["mask"].shape, jnp.nan))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Input(table.read_bytes())))
    score = ("--mode=score", f"--detector={finished.workdir}")
    for arguments in (
        (*score, f"--input={table}", f"--workdir={tmp_path / 'scored'}"),
        evaluate(finished.workdir, tmp_path / "evaluated"),
    ):
        outcome = spear(*arguments)
        assert outcome.code == 2 and "error: the model's scores are NaN in " in outcome.err
        assert outcome.err.count("\n") == 1
    assert not (tmp_path / "scored").exists() and not (tmp_path / "evaluated").exists()
    with pytest.raises(InputError, match="scores are NaN"):
        loaded.decision_function(np.arange(100.0))
