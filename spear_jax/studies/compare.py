"""Compares finished runs in the layout of the paper's tables: its numbers, ours, and the command of each row."""

import shlex
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from spear_jax.config import METHODS
from spear_jax.data import dataset_title
from spear_jax.errors import InputError
from spear_jax.evaluation import read_results
from spear_jax.report import COLUMNS, NAMES
from spear_jax.storage import write_whole
from spear_jax.studies.table import read_study_table, result_rows
from spear_jax.studies.table_cells import pipe_table, spread

SHOWN = ("accuracy", "precision", "recall", "f1", "auroc", "aupr", "vus_pr", "vus_roc", "range_f1", "event_f1")

# All numbers in arXiv 2510.03962; for NAB it claims "best" without numbers.
PAPER: dict[str, dict[str, dict[str, float]]] = {
    "nasa": {"SPEAR-BERT": {"accuracy": 0.91, "auroc": 0.90, "aupr": 0.70}},
    "mimic_iv": {
        "SPEAR-BERT, m = 10": {"accuracy": 0.89},
        "SPEAR-BERT, m = 20": {"accuracy": 0.93, "f1": 0.9285},
        "SPEAR-BERT, m = 30": {"accuracy": 0.915},
    },
}

NOTES = (
    "Test parts: mean ± standard deviation over seeds; brackets: 95 % bootstrap interval over series, its ends averaged"
    " over seeds. The commands are those of the first seed."
)


def compare_runs(workdir: Path) -> str:
    """Writes <workdir>/compare.md, a table of all runs and studies in the folder, and returns it.

    Raises:
      InputError: the folder contains no results.
    """
    found: list[dict[str, Any]] = []
    tables: list[pd.DataFrame] = []
    for path in (*sorted(workdir.rglob("results.json")), *sorted(workdir.glob("*.parquet"))):
        try:
            if path.suffix == ".json":
                found += result_rows(str(path), read_results(path))
            elif (table := read_study_table(path)) is not None:
                tables.append(table[table["error"] == ""])
        except InputError as error:
            print(f"left out: {error}", file=sys.stderr)
    rows = pd.DataFrame(found)
    if tables:  # studies share runs
        rows = pd.concat([rows, pd.concat(tables).drop_duplicates(["run", "split", "control"])])
    if not len(rows):
        raise InputError(f"--workdir={workdir}: no results.json in it; expected a folder with finished runs")
    test = rows[rows["split"] == "test"]
    test = test.assign(flags=list(map(_flags, test["command"], test["trained_on"])))
    # The same run may be in several places.
    test = test.drop_duplicates(["dataset", "flags", "seed", "control"], keep="last")
    split = test["flags"].map(lambda flags: dict(flags).get("data.split", ""))
    page = "\n\n".join(
        _section(str(data), str(split), runs) for (data, split), runs in test.groupby(["dataset", split], sort=False)
    )
    write_whole(workdir / "compare.md", f"{page}\n")
    return f"{page}\n"


def _section(data: str, split: str, test: pd.DataFrame) -> str:
    """Returns one data set and split: the paper's rows, a row for each config with its controls, and the commands."""
    paper = [
        [f"paper: {name}", "", "", "", *(f"{numbers[metric]:g}" if metric in numbers else "" for metric in SHOWN)]
        for name, numbers in PAPER.get(data.removesuffix("_demo"), {}).items()
    ]
    shared = set.intersection(*map(set, test["flags"]))
    lines, commands = [], []
    for number, (flags, runs) in enumerate(test.groupby("flags", sort=False), start=1):
        runs = runs.sort_values("seed", kind="stable")
        own = runs[runs["control"] == ""]
        first = own.iloc[0]
        different = [f"{name}={value}" for name, value in flags if (name, value) not in shared and name not in NAMED]
        backbone = f"{first['backbone']}{' (RANDOM WEIGHTS)' if first['random_weights'] else ''}"
        lines.append(
            [
                f"{number}. {', '.join([METHODS[first['method']].title, *different])}",
                backbone,
                str(len(own)),
                *_cells(own),
            ]
        )
        for control, seeds in runs[runs["control"] != ""].groupby("control", sort=False):
            lines.append([f"{number}, control: {NAMES[control]}", "", str(len(seeds)), *_cells(seeds)])
        seeds = ", ".join(map(str, own["seed"]))
        commands.append(f"{number}. `{first['command']} --workdir=...`, seeds {seeds}")
    title = dataset_title(data) + (f", data.split={split}" if split else "")
    head = ["", "backbone", "seeds", "base rate", *(COLUMNS[metric] for metric in SHOWN)]
    warnings = sorted({f"- {warning}" for text in test["warnings"] for warning in text.splitlines()})
    notes = ["", NOTES, *(["", *warnings] if warnings else []), "", *commands]
    return "\n".join([f"## {title}", "", pipe_table(head, [*paper, *lines]), *notes])


NAMED = ("method", "mode", "data.split")  # flags that are shown in columns and titles


def _flags(command: str, trained_on: str) -> tuple[tuple[str, str], ...]:
    """Returns the sorted flags of a run's command without the seed; a detector is named by what it was trained on."""
    flags: dict[str, str] = {}
    for flag in shlex.split(command):
        if flag.startswith("--"):
            name, _, value = flag.removeprefix("--").removeprefix("config.").partition("=")
            flags[name] = f"one of {trained_on or '?'}" if name in ("detector", "train.init_from") else value
    return tuple(sorted((name, value) for name, value in flags.items() if name != "seed"))


def _cells(runs: pd.DataFrame) -> list[str]:
    return [f"{runs['base_rate'].mean():.3f}", *(spread(runs, metric) for metric in SHOWN)]
