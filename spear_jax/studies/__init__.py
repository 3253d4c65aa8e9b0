"""Runs grids of configs and puts their results in tables."""

from spear_jax.studies.compare import compare
from spear_jax.studies.runner import DEFAULTS, changed_defaults, defaults, plan, publish, run_study
from spear_jax.studies.study import DEBUG, PROTOCOL, SEEDS, Row, Study, grid, load_study, one_data_set

__all__ = [
    "DEBUG",
    "DEFAULTS",
    "PROTOCOL",
    "SEEDS",
    "Row",
    "Study",
    "changed_defaults",
    "compare",
    "defaults",
    "grid",
    "load_study",
    "one_data_set",
    "plan",
    "publish",
    "run_study",
]
