"""Compares the rules that choose a threshold on validation.

python -m spear_jax.main --mode=study --config=configs/studies/thresholds.py:nasa --workdir=runs/studies
"""

import dataclasses

from spear_jax.studies import Row, Study, on_data_set

RULES = {
    "best_f1": {},
    "false_positive_rate, .001": {"threshold.false_positive_rate": 0.001},
    "false_positive_rate, .01": {"threshold.false_positive_rate": 0.01},
    "false_positive_rate, .05": {"threshold.false_positive_rate": 0.05},
    "precision, .5": {"threshold.precision": 0.5},
    "precision, .9": {"threshold.precision": 0.9},
}


def get_study(arg: str = "") -> Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random for the split; debug (random:tiny, a few minutes)."""
    study = Study(
        name="thresholds",
        title="Threshold rules",
        question="What do thresholds chosen on validation deliver on the test split? The rows share their detectors.",
        varied="threshold.rule",
        rows={},
        metrics=("precision", "recall", "f1", "event_f1"),
    )
    study = on_data_set(study, arg)
    trained = Row(study.overrides)
    # A detector carries all other fields of the protocol.
    data = {field: study.overrides[field] for field in ("data.limit_series", "data.split") if field in study.overrides}
    rows = {
        label: Row(
            {**data, "threshold.reuse": False, "threshold.rule": label.partition(",")[0], **overrides},
            source=trained,
            evaluate=True,
        )
        for label, overrides in RULES.items()
    }
    return dataclasses.replace(study, overrides={}, rows=rows)
