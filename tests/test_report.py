"""Figures: drawn for every kind of split, and looked into far enough to see that something is in them."""

from pathlib import Path

import fsspec
import matplotlib.image
import numpy as np
import pytest
from conftest import Run, Spear, quick
from etils.epath import backend


def ink(file: Path) -> float:
    """Share of pixels that are not white."""
    return float((matplotlib.image.imread(file)[..., :3] < 0.95).any(axis=-1).mean())


def test_a_figure_shows_series_and_scores(finished: Run) -> None:
    assert 0.02 < ink(finished.workdir / "figures" / "test_series.png") < 0.9


def test_a_random_split_has_gaps_and_is_drawn(spear: Spear, tmp_path: Path) -> None:
    run = spear(*quick(tmp_path / "run", {"data.split": "random"}))
    assert run.code == 0, run
    picture = matplotlib.image.imread(tmp_path / "run" / "figures" / "test_series.png")
    assert np.isfinite(picture).all()
    assert ink(tmp_path / "run" / "figures" / "test_series.png") > 0.01


def test_a_run_in_a_bucket_has_its_figures(spear: Spear, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket in memory, behind the paths that are gs://."""
    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(type(backend.fsspec_backend), "_get_filesystem", lambda self, name: memory)
    run = spear(*quick("gs://bucket/run", {"method": "isolation_forest"}))
    assert run.code == 0, run
    assert memory.cat("gs://bucket/run/figures/test_series.png").startswith(b"\x89PNG")
    assert memory.exists("gs://bucket/run/results.json")
