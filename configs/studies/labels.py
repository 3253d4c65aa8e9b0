"""How few labelled incidents are enough.

python -m spear_jax.main --mode=study --config=configs/studies/labels.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Row, Study, one_data_set

SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random (splits); debug (random:tiny, minutes)."""
    # As many steps for few labels as for all: where there are half as many windows, twice as many epochs.
    epochs = 2 if "debug" in arg else 5
    return one_data_set(
        arg,
        "labels",
        title="Share of the training part's incidents that are labelled",
        question="Trained for the same number of steps each: the fewer labels, the more epochs to choose from."
        " Validation and test keep all their labels.",
        varied="train.labelled_share",
        rows={
            str(share): Row(
                {
                    "train.labelled_share": share,
                    "train.epochs": round(epochs / share),
                    "train.early_stopping.patience": round(epochs / share),
                }
            )
            for share in SHARES
        },
        axis="train.labelled_share",
    )
