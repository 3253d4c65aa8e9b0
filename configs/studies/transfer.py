"""Trained on one data set, tested on another: all pairs of NASA, NAB, the MIMIC-IV demo and generated telemetry.

python -m spear_jax.main --mode=study --config=configs/studies/transfer.py --workdir=runs/studies
"""

import itertools

from spear_jax.config import variants
from spear_jax.studies import DEBUG, PROTOCOL, SEEDS, Row, Study

SYNTHETIC = {
    **PROTOCOL["nab"],
    # As configs/nasa.py has it, so that all four differ in their data alone.
    "data.synthetic.series": 60,
    "data.window": 128,
    "data.stride": 128,
    "data.fractions": (0.6, 0.2, 0.2),
    "quantizer.margin": 0.25,
    "embedding.kind": "numbers",
    "head.init": "fitted",
    "train.head_learning_rate": 1e-3,
}
OF_SYNTHETIC = ("data.synthetic.series", "data.fractions")
FULL = {**PROTOCOL, "synthetic": SYNTHETIC}


def get_study(arg: str = "") -> Study:
    """Arguments: debug (random:tiny, two data sets, minutes)."""
    debug = "debug" in variants(arg, ("debug",))
    data = {"nasa": DEBUG, "synthetic": {**SYNTHETIC, **DEBUG}} if debug else FULL
    word = "debug" if debug else "minilm"
    files = {name: f"configs/{name}.py:{word}" for name in PROTOCOL}
    files["synthetic"] = "configs/quickstart.py:" + ("debug" if debug else "frozen")

    kept = "prompt and head, threshold carried over"
    anew = "prompt and head, threshold chosen anew"
    prompt = "prompt alone, head trained anew"
    rows = {
        name: Row(fields, files[name], cells=((kept, name, name), (anew, name, name))) for name, fields in data.items()
    }
    for name, fields in data.items():
        alone = {**fields, "train.parts": "head"}
        rows |= {
            f"{name} to {name}: {prompt}": Row(alone, files[name], rows[name], False, ((prompt, name, name),)),
            f"no prompt's training, {name}": Row(alone, files[name], cells=((prompt, "prompt not trained", name),)),
        }
    for source, target in itertools.permutations(data, 2):
        # What a detector carries is not given again.
        of_data = {name: value for name, value in data[target].items() if name in ("data.limit_series", *OF_SYNTHETIC)}
        of_data["controls.head_only"] = False
        detector, file, cell = rows[source], files[target], (source, target)
        rows |= {
            f"{source} to {target}: {kept}": Row(of_data, file, detector, True, ((kept, *cell),)),
            f"{source} to {target}: {anew}": Row(
                {**of_data, "threshold.reuse": False}, file, detector, True, ((anew, *cell),)
            ),
            f"{source} to {target}: {prompt}": Row(
                {**data[target], "train.parts": "head"}, file, detector, False, ((prompt, *cell),)
            ),
        }
    return Study(
        name="transfer-debug" if debug else "transfer",
        title="Transfer, debug: random weights" if debug else "Transfer",
        question="Is what a prompt learned on one data set of use on another? .5 is chance in the matrices of AUROC.",
        config=files["nasa"],
        base={},
        varied="detector",
        rows=rows,
        seeds=SEEDS[:1] if debug else SEEDS,
        # Ranking metrics do not depend on the threshold.
        matrices={kept: ("auroc", "aupr", "f1"), anew: ("f1",), prompt: ("auroc", "aupr", "f1")},
    )
