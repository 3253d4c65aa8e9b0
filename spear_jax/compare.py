"""Finished runs side by side, in the layout of the paper's tables: its number, ours, and the command of each row."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spear_jax.errors import InputError
from spear_jax.files import read_json, write_whole
from spear_jax.tables import COLUMNS, METHODS, NAMES

SHOWN = ("accuracy", "precision", "recall", "f1", "auroc", "aupr", "vus_pr")
DATA = {"nasa": "NASA SMAP and MSL", "nab": "NAB", "mimic_iv": "MIMIC-IV", "synthetic": "generated telemetry"}
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
    found = [content for content in map(read_json, files) if isinstance(content, dict) and "command" in content]
    if not found:
        raise InputError(f"--workdir={workdir}: no results.json in it; needed is a folder that holds finished runs")
    page = "\n\n".join(_section(data, runs) for data, runs in _grouped(found, "dataset").items()) + "\n"
    write_whole(workdir / "compare.md", page.encode())
    return page


def _grouped(found: Sequence[Mapping[str, Any]], field: str) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for content in found:
        groups.setdefault(content[field], []).append(content)
    return groups


def _section(data: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """One data set: the paper's rows, a row for each command, the controls, and the commands."""
    head = ["", "backbone", "seeds", *(COLUMNS[name] for name in SHOWN)]
    lines = [f"## {DATA.get(data, data)}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, numbers in PAPER.get(data, {}).items():
        cells = [f"{numbers[metric]:g}" if metric in numbers else "" for metric in SHOWN]
        lines.append(f"| paper: {name} |  |  | " + " | ".join(cells) + " |")
    flags = [_flags(content["command"]) for content in runs]
    shared = set.intersection(*(set(one.items()) for one in flags))
    rows: dict[tuple[tuple[str, str], ...], list[Mapping[str, Any]]] = {}
    for one, content in zip(flags, runs, strict=True):
        rows.setdefault(tuple(one.items()), []).append(content)
    commands = []
    for number, (command, seeds) in enumerate(rows.items(), start=1):
        own = [f"{name.removeprefix('config.')}={value}" for name, value in command if (name, value) not in shared]
        own = [text for text in own if not text.startswith(("mode=", "method=", "config=", "detector="))]
        if "detector" in dict(command):
            own.insert(0, f"trained on {seeds[0]['training']['trained_on']}")
        label = ", ".join([METHODS[seeds[0]["method"]], *own])
        weights = seeds[0]["backbone"]
        name = f"{weights['name']}{'' if weights['pretrained'] else ' (RANDOM WEIGHTS)'}" if weights else ""
        bounds = [one["confidence_intervals"]["test"] for one in seeds]
        lines.append(
            f"| {number}. {label} | {name} | {len(seeds)} | {_cells([one['test'] for one in seeds], bounds)} |"
        )
        commands.append(f"{number}. `{_command(command)}` with `--config.seed=` {', '.join(_seeds(seeds))}")
    for control in ("random_scores", "always_normal"):
        metrics = [one["controls"][control]["test"] for one in runs]
        lines.append(f"| control: {NAMES[control]} |  | {len(runs)} runs | {_cells(metrics, [])} |")
    notes = (
        "Test parts; mean ± standard deviation over seeds, and in brackets the 95 % interval of the bootstrap over"
        " series, its ends averaged over seeds. Base rate"
        f" {np.mean([one['test']['base_rate'] for one in runs]):.3f}."
    )
    warnings = sorted({f"- {warning}" for one in runs for warning in one["warnings"]})
    return "\n".join([*lines, "", notes, *(["", *warnings] if warnings else []), "", *commands])


def _flags(command: str) -> dict[str, str]:
    """A command's flags but for the seed."""
    pairs = (flag.removeprefix("--").partition("=") for flag in shlex.split(command) if flag.startswith("--"))
    return {name: value for name, _, value in pairs if name != "config.seed"}


def _command(flags: Sequence[tuple[str, str]]) -> str:
    return " ".join(["python -m spear_jax.main", *(shlex.quote(f"--{name}={value}") for name, value in flags)])


def _seeds(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(seed) for seed in sorted({one["seed"] for one in runs})]


def _cells(metrics: Sequence[Mapping[str, Any]], bounds: Sequence[Mapping[str, Any]]) -> str:
    """A cell per metric: mean, spread over seeds and, where there is one, the interval."""
    cells = []
    for name in SHOWN:
        values = [one[name] for one in metrics if one.get(name) is not None]
        if not values:
            cells.append("-")
            continue
        text = f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")
        ends = [one[name] for one in bounds if one.get(name)]
        cells.append(text + (f" [{', '.join(f'{end:.2f}' for end in np.mean(ends, axis=0))}]" if ends else ""))
    return " | ".join(cells)
