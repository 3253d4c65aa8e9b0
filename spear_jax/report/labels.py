"""Names and formats controls and metrics in tables and figures."""

from collections.abc import Sequence

from spear_jax.config import VIEWS
from spear_jax.errors import plain


def shortened(tokens: Sequence[str | Sequence[str]]) -> str:
    """Abbreviates a list to its first three tokens and its last; joins the tokens of one number with a plus sign."""
    words = [token if isinstance(token, str) else "+".join(token) for token in tokens]
    return " ".join(map(plain, words if len(words) <= 4 else [*words[:3], "...", words[-1]]))


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, in the plural unless it is 1."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def describe_rule(merge_gap: int, min_length: int, unit: str) -> str:
    """Describes which alarms are merged and dropped; `unit` is 'step' or 'row'."""
    if not merge_gap and min_length <= 1:
        return "none merged, none dropped"
    gaps = f"gaps of up to {merge_gap} {unit}{'s' if merge_gap > 1 else ''} closed" if merge_gap else "none merged"
    return f"{gaps}, {f'alarms of fewer than {min_length} {unit}s dropped' if min_length > 1 else 'none dropped'}"


def describe_readout(smoothing: int, distance_weight: float, level: float) -> str:
    """Describes what a readout does to scores; '' if it does nothing."""
    parts = [f"distance to the past added with weight {distance_weight:g}"] if distance_weight else []
    parts += [f"moving average of {smoothing} steps"] if smoothing > 1 else []
    parts += [f"{'' if level == 1 else f'{level:g} of '}the series' level so far taken off"] if level else []
    return ", ".join(parts)


NAMES = {
    "random_scores": "random scores",
    "always_normal": "always normal",
    "bin_lookup": "bin lookup",
    "rolling_zscore": "rolling z-score",
    "model_alone": "model, no readout",
    "head_only": "head only (m = 0)",
    "logistic_regression": "logistic regression",
    **{f"view_{name}": f"view {name}" for name in VIEWS},
}

COLUMNS = {
    "auroc": "AUROC",
    "aupr": "AUPR",
    "vus_pr": "VUS-PR",
    "vus_roc": "VUS-ROC",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
    "range_f1": "range F1",
    "event_f1": "event F1",
    "affiliation_f1": "affil. F1",
    "false_alarms": "false al.",
    "detection_delay": "delay",
}

# The columns of the table that a run prints.
PRINTED = ("auroc", "aupr", "vus_pr", "f1", "event_f1")

# Point-wise metrics; the others are interval metrics.
STEPWISE = ("auroc", "aupr", "f1", "precision", "recall", "accuracy")

# False alarms per 10,000 steps; mean steps from the start of a detected anomaly to its first alarm.
DIGITS = {"false_alarms": ".1f", "detection_delay": ".1f"}


def format_number(column: str, value: float | None) -> str:
    """Formats a metric for a table; '-' if it is undefined."""
    return "-" if value is None else format(value, DIGITS.get(column, ".3f"))
