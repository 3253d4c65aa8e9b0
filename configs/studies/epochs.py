"""How long a prompt is trained: the paper has 40 epochs, the other studies 5.

python -m spear_jax.main --mode=study --config=configs/studies/epochs.py:mimic_iv --workdir=runs/studies
"""

from spear_jax import studies

STEPS_PER_EPOCH = 30  # of the learning rates' decay, as in the protocol: 150 for 5 epochs


def get_study(arg: str = "") -> studies.Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random (splits); debug (random:tiny, minutes)."""
    rows = {
        f"{epochs} epochs, prompt's learning rate {rate}": studies.Row(
            {
                "train.epochs": epochs,
                "train.decay_steps": STEPS_PER_EPOCH * epochs,
                "train.prompt_learning_rate": rate,
            }
        )
        for epochs, rate in ((5, 3e-3), (20, 3e-3), (5, 3e-2), (20, 3e-2), (40, 3e-2))
    }
    return studies.one_data_set(
        arg,
        "epochs",
        title="Epochs",
        question="Does a prompt that is trained for longer become worth it?",
        varied="train.epochs, train.prompt_learning_rate",
        rows=rows,
    )
