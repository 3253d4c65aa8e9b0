"""What a run says before it begins: backbone, what is trained, the data and the devices."""

from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from spear_jax import parallel, preview, tables
from spear_jax.backbones.backbone import Backbone
from spear_jax.data.dataset import Dataset
from spear_jax.model import Assembled, count


def introduce(config: ConfigDict, dataset: Dataset, backbone: Backbone | None, model: Assembled | None) -> None:
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
        parallel.say(f"{tables.METHODS[config.method]}: nothing is trained step by step")
    else:
        parallel.say(
            f"trained: {' + '.join(f'{name} {count(part):,}' for name, part in sorted(model.trainable.items()))}"
            f" = {count(model.trainable):,} numbers"
        )
        if model.embedding:
            parallel.say(f"bins' vectors: {bins_explained(model.embedding, 'embedding' in model.trainable)}")
    for line in preview.divided(dataset):
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
    tokens = preview.shortened(notes.get("tokens", ()))  # results.json lists them all
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
