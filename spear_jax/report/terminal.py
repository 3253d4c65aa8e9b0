"""Formats the table that a run prints at its end."""

from collections.abc import Mapping
from typing import Any

from spear_jax.config import METHODS, VIEWS
from spear_jax.data import SPLITS
from spear_jax.errors import plain
from spear_jax.report.labels import COLUMNS, NAMES, PRINTED, describe_readout, describe_rule, format_number

LEGEND = {
    "vus_pr": "VUS-PR: AUPR with partial credit near an anomaly, averaged over tolerances; mean over series",
    "vus_roc": "VUS-ROC: AUROC with the same partial credit",
    "event_f1": "event F1: recall counts anomaly intervals, precision counts steps; mean over series",
    "affiliation_f1": "affil. F1: distance in time between predictions and anomalies, relative to random predictions"
    " (which therefore score high)",
    "false_alarms": "false al.: alarms that overlap no anomaly, per 10,000 steps",
    "detection_delay": "delay: mean number of steps from the start of a detected anomaly to its first alarm",
}
"""Explanations of the columns that need one, by metric."""

_SIMPLER = {
    "logistic_regression": "reads the same inputs without a language model (method=logistic_regression)",
    "head_only": "has no prompt (prompt.length=0)",
    **{f"view_{name}": "reads no labels" for name in VIEWS},
    "rolling_zscore": "reads no labels",
    "bin_lookup": "knows single values alone",
}
"""Controls that could take the method's place, and what they do without."""


def results_table(content: Mapping[str, Any]) -> str:
    """Formats results.json as a table of six columns, with controls on the test split only."""

    def row(name: str, metrics: Mapping[str, Any]) -> str:
        return f"{name:22}" + "".join(f"{format_number(column, metrics.get(column)):>10}" for column in PRINTED)

    method = METHODS[content["method"]].title
    lines = ["", _headline(content), *(f"WARNING: {plain(warning)}" for warning in content["warnings"])]
    for split in SPLITS:
        sizes = content["splits"][split]
        rate = sizes["anomalous_steps"] / sizes["steps"]
        lines += [
            "",
            f"{split}: {sizes['series']} series, {sizes['steps']:,} steps, base rate {rate:.3f}",
            f"{'':22}" + "".join(f"{COLUMNS[column]:>10}" for column in PRINTED),
            row(method, content[split]),
        ]
        if "windows" in content:
            lines.append(row(f"{method}, per window", content["windows"][split]))
        if split == "test":
            lines += [row(NAMES[name], control[split]) for name, control in content["controls"].items()]
    if "nab_score" in content:
        lines += _nab_table(content["nab_score"], method)
    threshold = content["threshold"]
    return "\n".join(
        [
            *lines,
            "",
            *describe_readouts(content),
            f"threshold {threshold['value']:.4g} ({threshold['rule']}, chosen on {threshold['chosen_on']} data of"
            f" {threshold['from']}); '-' means undefined",
            *(LEGEND[column] for column in PRINTED if column in LEGEND),
            "more metrics, and the controls on all splits: report.html, results.json",
            *describe_preferred(content),
        ]
    )


def describe_alarms(content: Mapping[str, Any]) -> list[str]:
    """Describes the alarm rule of results.json in one line, if there is one."""
    if "alarms" not in content:
        return []
    rule = content["alarms"]
    return [f"alarms: {describe_rule(rule['merge_gap'], rule['min_length'], 'step')}"]


def describe_readouts(content: Mapping[str, Any]) -> list[str]:
    """Describes the readout of results.json, and what it changed, in one line, if it did anything."""
    # Earlier versions have none, or one without a level.
    readout = {"smoothing": 1, "distance_weight": 0.0, "level": 0.0, **content.get("readout", {})}
    described = describe_readout(readout["smoothing"], readout["distance_weight"], readout["level"])
    if not described:
        return []
    aupr = {name: format_number("aupr", value) for name, value in readout["validation_aupr"].items()}
    preset = f" (preset, not chosen: {readout['preset']})" if readout.get("preset") else ""
    return [
        f"readout: {described}{preset}; AUPR of validation series {aupr['with']} with it, {aupr['without']} without"
        " (mean)"
    ]


def describe_preferred(content: Mapping[str, Any]) -> list[str]:
    """Describes the control of results.json that validation prefers to the method, in one line, if there is one.

    AUPR over the steps of all validation series decides, as it does on the best epoch.
    """
    measured = {"": content, **{name: content["controls"].get(name, {}) for name in _SIMPLER}}
    aupr = {name: metrics["validation"]["aupr"] or 0.0 for name, metrics in measured.items() if metrics}
    best = max(aupr, key=aupr.__getitem__)
    if not best or aupr[best] <= aupr[""]:
        return []
    return [
        f"validation prefers {NAMES[best]}, which {_SIMPLER[best]}: AUPR {aupr[best]:.3f}, against {aupr['']:.3f} of"
        f" {METHODS[content['method']].title}"
    ]


def _headline(content: Mapping[str, Any]) -> str:
    parts = [content["dataset"], METHODS[content["method"]].title]
    if backbone := content["backbone"]:
        weights = "pretrained" if backbone["pretrained"] else "RANDOM WEIGHTS"
        parts.append(f"{backbone['name']} ({weights}, {backbone['dtype']})")
    if content["trained"]:
        size = f"{content['parameters']['trainable']:,} parameters"
        parts.append(f"trained: {' + '.join(content['trained'])}, {size}")
    return ", ".join(parts)


def _nab_table(scores: Mapping[str, Mapping[str, Mapping[str, float | None]]], method: str) -> list[str]:
    profiles = list(next(iter(scores.values())))
    lines = ["", f"{'NAB score, test':22}" + "".join(f"{profile:>15}" for profile in profiles)]
    for name, by_profile in scores.items():
        values = [by_profile[profile]["test"] for profile in profiles]
        cells = "".join(f"{'-' if value is None else format(value, '.1f'):>15}" for value in values)
        lines.append(f"{NAMES.get(name, method):22}{cells}")
    return lines
