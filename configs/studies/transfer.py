"""Trains on one data set and tests on another: all pairs of NASA, NAB, the MIMIC-IV demo and generated telemetry.

python -m spear_jax.main --mode=study --config=configs/studies/transfer.py --workdir=runs/studies
"""

import itertools

from spear_jax.config import variants
from spear_jax.studies import DEBUG, PROTOCOL, SEEDS, Row, Study

SYNTHETIC = {
    **PROTOCOL["nab"],
    # The values of configs/nasa.py, so that the four differ in their data alone.
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

KEPT = "prompt and head, threshold carried over"
ANEW = "prompt and head, threshold chosen anew"
PROMPT = "prompt alone, head trained anew"


def get_study(arg: str = "") -> Study:
    """Arguments: debug (random:tiny, two data sets, a few minutes)."""
    debug = "debug" in variants(arg, ("debug",))
    data = {"nasa": DEBUG, "synthetic": {**SYNTHETIC, **DEBUG}} if debug else FULL
    word = "debug" if debug else "minilm"
    files = {name: f"configs/{name}.py:{word}" for name in PROTOCOL}
    files["synthetic"] = "configs/quickstart.py:" + ("debug" if debug else "frozen")

    own = {
        name: Row(overrides, files[name], cells=((KEPT, name, name), (ANEW, name, name)))
        for name, overrides in data.items()
    }
    new_head = {name: {**overrides, "train.parts": "head"} for name, overrides in data.items()}
    rows = own | {
        f"{name} to {name}: {PROMPT}": Row(overrides, files[name], own[name], cells=((PROMPT, name, name),))
        for name, overrides in new_head.items()
    }
    for source, target in itertools.permutations(data, 2):
        # The detector carries all other fields.
        own_data = {
            field: value for field, value in data[target].items() if field in ("data.limit_series", *OF_SYNTHETIC)
        }
        own_data["controls.head_only"] = False
        detector, file, cell = own[source], files[target], (source, target)
        rows |= {
            f"{source} to {target}: {KEPT}": Row(own_data, file, detector, True, ((KEPT, *cell),)),
            f"{source} to {target}: {ANEW}": Row(
                {**own_data, "threshold.reuse": False}, file, detector, True, ((ANEW, *cell),)
            ),
            f"{source} to {target}: {PROMPT}": Row(new_head[target], file, detector, cells=((PROMPT, *cell),)),
        }
    rows |= {
        f"untrained prompt, {name}": Row(overrides, files[name], cells=((PROMPT, "untrained prompt", name),))
        for name, overrides in new_head.items()
    }
    return Study(
        name="transfer-debug" if debug else "transfer",
        title="Transfer",
        question="Is what a prompt learned on one data set of use on another?",
        varied="detector",
        rows=rows,
        config=files["nasa"],
        seeds=SEEDS[:1] if debug else SEEDS,
        variant="debug: random weights" if debug else "",
        # Ranking metrics do not depend on the threshold.
        matrices={KEPT: ("auroc", "aupr", "f1"), ANEW: ("f1",), PROMPT: ("auroc", "aupr", "f1")},
    )
