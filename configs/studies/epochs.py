"""How long a prompt is trained, and how it begins: the paper has 40 epochs, the other studies 5, 50 steps of warm-up.

python -m spear_jax.main --mode=study --config=configs/studies/epochs.py:mimic_iv --workdir=runs/studies
"""

from spear_jax.studies import Row, Study, one_data_set

STEPS_PER_EPOCH = 30  # of the learning rates' decay, as in the protocol: 150 for 5 epochs


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random (splits); debug (random:tiny, minutes)."""
    rows = {
        f"{epochs} epochs, prompt's learning rate {rate}, warm-up {warmup} steps": Row(
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
    return one_data_set(
        arg,
        "epochs",
        title="Epochs",
        question="Does a prompt that is trained for longer become worth it?",
        varied="train.epochs, train.prompt_learning_rate, train.warmup_steps",
        rows=rows,
    )
