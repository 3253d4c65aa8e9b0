"""Compares training with and without the anomalous windows that T-SMOTE synthesizes.

python -m spear_jax.main --mode=study --config=configs/studies/tsmote.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Study, grid, on_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; debug (random:tiny, a few minutes)."""
    study = Study(
        name="tsmote",
        title="T-SMOTE",
        question="Do synthetic anomalous windows help? On the split by time, because T-SMOTE finds nothing to start"
        " from on the others.",
        varied="tsmote.enabled",
        rows=grid(tsmote__enabled=(False, True)),
        overrides={"data.split": "time"},
    )
    return on_data_set(study, arg)
