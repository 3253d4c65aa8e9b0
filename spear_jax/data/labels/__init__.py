"""Makes, adds and withholds labels: context rules, injected anomalies, T-SMOTE, ablations."""

from spear_jax.data.labels.ablations import keep_labelled_share, sample_normal_windows, shuffle_targets
from spear_jax.data.labels.context_rules import apply_rules
from spear_jax.data.labels.injection import draw_intervals, reflect
from spear_jax.data.labels.labelling import label_by_injection, label_by_rules, recut_stretches, relabelled_splits
from spear_jax.data.labels.tsmote import resample

__all__ = [
    "apply_rules",
    "draw_intervals",
    "keep_labelled_share",
    "label_by_injection",
    "label_by_rules",
    "recut_stretches",
    "reflect",
    "relabelled_splits",
    "resample",
    "sample_normal_windows",
    "shuffle_targets",
]
