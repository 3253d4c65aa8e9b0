"""Compares backbones under the same prompt and head.

python -m spear_jax.main --mode=study --config=configs/studies/backbones.py:nasa --workdir=runs/studies

Backbones whose weights are available are named after the data set: backbones.py:nasa,bert,gemma3-1b.
"""

from spear_jax.config import BACKBONES, variants
from spear_jax.studies import PROTOCOL, Row, Study, on_data_set


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random for the split; debug; words of `config.BACKBONES`."""
    words = variants(arg, (*PROTOCOL, "time", "random", "debug", *BACKBONES))
    data = next((name for name in PROTOCOL if name in words), "nasa")
    split = "".join(f",{word}" for word in ("time", "random") if word in words)
    named = ["minilm", *sorted(words & BACKBONES.keys() - {"minilm"})]
    rows = {word: Row(config=f"configs/{data}.py:{word}") for word in named if "debug" not in words}
    rows["random weights of minilm's shape, one draw"] = Row({"backbone.name": f"random:{BACKBONES['minilm']}"})
    rows["random:tiny, one draw"] = Row({"backbone.name": "random:tiny"})
    study = Study(
        name="backbones",
        title="Backbones",
        question="Which backbone should be frozen? The paper finds BERT above Gemma. Rows with random weights show what"
        " pretraining is worth.",
        varied="backbone",
        rows=rows,
        not_measured={
            word: "python -m spear_jax.main --mode=study"
            f" --config=configs/studies/backbones.py:{data}{split},{word} --workdir=runs/studies"
            for word in BACKBONES
            if word not in named
        },
    )
    return on_data_set(study, ",".join(sorted(words - BACKBONES.keys())))
