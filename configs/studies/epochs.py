"""Compares 5, 20 and 40 epochs, and a long and a short warm-up.

python -m spear_jax.main --mode=study --config=configs/studies/epochs.py:mimic_iv --workdir=runs/studies
"""

from spear_jax.studies import Row, Study, on_data_set

STEPS_PER_EPOCH = 30  # of the decay of the learning rates: the protocol has 150 for 5 epochs


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random for the split; debug (random:tiny, a few minutes)."""
    rows = {
        f"{epochs} epochs, learning rate {rate}, warm-up {warmup}": Row(
            {
                "train.epochs": epochs,
                "train.decay_steps": STEPS_PER_EPOCH * epochs,
                "train.prompt_learning_rate": rate,
                "train.warmup_steps": warmup,
            }
        )
        for epochs, rate, warmup in (
            (5, 3e-3, 50),
            (5, 3e-3, 5),
            (5, 3e-2, 50),
            (5, 3e-2, 5),
            (20, 3e-3, 50),
            (20, 3e-2, 50),
            (40, 3e-2, 50),
        )
    }
    study = Study(
        name="epochs",
        title="Epochs and warm-up",
        question="Does a prompt get better with longer training? The paper trains for 40 epochs, the other studies for"
        " 5 with 50 steps of warm-up.",
        varied="epochs, prompt's learning rate, warm-up steps",
        rows=rows,
    )
    return on_data_set(study, arg)
