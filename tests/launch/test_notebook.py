"""The notebook runs from top to bottom, and shows its pictures."""

from pathlib import Path

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.one_python

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

TINY = """
BACKBONE = "random:tiny"
QUICKSTART = ["--config.data.synthetic.series=10", "--config.data.fractions=(0.6, 0.2, 0.2)", "--config.train.epochs=1"]
OTHER = "configs/quickstart.py:debug"
OWN = ""
EPOCHS = 1
"""


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    notebook = nbformat.read(REPOSITORY / "launch" / "colab.ipynb", as_version=4)
    nbformat.validate(notebook)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    names = {line.partition(" = ")[0] for line in parameters.source.splitlines() if " = " in line}
    assert names == {line.partition(" = ")[0] for line in TINY.splitlines() if line}
    parameters.source = TINY
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [one for one in shown if "image/png" in one.get("data", {})]
    assert len(pictures) == 2
    printed = "".join(one.get("text", "") for one in shown)
    assert "RANDOM WEIGHTS" in printed and "rows scored" in printed


def test_it_copies_no_code_and_holds_no_output() -> None:
    notebook = nbformat.read(REPOSITORY / "launch" / "colab.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert not any("def " in cell.source for cell in code)
