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
def test_flops_are_those_of_the_model(model: str, tmp_path: Path) -> None:
    measures, shapes = load("gpu_jax"), load("gpu_shapes")
    batch, window = 4, 12
    bench = measures.Bench(shapes.Recorder(tmp_path / "rows"))
    module, trainable, frozen = measures.random_model(bench, model, window)
    inputs = measures.random_batch(batch, window)
    traced = jax.make_jaxpr(lambda trainable: measures.score(module, trainable, frozen, inputs))(trainable)
    head = 2 * window * shapes.MODELS[model]["hidden_size"]
    forward, training = shapes.count_flops(model, window, batch)
    assert product_flops(traced.jaxpr) == batch * (forward + head)
    assert 2 * forward < training < 3 * forward


def run_benchmark(*words: str) -> None:
    finished = subprocess.run(
        ["bash", "benchmarks/gpu.sh", "--cpu", *words],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    "parts",
    [
        "rates",
        *(
            pytest.param(parts, marks=pytest.mark.slow)
            for parts in (
                "speed tiny-bert|torch eager tiny-bert",
                "parity|quickstart|attention|speed tiny-gemma|detectors",
            )
        ),
    ],
)
def test_parts_are_compiled_and_then_measured_without_compiling(parts: str, tmp_path: Path) -> None:
    cache, results = tmp_path / "cache", tmp_path / "results"
    run_benchmark(f"--only={parts}", f"--cache={cache}", "--compile-only", "--jobs=2")
    assert not results.exists()
    run_benchmark(f"--only={parts}", f"--cache={cache}", f"--results={results}")
    (file,) = results.glob("*.json")
    outcomes = json.loads(file.read_text())["parts"]
    for name, outcome in outcomes.items():
        failed = [row for row in outcome["rows"] if "failed" in row and "cudnn" not in row["variant"]]
        assert failed == [] and outcome["rows"] and "failed" not in outcome, name
        if not name.startswith("torch"):
            assert outcome["cache_hits"] > 0, name
            # jax.nn's cudnn variants fail without an NVIDIA GPU, each time anew.
            assert name.startswith("attention") or outcome.get("cache_misses", 0) == 0, name


def test_a_row_takes_the_place_of_an_older_one() -> None:
    merge = load("gpu").merge_outcomes
    parts = {"rates": {"rows": [1]}, "parity": {"failed": "stopped"}}
    merge(parts, {"rates": {"rows": [], "failed": "stopped"}, "parity": {"rows": [2]}, "detectors 1": {"rows": [3]}})
    assert parts == {"rates": {"rows": [1]}, "parity": {"rows": [2]}, "detectors 1": {"rows": [3]}}
    merge(parts, {"rates": {"rows": [4]}})
    assert parts["rates"] == {"rows": [4]}


def test_an_error_leaves_the_parts_around_it(tmp_path: Path) -> None:
    shapes = load("gpu_shapes")
    recorder = shapes.Recorder(tmp_path / "rows")

    def fail() -> None:
        recorder.add(number=1)
        raise ValueError("no memory")

    recorder.run("first", fail)
    recorder.run("second", lambda: recorder.add(number=2))
    first, second = json.loads((tmp_path / "rows").read_text()).values()
    assert first["rows"] == [{"number": 1}] and first["failed"] == "ValueError: no memory"
    assert second["rows"] == [{"number": 2}] and "failed" not in second


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ("training_step.py --batch=1 --window=16 --calls=1", ["forward", "training", "memory: estimated"]),
        (
            "against_torch.py --model=tiny-bert --batch=1 --window=16 --rounds=1",
            ["training, float32", "scoring, bfloat16"],
        ),
    ],
)
def test_benchmarks_for_the_cpu_run(script: str, lines: list[str]) -> None:
    pytest.importorskip("peft")
    name, *flags = script.split()
    run = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks" / name, *flags], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "windows/s" in run.stdout and all(line in run.stdout for line in lines)
