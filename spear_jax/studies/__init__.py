"""Runs grids of configs, and presents their results as tables, pages and figures."""

from spear_jax.studies.compare import compare_runs
from spear_jax.studies.folds import POOLED, read_series, write_series
from spear_jax.studies.markdown import heading, results_of_study, seed_results, setting
from spear_jax.studies.planning import PlannedRun, plan
from spear_jax.studies.plot import draw_study
from spear_jax.studies.runner import run_study
from spear_jax.studies.study import (
    DEBUG,
    FOLD_PROTOCOL,
    PROTOCOL,
    SEEDS,
    Row,
    Study,
    grid,
    load_study,
    on_data_set,
    on_folds,
)
from spear_jax.studies.table import changed_defaults, make_table, read_tables, result_rows, write_table
from spear_jax.studies.table_cells import pipe_table

__all__ = [
    "DEBUG",
    "FOLD_PROTOCOL",
    "POOLED",
    "PROTOCOL",
    "SEEDS",
    "PlannedRun",
    "Row",
    "Study",
    "changed_defaults",
    "compare_runs",
    "draw_study",
    "grid",
    "heading",
    "load_study",
    "make_table",
    "on_data_set",
    "on_folds",
    "pipe_table",
    "plan",
    "read_series",
    "read_tables",
    "result_rows",
    "results_of_study",
    "run_study",
    "seed_results",
    "setting",
    "write_series",
    "write_table",
]
