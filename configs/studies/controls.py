"""Compares SPEAR, at settings chosen on validation, with the controls that could refute it.

python -m spear_jax.main --mode=study --config=configs/studies/controls.py:mimic_iv --workdir=runs/studies
"""

from spear_jax.config import MINILM, TINY
from spear_jax.studies import PROTOCOL, Row, Study, on_data_set

# The best validation AUPR in the studies of learning rates, epochs and warm-up (mimic_iv), and of bins (nasa).
CHOSEN = {"mimic_iv": {"train.prompt_learning_rate": 3e-2}, "nasa": {"quantizer.bins": 200}}


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random for the split; debug (random:tiny, a few minutes)."""
    words = arg.split(",")
    data = next((name for name in PROTOCOL if name in words), "nasa")
    study = Study(
        name="controls",
        title="SPEAR against its controls",
        question="Does training the prompt pay? All rows have the same settings, those that SPEAR's validation split"
        " prefers, and five seeds. A control that does as well refutes the prompt.",
        varied="method",
        rows={
            "SPEAR": Row(),
            "head only (m = 0), by gradient descent": Row({"prompt.length": 0}),
            "random prompt, untrained": Row({"train.parts": "head", "prompt.init": "normal"}),
            "prompt of vocabulary rows, untrained": Row({"train.parts": "head"}),
            "random backbone (one draw)": Row({"backbone.name": TINY if "debug" in words else f"random:{MINILM}"}),
        },
        overrides=CHOSEN.get(data, {}),
        seeds=range(5),
        reference="SPEAR",
    )
    return on_data_set(study, arg)
