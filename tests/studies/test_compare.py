"""A table of finished runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Spear, check_refusal, quick_on, results

from spear_jax.studies import make_table, result_rows, write_table

pytestmark = pytest.mark.one_python


@pytest.mark.landing
@pytest.mark.slow
def test_runs_that_differ_in_their_seed_are_one_row(spear: Spear, nasa: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for seed in (0, 1):
        fields = {"method": "isolation_forest", "seed": seed}
        assert spear(*quick_on(nasa, runs / f"forest-{seed}", fields)).code == 0
    assert spear(*quick_on(nasa, runs / "spear", {"seed": 0, "prompt.length": 5})).code == 0
    outcome = spear("--mode=compare", f"--workdir={runs}")
    assert (outcome.code, outcome.err) == (0, "")
    page = (runs / "compare.md").read_text()
    assert outcome.out == page
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    (paper,) = [line for line in rows if line.startswith("| paper: SPEAR-BERT")]
    assert "| 0.91 |" in paper and "| 0.9 |" in paper and "| 0.7 |" in paper
    (forest,) = [line for line in rows if "isolation forest" in line and "control" not in line]
    values = [results(runs / f"forest-{seed}")["test"]["auroc"] for seed in (0, 1)]
    assert values[0] != values[1]
    assert f"| {np.mean(values):.3f} ± {np.std(values, ddof=1):.3f} [" in forest
    assert "| 2 |" in forest
    (prompted,) = [line for line in rows if ". SPEAR, prompt.length=5" in line]
    assert "random:tiny (RANDOM WEIGHTS)" in prompted
    low, high = results(runs / "spear")["confidence_intervals"]["test"]["aupr"]
    assert f"{results(runs / 'spear')['test']['aupr']:.3f} [{low:.2f}, {high:.2f}]" in prompted
    assert ", seeds 0, 1" in page
    assert sum("control: bin lookup" in line for line in rows) == 2
    assert "--config.method=isolation_forest" in page
    # A table of the same runs gives the same page.
    rows = [row for run in sorted(runs.iterdir()) if run.is_dir() for row in result_rows(run.name, results(run))]
    (tmp_path / "tables").mkdir()
    write_table(tmp_path / "tables" / "study.parquet", make_table(rows, "configs/studies/methods.py"))
    assert spear("--mode=compare", f"--workdir={tmp_path / 'tables'}").out == page


@pytest.mark.parametrize("content", [None, {"schema": 1}, {"command": "x"}])
def test_a_folder_without_runs_is_refused(spear: Spear, tmp_path: Path, content: dict[str, object] | None) -> None:
    folder = tmp_path / "runs"
    if content is not None:
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(content))
    outcome = spear("--mode=compare", f"--workdir={folder}")
    assert outcome.code == 2 and not outcome.out
    *left_out, error = outcome.err.splitlines()
    assert error.startswith(f"error: --workdir={folder}: no results.json in it")
    assert len(left_out) == (content is not None) and all(line.startswith("left out: ") for line in left_out)
    check_refusal(spear("--mode=compare", "--config=x", f"--workdir={folder}"), "--config only applies to --mode=train")
