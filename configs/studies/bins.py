"""Compares 50, 100, 200 and 500 bins.

python -m spear_jax.main --mode=study --config=configs/studies/bins.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Study, grid, on_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random for the split; debug (random:tiny, a few minutes)."""
    study = Study(
        name="bins",
        title="Number of bins",
        question="How many bins should values be quantized into? With few, small anomalies disappear; with many, each"
        " bin is rarely seen in training. The controls are those of 200 bins.",
        varied="quantizer.bins",
        rows=grid(quantizer__bins=(50, 100, 200, 500)),
        axis="quantizer.bins",
        controls_of="200",
    )
    return on_data_set(study, arg)
