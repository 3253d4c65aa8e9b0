"""Compares ways of splitting the data into training, validation and test splits.

python -m spear_jax.main --mode=study --config=configs/studies/splits.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Study, grid, on_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; debug (random:tiny, a few minutes)."""
    study = Study(
        name="splits",
        title="Splits",
        question="How much does a random split flatter? It puts windows of the same series, minutes apart, into"
        " training and test; the others hold out whole series or the end of each series.",
        varied="data.split, method",
        rows=grid(data__split=("series", "time", "random"), method=("spear", "gradient_boosting")),
    )
    return on_data_set(study, arg)
