"""Pools the runs of all folds: over the steps of their test splits, and by series."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from spear_jax.evaluation import point_metrics, read_table
from spear_jax.storage import write_parquet
from spear_jax.studies.planning import PlannedRun

POOLED = "folds"
"""In the column `split` of a table: the test splits of all folds together. The row belongs to the run of fold 0."""

SERIES_METRICS = ("auroc", "aupr", "vus_pr")
"""Metrics of a single series that has both classes."""

_SERIES_COLUMNS = ("run", "series", "steps", "base_rate", *SERIES_METRICS)


def group_folds(planned: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """Returns the runs that belong together: those of one row and seed, in the order of their folds."""
    return [list(runs) for _, runs in itertools.groupby(planned, key=lambda run: (run.row, run.seed))]


def read_run_series(run: str, folder: Path) -> pd.DataFrame:
    """Returns the metrics of each test series of a run; series with one class only, which have none, are left out.

    Args:
      run: name of the run.
      folder: its folder.
    """
    series = read_table(folder, "per_series.parquet")
    series = series[(series["split"] == "test") & series["auroc"].notna()]
    numbers = series[["base_rate", *SERIES_METRICS]].astype("float32")
    return numbers.assign(run=run, series=series["series"], steps=series["steps"])[list(_SERIES_COLUMNS)]


def pool_folds(rows: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> dict[str, Any]:
    """Returns the row of a table that holds the test splits of all folds together.

    AUROC, AUPR, F1 and the like are pooled over the steps of all series, with each fold's scores as they are and its
    own threshold. VUS and the other interval metrics, series_auroc and series_aupr are means over the series that have
    both classes.

    Args:
      rows: the row of each fold's run for its test split, from `table.result_rows`.
      folders: the folder of each fold's run.
    """
    scores = pd.concat(
        [read_table(folder, "scores/test.parquet")[["score", "predicted", "label"]] for folder in folders]
    )
    points = point_metrics("all folds", *(scores[column].to_numpy() for column in ("label", "score", "predicted")))
    series = pd.concat([read_table(folder, "per_series.parquet") for folder in folders])
    series = series[series["split"] == "test"]
    by_series = series.drop(columns=["split", "series", "steps"]).apply(pd.to_numeric).mean().to_dict()
    # Intervals over the series of one fold say nothing about all of them.
    shared = {name: value for name, value in rows[0].items() if not name.endswith(("_low", "_high"))}
    frame = pd.DataFrame(rows)
    texts = dict.fromkeys(line for text in frame["warnings"] for line in text.splitlines())
    return {
        **shared,
        **by_series,
        **points,
        "series_auroc": by_series["auroc"],
        "series_aupr": by_series["aupr"],
        **{name: frame[name].sum() for name in ("series", "windows", "steps", "anomalous_steps", "cpu_seconds")},
        **{name: pd.to_numeric(frame[name]).mean() for name in ("best_step", "seconds_per_epoch")},
        "warnings": "\n".join(texts),
        "split": POOLED,
    }


def write_series(folder: Path, study: str, path: str, series: pd.DataFrame) -> None:
    """Writes the metrics by series of a study's runs as <study>_series.parquet, next to its table.

    Args:
      folder: folder of the table.
      study: name of the study.
      path: file and argument that the study was loaded from.
      series: from `read_run_series`.
    """
    write_parquet(folder / f"{study}_series.parquet", series, study=path)


def read_series(folder: Path, study: str) -> pd.DataFrame:
    """Reads what `write_series` wrote; a table without rows if there is no such file."""
    path = folder / f"{study}_series.parquet"
    return pd.read_parquet(path) if path.is_file() else pd.DataFrame(columns=list(_SERIES_COLUMNS))
