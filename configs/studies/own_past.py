"""Compares methods on all folds: every series is tested once, by a detector that never saw it.

python -m spear_jax.main --mode=study --config=configs/studies/own_past.py:nasa81 --workdir=runs/studies
"""

from spear_jax.config import METHODS, MINILM, TINY
from spear_jax.studies import Row, Study, on_folds

SPEAR = "SPEAR, as in the paper"
BASELINES = (
    "lstm",
    "gradient_boosting",
    "logistic_regression",
    "nearest_neighbours",
    "isolation_forest",
    "sub_pca",
    "matrix_profile",
)


def get_study(arg: str = "") -> Study:
    """Arguments: nasa81 (default), nab58, mimic_iv or synthetic; debug (random:tiny, a few minutes)."""
    rows = {
        SPEAR: Row(),
        "control: head only (m = 0), by gradient descent": Row({"prompt.length": 0}),
        "control: random prompt, untrained": Row({"train.parts": "head", "prompt.init": "normal"}),
        "control: random backbone (one draw)": Row(
            {"backbone.name": TINY if "debug" in arg.split(",") else f"random:{MINILM}"}
        ),
    }
    for name in BASELINES:
        method = METHODS[name]
        rows[method.title + ("" if method.labels else " (no labels)")] = Row({"method": name})
    study = Study(
        name="own_past",
        title="All series, each tested once",
        question="Which detector is best on series that it never saw? A few test series cannot tell methods apart, so"
        " that all series are tested, in four folds.",
        varied="method",
        rows=rows,
        reference=SPEAR,
    )
    return on_folds(study, arg)
