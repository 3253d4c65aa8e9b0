"""Compares a head per step with a head per window, and two initializations of it.

python -m spear_jax.main --mode=study --config=configs/studies/head.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Study, grid, on_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random for the split; debug (random:tiny, a few minutes)."""
    study = Study(
        name="head",
        title="Head",
        question="Should the head score steps or windows, and where should it start? The other studies have a head per"
        " step that starts from its optimum without a prompt (`step, fitted`).",
        varied="head.kind, head.init",
        rows=grid(head__kind=("step", "window"), head__init=("fitted", "normal")),
    )
    return on_data_set(study, arg)
