"""Names metrics and controls as tables and pictures show them."""

from collections.abc import Sequence


def shortened(tokens: Sequence[str | Sequence[str]]) -> str:
    """The first three tokens and the last; those of one number side by side."""
    words = [one if isinstance(one, str) else "+".join(one) for one in tokens]
    return " ".join(words if len(words) <= 4 else [*words[:3], "...", words[-1]])


NAMES = {
    "random_scores": "random scores",
    "always_normal": "always normal",
    "bin_lookup": "bin lookup",
    "rolling_zscore": "rolling z-score",
    "head_only": "head only (m = 0)",
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


# Of single steps; the other columns are of intervals.
STEPWISE = ("auroc", "aupr", "f1", "precision", "recall", "accuracy")


# Alarms that touch no anomaly, per 10 000 steps; mean steps from the start of an anomaly that is found to its alarm.
DIGITS = {"false_alarms": ".1f", "detection_delay": ".1f"}


def format_number(column: str, value: float | None) -> str:
    """A metric as tables show it; '-' where it is undefined."""
    return "-" if value is None else format(value, DIGITS.get(column, ".3f"))
