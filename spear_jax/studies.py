"""Studies: a grid of configs times seeds, run one by one, and a table of what came out."""

import dataclasses
import fcntl
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

import pandas as pd
from ml_collections import ConfigDict
from tqdm import tqdm

from spear_jax import config as configs
from spear_jax.errors import InputError
from spear_jax.files import read_json, write_whole
from spear_jax.tables import COLUMNS, NAMES

METRICS = ("auroc", "aupr", "f1", "vus_pr")


@dataclasses.dataclass(frozen=True)
class Study:
    """Which runs there are.

    Attributes:
      name: of its files.
      title: of the table and the figure.
      question: what the study is to answer, a sentence or two.
      config: the config that all runs start from, as on the command line.
      base: overrides of it that all runs share.
      varied: what the rows differ in, the head of the table's first column.
      rows: what each row of the table is called -> its overrides.
      seeds: each row is run with each of them.
      axis: the field that the figure draws along, if its values are numbers; '' means a place per row.
      controls_of: the row whose runs' controls get rows of their own; '' means none do.
      not_measured: rows that take what is not at hand -> the command that would fill them.
    """

    name: str
    title: str
    question: str
    config: str
    base: Mapping[str, Any]
    varied: str
    rows: Mapping[str, Mapping[str, Any]]
    seeds: Sequence[int] = (0, 1, 2)
    axis: str = ""
    controls_of: str = ""
    not_measured: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run of a study.

    Attributes:
      row: what its row in the table is called.
      seed: of it.
      arguments: its command line, without --workdir.
      name: of its folder; equal for equal configs, so that studies may share a folder of runs.
    """

    row: str
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


def grid(**values: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """All combinations; a field's dots are written as two underscores: prompt__length=(0, 5)."""
    fields = [name.replace("__", ".") for name in values]
    return {
        ", ".join(map(str, one)): dict(zip(fields, one, strict=True)) for one in itertools.product(*values.values())
    }


# What all methods are measured with on two CPU cores: named series, windows side by side, five epochs.
PROTOCOL: dict[str, dict[str, Any]] = {
    "nasa": {"data.limit_series": 24},
    "nab": {},
    "mimic_iv": {"data.limit_series": 300},
}
SEEDS = (0, 1, 2)


def one_data_set(
    arg: str,
    name: str,
    *,
    title: str,
    question: str,
    varied: str,
    rows: Mapping[str, Mapping[str, Any]],
    base: Mapping[str, Any] | None = None,
    **others: Any,
) -> Study:
    """A study on the data set that a config's argument names, with the protocol that all methods are measured with.

    Args:
      arg: 'nasa' (default), 'nab' or 'mimic_iv', and 'debug' for random:tiny, two epochs and two seeds.
      name: of the study; the data set's is appended.
      title: see `Study`, as all that follow.
      question: ...
      varied: ...
      rows: ...
      base: overrides beside the protocol's.
      others: the remaining fields of `Study`.

    Raises:
      InputError: the argument is another word.
    """
    words = configs.variants(arg, (*PROTOCOL, "debug"))
    data = next((name for name in PROTOCOL if name in words), "nasa")
    debug = "debug" in words
    fields = {
        **({"data.limit_series": 8} if debug else PROTOCOL[data]),
        "train.epochs": 2 if debug else 5,
        "train.decay_steps": 150,
        "controls.head_only": False,  # prompt.length=0 is a row of its own
        **(base or {}),
    }
    return Study(
        name=f"{name}-{data}",
        title=f"{title}, {data}",
        question=question,
        config=f"configs/{data}.py:{'debug' if debug else 'minilm'}",
        base=fields,
        varied=varied,
        rows=rows,
        seeds=SEEDS[:2] if debug else SEEDS,
        **others,
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
    for row, fields in study.rows.items():
        for seed in study.seeds:
            given = {**study.base, **fields, "seed": seed, **overrides}
            config = configs.load_config(study.config)
            for field, value in given.items():
                configs.override(config, field, str(value))
            configs.validate(config)
            arguments = (f"--config={study.config}", *(f"--config.{name}={value}" for name, value in given.items()))
            planned.append(Planned(row, seed, arguments, run_name(config)))
    return planned


def run_name(config: ConfigDict) -> str:
    """A name that equal configs share, and no others; fields that are added later change no name."""
    said = configs.flatten(json.loads(configs.to_json(config)))
    usual = configs.flatten(json.loads(configs.to_json(configs.default_config())))
    kept = {name: value for name, value in said.items() if name not in configs.IRRELEVANT and value != usual[name]}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]
    return f"{config.data.name}-{config.method}-{digest}"


