"""SPEAR at settings that validation chose, beside the controls that could refute it: does the trained prompt pay?

python -m spear_jax.main --mode=study --config=configs/studies/controls.py:mimic_iv --workdir=runs/studies
"""

import dataclasses

from spear_jax.config import MINILM, TINY
from spear_jax.studies import PROTOCOL, Row, Study, one_data_set

# What had the best validation AUPR in the studies of learning rates, epochs and warm-up (mimic_iv), and of bins (nasa).
CHOSEN = {"mimic_iv": {"train.prompt_learning_rate": 3e-2}, "nasa": {"quantizer.bins": 200}}


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random (splits); debug (random:tiny, minutes)."""
    words = arg.split(",")
    data = next((name for name in PROTOCOL if name in words), "nasa")
    study = one_data_set(
        arg,
        "controls",
        title="SPEAR and its controls, settings chosen on validation",
        question="The same settings in every row, and five seeds: a control that is as good refutes the prompt.",
        varied="method",
        rows={
            "SPEAR": Row(),
            "head only (m = 0), by gradient descent": Row({"prompt.length": 0}),
            "random prompt, not trained": Row({"train.parts": "head", "prompt.init": "normal"}),
            "vocabulary rows as prompt, not trained": Row({"train.parts": "head"}),
            "random backbone (one draw)": Row({"backbone.name": TINY if "debug" in words else f"random:{MINILM}"}),
        },
        base=CHOSEN.get(data, {}),
        reference="SPEAR",
    )
    return study if "debug" in words else dataclasses.replace(study, seeds=range(5))
