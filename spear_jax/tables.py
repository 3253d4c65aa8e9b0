"""results.json as a table for the terminal, and what methods and metrics are called in all tables."""

from collections.abc import Mapping
from typing import Any

from spear_jax.data.splits import SPLITS

NAMES = {
    "random_scores": "random scores",
    "always_normal": "always normal",
    "bin_lookup": "bin lookup",
    "rolling_zscore": "rolling z-score",
    "head_only": "head only (m = 0)",
}
METHODS = {
    "spear": "SPEAR",
    "lstm": "LSTM, both ways",
    "lstm_causal": "LSTM, causal",
    "fine_tuning": "fine-tuning",
    "lora": "LoRA",
    "isolation_forest": "isolation forest",
    "nearest_neighbours": "1-nearest neighbour",
    "matrix_profile": "matrix profile",
    "sub_pca": "sub-PCA",
    "logistic_regression": "logistic regression",
    "gradient_boosting": "gradient boosting",
    "zero_shot_masked": "zero-shot, masked",
    "zero_shot_yes_no": "zero-shot, yes/no",
    "zero_shot_surprise": "zero-shot, surprise",
    "zero_shot_api": "zero-shot, API",
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


def shown(column: str, value: float | None) -> str:
    """A metric as tables show it; '-' where it is undefined."""
    return "-" if value is None else format(value, DIGITS.get(column, ".3f"))


def explained(content: Mapping[str, Any]) -> list[str]:
    """What the columns of intervals mean, and which alarms were counted, a line each.

    Args:
      content: of results.json.
    """
    said = [
        "VUS-PR, VUS-ROC: AUPR and AUROC that count steps near an anomaly in part, averaged over how near; affil. F1:"
        " nearness in time of predictions and anomalies, against that of random times (random scores get much of it)"
    ]
    if "alarms" in content:
        rule = content["alarms"]
        said.append(
            f"alarms: gaps of up to {rule['merge_gap']} steps are closed, alarms of fewer than {rule['min_length']}"
            " dropped; false al.: alarms that touch no anomaly, per 10,000 steps; delay: mean steps until an anomaly"
            " that is found is noticed"
        )
    return said


def table(content: Mapping[str, Any]) -> str:
    """The table that a run ends with, from results.json."""

    def cells(metrics: Mapping[str, Any]) -> str:
        return "".join(f"{shown(column, metrics.get(column)):>10}" for column in COLUMNS)

    backbone, method = content["backbone"], METHODS[content["method"]]
    weights = "pretrained" if backbone.get("pretrained") else "RANDOM WEIGHTS"
    on = f", {backbone['name']} ({weights}, {backbone['dtype']})" if backbone else ""
    trained = ""
    if content["trained"]:
        trained = f", trained: {' + '.join(content['trained'])}, {content['parameters']['trainable']:,} numbers"
    lines = [
        "",
        f"{content['dataset']}, {method}{on}{trained}",
    ]
    lines += [f"WARNING: {warning}" for warning in content["warnings"]]
    for split in SPLITS:
        sizes = content["splits"][split]
        rate = sizes["anomalous_steps"] / sizes["steps"]
        lines += [
            "",
            f"{split}: {sizes['series']} series, {sizes['steps']:,} steps, base rate {rate:.3f}",
            f"{'':20}" + "".join(f"{column:>10}" for column in COLUMNS.values()),
            f"{method:20}" + cells(content[split]),
        ]
        if "windows" in content:
            lines.append(f"{method + ', per window':20}" + cells(content["windows"][split]))
        lines += [f"{NAMES[name]:20}" + cells(control[split]) for name, control in content["controls"].items()]
    if "nab_score" in content:
        lines += _nab_table(content["nab_score"], method)
    threshold = content["threshold"]
    lines += [
        "",
        f"threshold {threshold['value']:.4g} ({threshold['rule']}, chosen on {threshold['chosen_on']} of"
        f" {threshold['from']}); a '-' is undefined",
        *explained(content),
    ]
    return "\n".join(lines)


def _nab_table(scores: Mapping[str, Mapping[str, Mapping[str, float | None]]], method: str) -> list[str]:
    profiles = list(next(iter(scores.values())))
    lines = ["", f"{'NAB score, test':20}" + "".join(f"{profile:>15}" for profile in profiles)]
    for name, of_profile in scores.items():
        values = [of_profile[profile]["test"] for profile in profiles]
        cells = "".join(f"{'-' if value is None else format(value, '.1f'):>15}" for value in values)
        lines.append(f"{NAMES.get(name, method):20}{cells}")
    return lines
