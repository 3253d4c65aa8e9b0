"""Runs grids of configs, and presents their results as tables, pages and figures."""

from spear_jax.studies.compare import compare_runs
from spear_jax.studies.markdown import heading, pipe_table, results_of_study, seed_results, setting
from spear_jax.studies.planning import PlannedRun, plan
from spear_jax.studies.plot import draw_study
from spear_jax.studies.runner import run_study
from spear_jax.studies.study import DEBUG, PROTOCOL, SEEDS, Row, Study, grid, load_study, on_data_set
from spear_jax.studies.table import changed_defaults, make_table, read_tables, result_rows, write_table

__all__ = [
    "DEBUG",
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
    "pipe_table",
    "plan",
    "read_tables",
    "result_rows",
    "results_of_study",
    "run_study",
    "seed_results",
    "setting",
    "write_table",
]
