"""Studies: a grid of configs times seeds, run one by one, and a table of what came out."""

import dataclasses
import hashlib
import itertools
import json
import runpy
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from spear_jax import config as configs
from spear_jax.errors import InputError
from spear_jax.files import read_json, write_whole

METRICS = ("auroc", "aupr", "f1", "vus_pr")


@dataclasses.dataclass(frozen=True)
class Study:
    """Which runs there are.

    Attributes:
      title: of the table and the figure.
      question: what the study is to answer, a sentence or two.
      config: the config that all runs start from, as on the command line.
      base: overrides of it that all runs share.
      rows: overrides of each row of the table.
      seeds: each row is run with each of them.
      axis: the field that the figure draws along, if its values are numbers; '' means a bar per row.
    """

    title: str
    question: str
    config: str
    base: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    seeds: Sequence[int] = (0, 1, 2)
    axis: str = ""


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run of a study.

    Attributes:
      row: its number in the table.
      seed: of it.
      arguments: its command line, without --workdir.
      name: of its folder; equal for equal configs, so that studies may share a folder of runs.
    """

    row: int
    seed: int
    arguments: tuple[str, ...]
    name: str


def load(path: str) -> Study:
    """Reads a study's file: get_study(argument) gives the `Study`.

    Raises:
      InputError: there is no such file, or it fails.
    """
    file, _, argument = path.partition(":")
    found = configs.find_file(file)
    try:
        study = runpy.run_path(str(found))["get_study"](argument)
    except InputError as fault:
        raise InputError(f"--config={path}: {fault}") from fault
    except (Exception, SystemExit) as fault:
        reason = " ".join(f"{type(fault).__name__}: {fault}".split())
        raise InputError(f"--config={path}: {reason}") from fault
    if not isinstance(study, Study):
        raise InputError(f"--config={path}: get_study must return a Study, not {type(study).__name__}")
    return study


def grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """All combinations; a field's dots are written as two underscores: prompt__length=(0, 5)."""
    names = [name.replace("__", ".") for name in values]
    return [dict(zip(names, one, strict=True)) for one in itertools.product(*values.values())]


# What all methods are measured with on two CPU cores: named series, windows side by side, five epochs.
PROTOCOL: dict[str, dict[str, Any]] = {
    "nasa": {"data.limit_series": 24},
    "nab": {},
    "mimic_iv": {"data.limit_series": 300},
}


def one_data_set(
    arg: str, *, title: str, question: str, rows: Sequence[Mapping[str, Any]], axis: str = "", **base: Any
) -> Study:
    """A study on the data set that a config's argument names, with the protocol that all methods are measured with.

    Args:
      arg: 'nasa' (default), 'nab' or 'mimic_iv', and 'debug' for random:tiny and two epochs.
      title: see `Study`.
      question: see `Study`.
      rows: see `Study`.
      axis: see `Study`.
      base: further fields of all runs, dots written as two underscores.

    Raises:
      InputError: the argument is another word.
    """
    words = configs.variants(arg, (*PROTOCOL, "debug"))
    data = next((name for name in PROTOCOL if name in words), "nasa")
    debug = "debug" in words
    fields = {
        **({"data.limit_series": 8} if debug else PROTOCOL[data]),
        "data.stride": configs.default_config().data.window,
        "train.epochs": 2 if debug else 5,
        **{name.replace("__", "."): value for name, value in base.items()},
    }
    return Study(
        title=f"{title}, {data}",
        question=question,
        config=f"configs/{data}.py:{'debug' if debug else 'minilm'}",
        base=fields,
        rows=rows,
        seeds=(0, 1) if debug else (0, 1, 2),
        axis=axis,
    )


def plan(study: Study, overrides: Mapping[str, str]) -> list[Planned]:
    """The runs of a study, every one of them checked before the first begins.

    Args:
      study: the study.
      overrides: from the command line, of all runs.

    Raises:
      InputError: a run's config is impossible.
    """
    planned = []
    for number, row in enumerate(study.rows):
        for seed in study.seeds:
            fields = {**study.base, **row, "seed": seed, **overrides}
            config = configs.load_config(study.config)
            for field, value in fields.items():
                configs.override(config, field, str(value))
            configs.validate(config)
            flat = configs.flatten(json.loads(configs.to_json(config)))
            kept = {name: value for name, value in flat.items() if name not in configs.IRRELEVANT}
            digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]
            arguments = (f"--config={study.config}", *(f"--config.{name}={value}" for name, value in fields.items()))
            planned.append(Planned(number, seed, arguments, f"{config.data.name}-{config.method}-{digest}"))
    return planned


