"""How a threshold that validation chose does on the test part.

python -m spear_jax.main --mode=study --config=configs/studies/thresholds.py:nasa --workdir=runs/studies
"""

import dataclasses

from spear_jax.studies import Row, Study, one_data_set

RULES = {
    "best_f1": {},
    "false_positive_rate, .001": {"threshold.false_positive_rate": 0.001},
    "false_positive_rate, .01": {"threshold.false_positive_rate": 0.01},
    "false_positive_rate, .05": {"threshold.false_positive_rate": 0.05},
    "precision, .5": {"threshold.precision": 0.5},
    "precision, .9": {"threshold.precision": 0.9},
}


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; debug (random:tiny, minutes)."""
    study = one_data_set(
        arg,
        "thresholds",
        title="Threshold rules",
        question="The same detectors, with thresholds that different rules choose on validation.",
        varied="threshold.rule",
        rows={},
        metrics=("precision", "recall", "f1", "event_f1"),
    )
    trained = Row(study.base)
    of_data = {name: value for name, value in study.base.items() if name in ("data.limit_series", "data.split")}
    rows = {
        name: Row(
            {**of_data, "threshold.reuse": False, "threshold.rule": name.partition(",")[0], **fields},
            source=trained,
            evaluate=True,
        )
        for name, fields in RULES.items()
    }
    return dataclasses.replace(study, base={}, rows=rows)
