"""How fine the values are told apart: 50 to 500 bins.

python -m spear_jax.main --mode=study --config=configs/studies/bins.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Study, grid, one_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random (splits); debug (random:tiny, minutes)."""
    return one_data_set(
        arg,
        "bins",
        title="Number of bins",
        question="Too few bins lose small anomalies; of many, each is seen too rarely. Controls are those of 200 bins.",
        varied="quantizer.bins",
        rows=grid(quantizer__bins=(50, 100, 200, 500)),
        axis="quantizer.bins",
        controls_of="200",
    )
