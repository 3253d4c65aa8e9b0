"""Trains with labels for a share of the anomaly intervals only.

python -m spear_jax.main --mode=study --config=configs/studies/labels.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Row, Study, on_data_set

SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random for the split; debug (random:tiny, a few minutes)."""
    # Fewer labels, as many steps: half the windows are seen in twice as many epochs.
    epochs = 2 if "debug" in arg.split(",") else 5
    study = Study(
        name="labels",
        title="Share of labelled anomaly intervals",
        question="How many labelled anomaly intervals does training need? All rows train for as many steps, so that"
        " fewer labels mean more epochs to choose from. Validation and test keep all their labels.",
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
    return on_data_set(study, arg)
