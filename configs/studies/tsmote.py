"""More anomalous training windows, made by T-SMOTE, or only the recorded ones.

python -m spear_jax.main --mode=study --config=configs/studies/tsmote.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Study, grid, one_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; debug (random:tiny, minutes)."""
    return one_data_set(
        arg,
        "tsmote",
        title="T-SMOTE",
        question="On the split in time; on the others it finds nothing to synthesize from.",
        varied="tsmote.enabled",
        rows=grid(tsmote__enabled=(False, True)),
        base={"data.split": "time"},
    )
