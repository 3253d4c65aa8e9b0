"""How a threshold that validation chose does on the test part.

python -m spear_jax.main --mode=study --config=configs/studies/thresholds.py:nasa --workdir=runs/studies
"""

from spear_jax import studies


def get_study(arg: str = "") -> studies.Study:
    """Arguments: nasa (default), nab or mimic_iv; time or random (splits); debug (random:tiny, minutes)."""
    return studies.one_data_set(
        arg,
        "thresholds",
        title="Threshold rules",
        question="AUROC and AUPR do not depend on it; F1 does.",
        varied="threshold.rule",
        rows=studies.grid(threshold__rule=("best_f1", "false_positive_rate", "precision")),
    )
