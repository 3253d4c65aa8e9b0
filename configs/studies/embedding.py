"""Where the bins' vectors come from.

python -m spear_jax.main --mode=study --config=configs/studies/embedding.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Study, grid, one_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random (splits); debug (random:tiny, minutes)."""
    return one_data_set(
        arg,
        "embedding",
        title="Bin embeddings",
        question="All but the last stay frozen, as in the paper.",
        varied="embedding.kind",
        rows=grid(embedding__kind=("numbers", "spread", "consecutive", "random", "ordinal", "trained")),
    )
