"""Compares prompt initializations and learning rates.

python -m spear_jax.main --mode=study --config=configs/studies/learning_rate.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Study, grid, on_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random for the split; debug (random:tiny, a few minutes)."""
    study = Study(
        name="learning_rate",
        title="Prompt initialization and learning rate",
        question="Which learning rate does a prompt need? Prompts want far higher ones than fine-tuning does, and the"
        " best one may depend on the initialization.",
        varied="prompt.init, train.prompt_learning_rate",
        rows=grid(
            prompt__init=("vocabulary", "words", "normal", "uniform"),
            train__prompt_learning_rate=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
        ),
    )
    return on_data_set(study, arg)
