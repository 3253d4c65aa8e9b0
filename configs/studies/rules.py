"""Trains on labels made by the context rules or by injection, and tests on recorded labels.

python -m spear_jax.main --mode=study --config=configs/studies/rules.py:nasa --workdir=runs/studies
"""

from spear_jax.errors import InputError
from spear_jax.studies import Study, grid, on_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default) or nab; time or random for the split; debug (random:tiny, a few minutes)."""
    if "mimic_iv" in arg.split(","):
        raise InputError("config argument 'mimic_iv': has no recorded labels; allowed are nasa, nab")
    study = Study(
        name="rules",
        title="Made labels against recorded labels",
        question="Can a detector learn from labels that the paper's context rules make, or from injected anomalies? The"
        " test split has its recorded labels in every row, training and validation those named in the row.",
        varied="data.labels",
        rows=grid(data__labels=("recorded", "rules", "injected")),
    )
    return on_data_set(study, arg)
