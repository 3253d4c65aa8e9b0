"""What a prompt starts from, and how fast it learns: a prompt that moves too slowly is no prompt.

python -m spear_jax.main --mode=study --config=configs/studies/learning_rate.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Study, grid, one_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random (splits); debug (random:tiny, minutes)."""
    return one_data_set(
        arg,
        "learning_rate",
        title="Prompt init and learning rate",
        question="Prompts want learning rates far above those of fine-tuning; which one depends on where they start.",
        varied="prompt.init, train.prompt_learning_rate",
        rows=grid(
            prompt__init=("vocabulary", "words", "normal", "uniform"),
            train__prompt_learning_rate=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
        ),
    )
