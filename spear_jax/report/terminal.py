"""What a run says before it begins: backbone, what is trained, the data and the devices."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.backbones import Backbone
from spear_jax.config import METHODS
from spear_jax.data import SPLITS, Dataset, stitch
from spear_jax.model import PlacedModel, count
from spear_jax.report.labels import COLUMNS, NAMES, format_number, shortened


def introduce(config: ConfigDict, dataset: Dataset, backbone: Backbone | None, model: PlacedModel | None) -> None:
    """Says what is about to be trained, on what.

    Args:
      config: a whole config.
      dataset: that is trained on.
      backbone: None for a method that has none.
      model: None for a method without a model of ours.
    """
    if backbone is not None:
        weights = f"pretrained, sha256 {backbone.sha256[:12]}" if backbone.pretrained else "RANDOM WEIGHTS"
        held = backbone.dtype if backbone.int8 == "none" else f"{backbone.dtype}, int8 by {backbone.int8}"
        attention = "causal" if backbone.causal else "bidirectional"
        fate = {"fine_tuning": "all weights are trained", "lora": "frozen but for low-rank additions"}
        parallel.say(f"backbone {backbone.name} ({weights}, {held}, {attention}): {fate.get(config.method, 'frozen')}")
    if model is None:
        parallel.say(f"{METHODS[config.method].title}: nothing is trained step by step")
    else:
        parallel.say(
            f"trained: {' + '.join(f'{name} {count(part):,}' for name, part in sorted(model.trainable.items()))}"
            f" = {count(model.trainable):,} numbers"
        )
        if model.embedding:
            parallel.say(f"bins' vectors: {bins_explained(model.embedding, 'embedding' in model.trainable)}")
    for line in divided(dataset):
        parallel.say(line)
    for line in explain(dataset.notes):
        parallel.say(line)
    for warning in dataset.warnings:
        parallel.say(f"WARNING: {warning}")
    parallel.say(f"devices: {jax.device_count()} x {jax.devices()[0].device_kind}")


def bins_explained(notes: Mapping[str, Any], trained: bool) -> str:
    """Where the bins' vectors come from, in words.

    Args:
      notes: see `embedding.bin_table`.
      trained: they are trained with the prompt.
    """
    kind = notes["kind"]
    tokens = shortened(notes.get("tokens", ()))  # results.json lists them all
    if kind == "numbers":
        several = notes["numbers_of_several_tokens"]
        what = f"the vocabulary's rows of the numbers {tokens}"
        what += f" ({several} of them of several tokens, whose rows are averaged)" if several else ""
    elif kind == "spread":
        what = f"rows at even distances over the vocabulary, {tokens}"
    elif kind == "consecutive":
        what = f"rows of the vocabulary from number {notes['first_row']} on, {tokens}"
    elif kind == "random":
        what = "random, with the vocabulary's mean and deviation"
    else:
        what = f"smooth in the bin's value (length scale {notes['length_scale']:g})"
    fate = "trained from there" if trained else "frozen"
    return f"{what}; {fate}; a missing value has the row of {notes['missing']}"


def explain(notes: Mapping[str, Any]) -> list[str]:
    """What was done to labels and windows, one line each."""
    said = []
    for split, shares in notes["labels"].get("fired", {}).items():
        rules = ", ".join(f"{rule} {share:.1%}" for rule, share in shares.items() if rule != "windows")
        said.append(
            f"rules fired in {shares['windows']:.1%} of {split} windows ({rules}); on autocorrelated data they do so"
            " often"
        )
    if "tsmote" in notes:
        about = notes["tsmote"]
        if "skipped" in about:
            said.append(f"T-SMOTE: nothing synthesized: {about['skipped']}")
        else:
            said.append(
                f"T-SMOTE: {about['synthesized']} windows synthesized from {about['samples']} anomalies up to"
                f" {about['last_lead']} steps before their end; {about['drawn']} positive windows drawn"
                f" ({about['drawn_synthetic']} of them synthetic) beside {about['normal_windows']} normal ones"
            )
    return said


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


def results_table(content: Mapping[str, Any]) -> str:
    """The table that a run ends with, from results.json."""

    def cells(metrics: Mapping[str, Any]) -> str:
        return "".join(f"{format_number(column, metrics.get(column)):>10}" for column in COLUMNS)

    backbone, method = content["backbone"], METHODS[content["method"]].title
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


def divided(dataset: Dataset) -> list[str]:
    """How the series are divided, a line for each split."""
    said = []
    for split, part in dataset.windows.items():
        steps = stitch(part, np.zeros(part.real.shape), dataset.recorded)  # each once, where windows overlap
        lengths = sorted(set(dataset.examples[split].lengths.tolist()))
        said.append(
            f"{split:>10}: {len(set(part.series.tolist()))} series, {len(part)} windows of"
            f" {' or '.join(map(str, lengths))}, {len(steps.step):,} steps,"
            f" base rate {steps.label.mean():.3f}"
        )
    return said
