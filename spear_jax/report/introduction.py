"""Prints what a run is about to do: backbone, trainable parts, data and devices."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.config import METHODS
from spear_jax.data import Dataset, stitch
from spear_jax.evaluation import RunRecord
from spear_jax.model import PlacedModel, count_parameters
from spear_jax.report.labels import shortened

_WEIGHTS = {"frozen": "frozen", "trained": "all weights trained", "adapted": "frozen except for low-rank updates"}


def introduce(config: ConfigDict, dataset: Dataset, record: RunRecord, model: PlacedModel | None) -> None:
    """Prints the parts that will be trained, and the data."""
    if backbone := record.backbone:
        weights = f"pretrained, sha256 {backbone['sha256'][:12]}" if backbone["pretrained"] else "RANDOM WEIGHTS"
        dtype = backbone["dtype"] if backbone["int8"] == "none" else f"{backbone['dtype']}, int8 by {backbone['int8']}"
        treatment = _WEIGHTS[METHODS[config.method].backbone]
        parallel.say(f"backbone {backbone['name']} ({weights}, {dtype}, {backbone['attention']}): {treatment}")
    if model is None:
        parallel.say(f"{METHODS[config.method].title}: not trained step by step")
    else:
        sizes = " + ".join(f"{name} {count_parameters(part):,}" for name, part in sorted(model.trainable.items()))
        parallel.say(f"trained: {sizes} = {count_parameters(model.trainable):,} parameters")
        if model.embedding:
            parallel.say(f"bin embeddings: {describe_embedding(model.embedding, 'embedding' in model.trainable)}")
    for line in (*describe_splits(dataset), *describe_notes(record.notes)):
        parallel.say(line)
    for warning in record.warnings:
        parallel.warn(warning)
    parallel.say(f"devices: {jax.device_count()} x {jax.devices()[0].device_kind}")


def describe_embedding(notes: Mapping[str, Any], trained: bool) -> str:
    """Describes the origin of the bin embeddings."""
    kind = notes["kind"]
    tokens = shortened(notes.get("tokens", ()))  # results.json has all of them
    if kind == "numbers":
        averaged = notes["numbers_of_several_tokens"]
        origin = f"vocabulary rows of the numbers {tokens}"
        origin += f" ({averaged} of them the mean of several tokens)" if averaged else ""
    elif kind == "spread":
        origin = f"evenly spaced vocabulary rows, {tokens}"
    elif kind == "consecutive":
        origin = f"consecutive vocabulary rows from number {notes['first_row']}, {tokens}"
    elif kind == "random":
        origin = "random, with the mean and standard deviation of the vocabulary"
    else:
        origin = f"a smooth function of the bin (length scale {notes['length_scale']:g})"
    treatment = "trained from there" if trained else "frozen"
    return f"{origin}; {treatment}; missing values use the row of {notes['missing']}"


def describe_notes(notes: Mapping[str, Any]) -> list[str]:
    """Describes which fold is tested, how labels were made and windows left out or synthesized, one line each."""
    lines = []
    if fold := notes.get("fold"):
        lines.append(f"fold {fold['number']} of {fold['of']} (0 to {fold['of'] - 1}) is the test split")
    if normal := notes.get("normal_windows"):
        lines.append(
            f"train.normal_windows: training uses {normal['kept']:,} of {normal['of']:,} windows without an anomaly,"
            " spread evenly over the series"
        )
    for split, shares in notes["labels"].get("fired", {}).items():
        rules = ", ".join(f"{rule} {share:.1%}" for rule, share in shares.items() if rule != "windows")
        lines.append(
            f"rules fired in {shares['windows']:.1%} of {split} windows ({rules}); they often do on autocorrelated data"
        )
    if "tsmote" in notes:
        tsmote = notes["tsmote"]
        if "skipped" in tsmote:
            lines.append(f"T-SMOTE: no windows synthesized: {tsmote['skipped']}")
        else:
            lines.append(
                f"T-SMOTE: {tsmote['synthesized']} windows synthesized from {tsmote['samples']} anomalies, up to"
                f" {tsmote['last_lead']} steps before their end; trained on {tsmote['drawn']} anomalous windows"
                f" ({tsmote['drawn_synthetic']} synthetic) and {tsmote['normal_windows']} normal ones"
            )
    return lines


def describe_splits(dataset: Dataset) -> list[str]:
    """Describes the size and base rate of each split, one line each."""
    lines = []
    for split, windows in dataset.windows.items():
        # Stitched, so that a step in several overlapping windows counts once.
        steps = stitch(windows, np.zeros(windows.real.shape), dataset.recorded)
        lengths = sorted(set(dataset.examples[split].lengths.tolist()))
        lines.append(
            f"{split:>10}: {len(set(windows.series.tolist()))} series, {len(windows):,} windows of"
            f" {' or '.join(map(str, lengths))}, {len(steps.step):,} steps, base rate {steps.label.mean():.3f}"
        )
    return lines
