"""Runs the notebook from top to bottom; checks its pictures and its installation cell."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, write_nab

pytestmark = pytest.mark.one_python

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

TINY = """
BACKBONE = "random:tiny"
QUICKSTART = ["--config.data.synthetic.series=10", "--config.data.fractions=(0.6, 0.2, 0.2)", "--config.train.epochs=1"]
OTHER = "configs/nab.py"
OWN = ""
EPOCHS = 1
"""
FILES = {f"realAWSCloudwatch/f{i}.csv": (320, [(100 + 9 * i, 110 + 9 * i), (220, 240)]) for i in range(6)}


def read_notebook() -> Any:
    return nbformat.read(REPOSITORY / "launch" / "colab.ipynb", as_version=4)


def write_own(path: Path, label: str) -> None:
    """Writes a reader's table: times, words, two sensors and optional labels, separated by semicolons."""
    rng = np.random.default_rng(0)
    time = pd.date_range("2025-01-01", periods=800, freq="min")
    table = pd.DataFrame({"when": time, "room": "kitchen", "heat": rng.normal(20, 1, 800), "load": rng.random(800)})
    if label:
        table[label] = (np.arange(800) % 100 < 10).astype(int)
        table.loc[table[label] == 1, "heat"] += 10
    table.to_csv(path, sep=";", index=False)


@pytest.mark.landing
@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nab(tmp_path / "data" / "nab", FILES)
    write_own(tmp_path / "labelled.csv", "is_anomaly")
    write_own(tmp_path / "unlabelled.csv", "")
    monkeypatch.setenv("SPEAR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    notebook = read_notebook()
    nbformat.validate(notebook)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    names = {line.partition(" = ")[0] for line in parameters.source.splitlines() if " = " in line}
    assert names == {line.partition(" = ")[0] for line in TINY.splitlines() if line}
    headings = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "markdown"]
    (own,) = (i for i in headings if notebook.cells[i].source.startswith("## Your own data"))
    of_own = range(own, next(i for i in headings if i > own))
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})

    def run(numbers: range, file: str) -> tuple[str, int]:
        """Returns what the cells print with this file as own data, and the number of pictures they show."""
        parameters.source = TINY.replace('OWN = ""', f"OWN = {file!r}")
        client.execute_cell(parameters, notebook.cells.index(parameters))
        outputs = []
        for number in numbers:
            client.execute_cell(notebook.cells[number], number)
            outputs += notebook.cells[number].get("outputs", ())
        printed = "".join(output.get("text", "") for output in outputs)
        return printed, sum("image/png" in output.get("data", {}) for output in outputs)

    with client.setup_kernel():
        printed, pictures = run(range(len(notebook.cells)), "")
        assert pictures == 2
        assert "synthetic, SPEAR, random:tiny (RANDOM WEIGHTS" in printed and "series scored" in printed
        assert "\nnab, SPEAR, random:tiny (RANDOM WEIGHTS" in printed
        assert "example.csv: 3000 rows, labels: label" in printed
        for file, label in (("labelled.csv", "is_anomaly"), ("unlabelled.csv", "none")):
            printed, pictures = run(of_own, file)
            assert pictures == 1
            assert f"{file}: columns that are left out: room (text, such as" in printed
            assert f"{file}: 800 rows, labels: {label}" in printed
            assert "series scored" in printed
            assert ("of injected anomalies" in printed) == (label == "none")


def test_it_copies_no_code_and_holds_no_output() -> None:
    code = [cell for cell in read_notebook().cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert not any("def " in cell.source for cell in code)


@pytest.mark.parametrize(
    ("gpu", "beside", "package"),
    [
        pytest.param("exit 0", "", "spear_jax[gpu]", marks=pytest.mark.slow),
        pytest.param("exit 9", "", "spear_jax", marks=pytest.mark.slow),  # installed, but there is no driver
        pytest.param("", "", "spear_jax", marks=pytest.mark.slow),
        ("exit 0", "spear_jax-0.1.0-py3-none-any.whl", "spear_jax[gpu] @ {file}"),
        ("", "pyproject.toml", "spear_jax @ {folder}"),
    ],
)
def test_it_installs_a_wheel_or_checkout_beside_it_or_the_package(
    tmp_path: Path, gpu: str, beside: str, package: str
) -> None:
    """Uses fakes of pip and nvidia-smi that only record their calls, and hides spear_jax until that pip ran."""
    if beside:
        (tmp_path / beside).touch()
    if gpu:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\n{gpu}\n")
        (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "pip.py").write_text(
        f"import pathlib, sys\npathlib.Path({str(tmp_path / 'asked')!r}).write_text('\\n'.join(sys.argv[1:]))\n"
    )
    (tmp_path / "modules" / "spear_jax.py").write_text(
        f"import pathlib\nif not pathlib.Path({str(tmp_path / 'asked')!r}).exists():\n"
        "    raise ImportError('not yet')\n__version__ = 'installed'\n"
    )
    first = next(cell for cell in read_notebook().cells if cell.cell_type == "code")
    (tmp_path / "first.ipy").write_text(first.source)
    own = {
        "PATH": str(tmp_path / "bin"),  # hides this machine's nvidia-smi
        "PYTHONPATH": str(tmp_path / "modules"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JAX_PLATFORMS": "cpu",
    }
    words = [sys.executable, "-m", "IPython", "--colors=NoColor", "first.ipy"]
    finished = subprocess.run(words, cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, timeout=120)
    assert "spear_jax installed, jax " in finished.stdout, finished.stdout + finished.stderr
    expected = package.format(file=(tmp_path / beside).resolve().as_uri(), folder=tmp_path.resolve().as_uri())
    assert (tmp_path / "asked").read_text().splitlines() == ["install", "-q", expected]
