"""Finished runs side by side, in the layout of the paper's tables: its number, ours, and the command of each row."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spear_jax.config import METHODS
from spear_jax.data import dataset_title
from spear_jax.errors import InputError
from spear_jax.evaluation import SCHEMA
from spear_jax.report import COLUMNS, NAMES
from spear_jax.storage import read_json, write_whole

SHOWN = ("accuracy", "precision", "recall", "f1", "auroc", "aupr", "vus_pr", "vus_roc", "range_f1", "event_f1")


# Every number of arXiv 2510.03962 that is known; for NAB it says "best" and no number.
PAPER: dict[str, dict[str, dict[str, float]]] = {
    "nasa": {"SPEAR-BERT": {"accuracy": 0.91, "auroc": 0.90, "aupr": 0.70}},
    "mimic_iv": {
        "SPEAR-BERT, m = 10": {"accuracy": 0.89},
        "SPEAR-BERT, m = 20": {"accuracy": 0.93, "f1": 0.9285},
        "SPEAR-BERT, m = 30": {"accuracy": 0.915},
    },
}


def compare(workdir: Path) -> str:
    """Writes <workdir>/compare.md from all runs below a folder.

    Args:
      workdir: holds run folders, at any depth, or files that are copies of results.json.

    Returns:
      The page, in Markdown.

    Raises:
      InputError: there are no results.
    """
    files = sorted({*workdir.rglob("results.json"), *workdir.glob("*.json")}) if workdir.is_dir() else []
    found = [content for content in map(read_json, files) if _is_results(content)]
    if not found:
        raise InputError(f"--workdir={workdir}: no results.json in it; needed is a folder that holds finished runs")
    sections: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for content in found:
        split = _flags(content).get("data.split", "")
        sections.setdefault((content["dataset"], split), []).append(content)
    page = "\n\n".join(_section(data, split, runs) for (data, split), runs in sections.items()) + "\n"
    write_whole(workdir / "compare.md", page.encode())
    return page


def _is_results(content: Mapping[str, Any]) -> bool:
    return (
        content.get("schema") == SCHEMA
        and {"command", "dataset", "test", "controls", "confidence_intervals"} <= content.keys()
    )


def _section(data: str, split: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """One data set and split: the paper's rows, a row for each config, the controls, and the commands."""
    head = ["", "backbone", "seeds", "base rate", *(COLUMNS[name] for name in SHOWN)]
    title = dataset_title(data) + (f", data.split={split}" if split else "")
    lines = [f"## {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, numbers in PAPER.get(data.removesuffix("_demo"), {}).items():
        cells = [f"{numbers[metric]:g}" if metric in numbers else "" for metric in SHOWN]
        lines.append(f"| paper: {name} |  |  |  | " + " | ".join(cells) + " |")
    rows: dict[tuple[tuple[str, str], ...], dict[int, Mapping[str, Any]]] = {}
    for content in runs:  # one and the same run may lie in two places
        rows.setdefault(tuple(sorted(_flags(content).items())), {})[content["seed"]] = content
    shared = set.intersection(*map(set, rows))
    commands = []
    for number, (flags, by_seed) in enumerate(rows.items(), start=1):
        seeds = [by_seed[seed] for seed in sorted(by_seed)]
        own = [f"{name}={value}" for name, value in flags if (name, value) not in shared and name not in NAMED]
        label = ", ".join([METHODS[seeds[0]["method"]].title, *own])
        weights = seeds[0]["backbone"]
        name = f"{weights['name']}{'' if weights['pretrained'] else ' (RANDOM WEIGHTS)'}" if weights else ""
        lines.append(f"| {number}. {label} | {name} | {len(seeds)} | {_cells(seeds, seeds)} |")
        commands.append(
            f"{number}. `{seeds[0]['command']} --workdir=...`, seeds {', '.join(map(str, sorted(by_seed)))}"
        )
        for control in dict.fromkeys(name for one in seeds for name in one["controls"]):
            found = [one["controls"][control] for one in seeds if control in one["controls"]]
            lines.append(f"| {number}, control: {NAMES[control]} |  | {len(found)} | {_cells(found, [])} |")
    notes = (
        "Test parts; mean ± standard deviation over seeds, and in brackets the 95 % interval of the bootstrap over"
        " series, its ends averaged over seeds. The commands are those of the first seed."
    )
    warnings = sorted({f"- {warning}" for one in runs for warning in one["warnings"]})
    return "\n".join([*lines, "", notes, *(["", *warnings] if warnings else []), "", *commands])


NAMED = ("method", "mode", "data.split")  # columns and titles say these


def _flags(content: Mapping[str, Any]) -> dict[str, str]:
    """The flags of a run's command but for the seed; where it began with a detector, what that was trained on."""
    pairs = [
        flag.removeprefix("--").partition("=") for flag in shlex.split(content["command"]) if flag.startswith("--")
    ]
    flags = {name.removeprefix("config."): value for name, _, value in pairs if name != "config.seed"}
    for name in ("detector", "train.init_from"):
        if name in flags:
            flags[name] = f"one of {content['training'].get('trained_on', '?')}"
    return flags


def _cells(runs: Sequence[Mapping[str, Any]], bounds: Sequence[Mapping[str, Any]]) -> str:
    """Base rate, and a cell per metric: mean, spread over seeds and, where there is one, the interval."""
    cells = [f"{np.mean([one['test']['base_rate'] for one in runs]):.3f}"]
    for name in SHOWN:
        values = [one["test"][name] for one in runs if one["test"].get(name) is not None]
        if not values:
            cells.append("-")
            continue
        text = f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")
        intervals = [one["confidence_intervals"]["test"].get(name) for one in bounds]
        ends = [one for one in intervals if one]
        cells.append(text + (f" [{', '.join(f'{end:.2f}' for end in np.mean(ends, axis=0))}]" if ends else ""))
    return " | ".join(cells)
