"""Tries the GPU benchmark on the CPU, checks its count of operations, and keeps the README's table true."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.one_python


@pytest.fixture(autouse=True)
def benchmarks_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_the_readme_has_the_tables_of_the_files() -> None:
    tables = load("tables")
    text = (REPOSITORY / "benchmarks" / "README.md").read_text()
    _, _, rest = text.partition(tables.BEGIN)
    found, end, _ = rest.partition(tables.END)
    assert end and found == tables.all_tables(), "python benchmarks/tables.py"


def test_without_files_the_readme_names_the_command(tmp_path: Path) -> None:
    assert "bash benchmarks/gpu.sh" in load("tables").all_tables(tmp_path)


def product_flops(jaxpr: Any) -> int:
    """Counts the operations of the matrix products of a jaxpr, loops unrolled."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            inner = int(np.prod([shape[axis] for axis in contracted]))
            total += 2 * inner * int(np.prod(equation.outvars[0].aval.shape))
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            inside = getattr(value, "jaxpr", value)
            if hasattr(inside, "eqns"):
                total += times * product_flops(inside)
    return total


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-gemma"])
def test_flops_are_those_of_the_model(model: str) -> None:
    measures, shapes = load("gpu_jax"), load("gpu_shapes")
    batch, window = 4, 12
    module, trainable, frozen = measures.random_model(model, window)
    inputs = measures.random_batch(batch, window)
    traced = jax.make_jaxpr(lambda trainable: measures.score(module, trainable, frozen, inputs))(trainable)
    head = 2 * window * shapes.MODELS[model]["hidden_size"]
    forward, training = shapes.count_flops(model, window, batch)
    assert product_flops(traced.jaxpr) == batch * (forward + head)
    assert 2 * forward < training < 3 * forward


@pytest.mark.parametrize(
    "parts",
    [
        "rates|speed tiny-bert|torch eager tiny-bert",
        pytest.param("parity|quickstart|attention|speed tiny-gemma|detectors", marks=pytest.mark.slow),
    ],
)
def test_parts_run_on_the_cpu(parts: str, tmp_path: Path) -> None:
    finished = subprocess.run(
        ["bash", "benchmarks/gpu.sh", "--cpu", f"--only={parts}", f"--results={tmp_path}"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    (file,) = tmp_path.glob("*.json")
    outcomes = json.loads(file.read_text())["parts"]
    assert {name: outcome["failed"] for name, outcome in outcomes.items() if "failed" in outcome} == {}
    for name, outcome in outcomes.items():
        failed = [row for row in outcome.get("rows", []) if "failed" in row and "cudnn" not in row["variant"]]
        assert failed == [] and (outcome.get("rows") or outcome["skipped"].startswith("torch")), name