def run(study: Study, overrides: Mapping[str, str], workdir: Path, done: Path | None) -> str:
    """Runs what is not done yet, and writes table.md, table.csv and figure.png.

    A run that fails is listed with its error and tried again when the study is started again.

    Args:
      study: the study.
      overrides: from the command line, of all runs.
      workdir: of the study; the runs go into its folder runs/.
      done: a folder of results that are known, <name>.json; such runs are not repeated.

    Returns:
      The table, in Markdown.
    """
    planned = plan(study, overrides)
    workdir.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    with tqdm(planned, desc=study.title, unit="run", disable=None) as bar:
        for one in bar:
            if one.name not in found:
                found[one.name] = _outcome(one, workdir / "runs" / one.name, done)
    rows = [
        {"row": one.row, **study.rows[one.row], "seed": one.seed, "run": one.name, **summary(found[one.name])}
        for one in planned
    ]
    runs = pd.DataFrame(rows)
    write_whole(workdir / "table.csv", runs.to_csv(index=False).encode())
    text = markdown(study, runs)
    write_whole(workdir / "table.md", text.encode())
    draw(study, runs, workdir / "figure.png")
    return text


def _outcome(one: Planned, folder: Path, done: Path | None) -> dict[str, Any]:
    """The results of a run, which is run if need be; {'error'} if it failed."""
    known = done / f"{one.name}.json" if done else None
    if known is not None and known.is_file():
        return read_json(known)
    if (folder / "results.json").is_file():
        return read_json(folder / "results.json")
    began = time.monotonic()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{one.name}.log").open("ab") as log:
        finished = subprocess.run(
            [sys.executable, "-m", "spear_jax.main", *one.arguments, f"--workdir={folder}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if finished.returncode == 0:
        return read_json(folder / "results.json")
    lines = (folder.parent / f"{one.name}.log").read_text(errors="replace").split("\n")
    said = next((line for line in reversed(lines) if line.strip()), "nothing was said")
    return {"error": f"exit code {finished.returncode} after {time.monotonic() - began:.0f} s: {said.strip()[:300]}"}


def summary(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a table needs of a results.json."""
    if "error" in content:
        return {"error": content["error"]}
    seconds = content["seconds"]
    return {
        "dataset": content["dataset"],
        "method": content["method"],
        "base_rate": content["test"]["base_rate"],
        **{f"{split}_{name}": content[split].get(name) for split in ("validation", "test") for name in METRICS},
        "trainable": content["parameters"]["trainable"],
        "seconds": round(sum(seconds.values()), 1),
        "error": "",
    }


def markdown(study: Study, runs: pd.DataFrame) -> str:
    """A row per combination: mean and standard deviation over the seeds, and how many of them failed."""
    fields = list(dict.fromkeys(name for row in study.rows for name in row))
    lines = [f"### {study.title}", "", study.question, ""]
    head = [*fields, "seeds", "base rate", "validation AUPR", *(f"test {name.upper()}" for name in METRICS), "seconds"]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for number, row in enumerate(study.rows):
        here = runs[runs["row"] == number]
        ended = here[here["error"] == ""]
        cells = [str(row.get(field, "")) for field in fields] + [f"{len(ended)} of {len(here)}"]
        cells += [_spread(ended, name) for name in ("base_rate", "validation_aupr", *(f"test_{m}" for m in METRICS))]
        cells.append(f"{ended['seconds'].mean():.0f}" if len(ended) else "-")
        lines.append("| " + " | ".join(cells) + " |")
    failed = runs[runs["error"] != ""]
    lines += ["", *(f"- failed: `{one['run']}` (seed {one['seed']}): {one['error']}" for _, one in failed.iterrows())]
    return "\n".join(lines).rstrip() + "\n"


def _spread(runs: pd.DataFrame, name: str) -> str:
    values = pd.to_numeric(runs[name], errors="coerce").dropna() if name in runs else pd.Series(dtype=float)
    if not len(values):
        return "-"
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def draw(study: Study, runs: pd.DataFrame, path: Path) -> None:
    """Test AUPR of every run, and the mean of each row, beside the base rate."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ended = runs[runs["error"] == ""].copy()
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    if len(ended):
        rows = ended["row"].to_numpy()
        along = np.array([study.rows[row][study.axis] for row in rows]) if study.axis else rows
        axes.plot(along, ended["test_aupr"], "o", alpha=0.5, label="test AUPR, each seed")
        means = ended.assign(along=along).groupby("along")["test_aupr"].mean()
        axes.plot(means.index, means.to_numpy(), "k-" if study.axis else "k_", markersize=18, label="mean")
        axes.plot(along, ended["base_rate"], "r.", markersize=3, label="base rate")
        if study.axis:
            axes.set_xlabel(study.axis)
        else:
            names = [", ".join(map(str, row.values())) for row in study.rows]
            axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.legend()
    axes.set_title(study.title)
    axes.set_ylabel("AUPR")
    axes.set_ylim(0, 1)
    blob = io.BytesIO()
    figure.savefig(blob, dpi=120)
    pyplot.close(figure)
    write_whole(path, blob.getvalue())