def run(study: Study, overrides: Mapping[str, str], workdir: Path, done: Path | None) -> str:
    """Runs what is not done yet, and writes the study's table as Markdown and CSV, and its figure.

    A run that fails is listed with its error and tried again when the study is started again.

    Args:
      study: the study.
      overrides: from the command line, of all runs.
      workdir: gets <name>.md, <name>.csv, <name>.png and runs/, which several studies may share.
      done: a folder of results that are known, <name of run>.json; such runs are not repeated.

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
    runs = tabulate(study, planned, found)
    write_whole(workdir / f"{study.name}.csv", runs.to_csv(index=False).encode())
    text = markdown(study, runs)
    write_whole(workdir / f"{study.name}.md", text.encode())
    draw(study, runs, workdir / f"{study.name}.png")
    return text


def _outcome(one: Planned, folder: Path, done: Path | None) -> dict[str, Any]:
    """The results of a run, which is run if need be; {'error'} if it failed."""
    known = done / f"{one.name}.json" if done else None
    if known is not None and known.is_file():
        return read_json(known)
    began = time.monotonic()
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f"{one.name}.log"
    with path.open("ab") as log:
        # Another study may be at the same run. The lock is the log's, which the run itself holds open: it lasts as long
        # as the run, whatever becomes of the study.
        fcntl.flock(log, fcntl.LOCK_EX)
        if (folder / "results.json").is_file():
            return read_json(folder / "results.json")
        finished = subprocess.run(
            [sys.executable, "-m", "spear_jax.main", *one.arguments, f"--workdir={folder}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if finished.returncode == 0:
        return read_json(folder / "results.json")
    lines = path.read_text(errors="replace").split("\n")
    said = next((line for line in reversed(lines) if line.strip()), "nothing was said")
    return {"error": f"exit code {finished.returncode} after {time.monotonic() - began:.0f} s: {said.strip()[:300]}"}


def tabulate(study: Study, planned: Sequence[Planned], found: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A line per row and seed, the controls' among them.

    Args:
      study: the study.
      planned: its runs.
      found: their results by name, or {'error'}.
    """
    lines = []
    for one in planned:
        content, fields = found[one.name], {f: str(v) for f, v in study.rows[one.row].items()}
        lines.append({"row": one.row, **fields, "seed": one.seed, "run": one.name, **summary(content, content)})
    for one in planned:
        if one.row == study.controls_of and "error" not in found[one.name]:
            for control, metrics in found[one.name]["controls"].items():
                lines.append(
                    {"row": NAMES[control], "seed": one.seed, "run": one.name, **summary(found[one.name], metrics)}
                )
    return pd.DataFrame(lines)


def summary(content: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What a table needs of a results.json, and of the metrics of the method or a control in it."""
    if "error" in content:
        return {"error": content["error"]}
    return {
        "dataset": content["dataset"],
        "method": content["method"],
        "base_rate": content["test"]["base_rate"],
        **{f"{split}_{name}": metrics[split].get(name) for split in ("validation", "test") for name in METRICS},
        **(
            {"trainable": content["parameters"]["trainable"], "seconds": round(sum(content["seconds"].values()), 1)}
            if metrics is content
            else {}
        ),
        "error": "",
    }


def markdown(study: Study, runs: pd.DataFrame) -> str:
    """A row each: mean and standard deviation over the seeds, and how many of them ended."""
    head = [study.varied, "seeds", "base rate", "validation AUPR", *(f"test {COLUMNS[name]}" for name in METRICS)]
    head += ["trained numbers", "seconds"]
    lines = [f"### {study.title}", "", study.question, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row, here in runs.groupby("row", sort=False):
        ended = here[here["error"] == ""]
        cells = [str(row), str(len(ended)) if len(ended) == len(here) else f"{len(ended)} of {len(here)}"]
        cells += [_spread(ended, name) for name in ("base_rate", "validation_aupr", *(f"test_{m}" for m in METRICS))]
        for name in ("trainable", "seconds"):
            told = ended.get(name, pd.Series(dtype=float)).dropna()
            cells.append(f"{told.mean():,.0f}" if len(told) else "")
        lines.append("| " + " | ".join(cells) + " |")
    for row in study.not_measured:
        lines.append(f"| {row} | 0 |" + " |" * (len(head) - 3) + " not measured |")
    failed = runs[runs["error"] != ""]
    notes = [f"- failed: `{one['run']}` (seed {one['seed']}): {one['error']}" for _, one in failed.iterrows()]
    notes += [f"- not measured, weights or API needed: {row}: `{way}`" for row, way in study.not_measured.items()]
    return "\n".join([*lines, "", *notes]).rstrip() + "\n"


def _spread(runs: pd.DataFrame, name: str) -> str:
    values = pd.to_numeric(runs[name], errors="coerce").dropna() if name in runs else pd.Series(dtype=float)
    if not len(values):
        return "-"
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def draw(study: Study, runs: pd.DataFrame, path: Path) -> None:
    """Test AUPR of every run, the mean of each row, and the base rates."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ended = runs[runs["error"] == ""]
    rows = list(dict.fromkeys(runs["row"]))
    places: dict[str, float] = {row: len(rows) - 1 - number for number, row in enumerate(rows)}
    if study.axis:
        places = {row: float(fields[study.axis]) for row, fields in study.rows.items()}
    figure, axes = pyplot.subplots(figsize=(7, 4 if study.axis else 1.2 + 0.32 * len(rows)), layout="constrained")
    if len(ended):
        along = ended["row"].map(places)
        means = ended.assign(along=along).groupby("along")["test_aupr"].mean()
        rate = ended["base_rate"].mean()
        if study.axis:
            axes.plot(along, ended["test_aupr"], "o", alpha=0.5, label="each seed")
            axes.plot(means.index, means, "k-", label="mean")
            axes.axhline(rate, color="tab:red", linestyle=":", label="base rate, mean")
            axes.set_xlabel(study.axis)
            axes.set_ylabel("test AUPR")
            axes.set_ylim(bottom=0)
        else:
            axes.plot(ended["test_aupr"], along, "o", alpha=0.5, label="each seed")
            axes.plot(means, means.index, "k|", markersize=14, label="mean")
            axes.axvline(rate, color="tab:red", linestyle=":", label="base rate, mean")
            axes.set_yticks(list(places.values()), list(places))
            axes.set_xlabel("test AUPR")
            axes.set_xlim(left=0)
        axes.legend()
    axes.set_title(study.title)
    blob = io.BytesIO()
    figure.savefig(blob, dpi=120)
    pyplot.close(figure)
    write_whole(path, blob.getvalue())
