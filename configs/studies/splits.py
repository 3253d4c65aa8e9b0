"""How much the usual split flatters: windows dealt out at random, against whole series or the later part held out.

python -m spear_jax.main --mode=study --config=configs/studies/splits.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Study, grid, one_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; debug (random:tiny, minutes)."""
    return one_data_set(
        arg,
        "splits",
        title="Splits",
        question="A random split puts windows of one series, minutes apart, into training and test.",
        varied="data.split, method",
        rows=grid(data__split=("series", "time", "random"), method=("spear", "gradient_boosting")),
    )
