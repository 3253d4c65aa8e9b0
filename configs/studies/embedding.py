"""Compares the kinds of bin embeddings.

python -m spear_jax.main --mode=study --config=configs/studies/embedding.py:nasa --workdir=runs/studies
"""

from spear_jax.studies import Study, grid, on_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random for the split; debug (random:tiny, a few minutes)."""
    study = Study(
        name="embedding",
        title="Bin embeddings",
        question="Where should the vectors of the bins come from? All kinds but `trained` stay frozen, as in"
        " the paper.",
        varied="embedding.kind",
        rows=grid(embedding__kind=("numbers", "spread", "consecutive", "random", "ordinal", "trained")),
    )
    return on_data_set(study, arg)
