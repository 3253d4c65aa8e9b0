"""Compares methods on all folds: every series is tested once, by a detector that never saw it.

python -m spear_jax.main --mode=study --config=configs/studies/own_past.py:nasa81 --workdir=runs/studies
"""

from spear_jax.config import METHODS, MINILM, OWN_PAST, TINY
from spear_jax.studies import Row, Study, on_folds

PAPER = "SPEAR, as in the paper"
BEST = "SPEAR, views of the past, 4 steps a position, readout"
VIEWS = {"quantizer.views": OWN_PAST, "embedding.kind": "ordinal"}
LONG = {"data.window": 512, "data.stride": 128, "quantizer.patch": 4, "train.epochs": 10, "train.decay_steps": 700}
READOUT = {"score.smoothing": 0, "score.distance_weight": -1.0, "score.level": -1.0}
SAME = {**VIEWS, **LONG, **READOUT}
EACH_STEP = {"quantizer.patch": 1}  # for methods whose cost does not grow with the window
LABEL_FREE = ("nearest_neighbours", "isolation_forest", "sub_pca", "matrix_profile")


def get_study(arg: str = "") -> Study:
    """Arguments: nasa81 (default), nab58, mimic_iv or synthetic; debug (random:tiny, a few minutes)."""
    random_backbone = TINY if "debug" in arg.split(",") else f"random:{MINILM}"
    rows = {
        PAPER: Row(),
        "control of it: head only (m = 0), by gradient descent": Row({"prompt.length": 0}),
        "control of it: random prompt, untrained": Row({"train.parts": "head", "prompt.init": "normal"}),
        "control of it: random backbone (one draw)": Row({"backbone.name": random_backbone}),
        "SPEAR, views of the past": Row(VIEWS),
        "SPEAR, views of the past, 4 steps a position": Row({**VIEWS, **LONG}),
        BEST: Row(SAME),
        "control: head only (m = 0), by gradient descent": Row({**SAME, "prompt.length": 0}),
        "control: random prompt, untrained": Row({**SAME, "train.parts": "head", "prompt.init": "normal"}),
        "control: random backbone (one draw)": Row({**SAME, "backbone.name": random_backbone}),
        "LSTM, values alone, same readout": Row({**SAME, **EACH_STEP, "method": "lstm"}),
        "gradient boosting, same views and readout": Row({**SAME, **EACH_STEP, "method": "gradient_boosting"}),
        "logistic regression, same views and readout": Row({**SAME, **EACH_STEP, "method": "logistic_regression"}),
    }
    rows |= {f"{METHODS[name].title} (no labels)": Row({"method": name}) for name in LABEL_FREE}
    study = Study(
        name="own_past",
        title="All series, each tested once",
        question="Which detector is best on series that it never saw? A few test series cannot tell methods apart, so"
        " that all series are tested, in four folds.",
        varied="method",
        rows=rows,
        reference=BEST,
    )
    return on_folds(study, arg)
