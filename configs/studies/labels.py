"""How few labelled windows are enough.

python -m spear_jax.main --mode=study --config=configs/studies/labels.py:nasa --workdir=runs/studies
"""

from spear_jax import studies


def get_study(arg: str = "") -> studies.Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random (splits); debug (random:tiny, minutes)."""
    return studies.one_data_set(
        arg,
        "labels",
        title="Share of the training windows that are labelled",
        question="Validation and test keep all their labels.",
        varied="train.labelled_share",
        rows=studies.grid(train__labelled_share=(0.02, 0.05, 0.1, 0.2, 0.5, 1.0)),
        axis="train.labelled_share",
    )
