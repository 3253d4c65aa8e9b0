"""What the head reads and where it starts.

python -m spear_jax.main --mode=study --config=configs/studies/head.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Study, grid, one_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random (splits); debug (random:tiny, minutes)."""
    return one_data_set(
        arg,
        "head",
        title="Head",
        question="A head per step from its optimum is what the other studies have.",
        varied="head.kind, head.init",
        rows=grid(head__kind=("step", "window"), head__init=("fitted", "normal")),
    )
