"""Trained on labels that the four context rules made, tested on recorded ones: the second open question of the paper.

python -m spear_jax.main --mode=study --config=configs/studies/rules.py:nasa --workdir=runs/studies
"""

from spear_jax.errors import InputError
from spear_jax.studies import Study, grid, one_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default) or nab; time or random (splits); debug (random:tiny, minutes)."""
    if "mimic_iv" in arg.split(","):
        raise InputError("config argument 'mimic_iv': has no recorded labels; allowed are nasa, nab")
    return one_data_set(
        arg,
        "rules",
        title="Rules against recorded labels",
        question="Test labels are the recorded ones in every row; training and validation have those named here.",
        varied="data.labels",
        rows=grid(data__labels=("recorded", "rules", "injected")),
    )
