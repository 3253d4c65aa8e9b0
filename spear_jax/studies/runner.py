"""Studies: a grid of configs times seeds, run one by one, and a table of what came out."""

import dataclasses
import fcntl
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from ml_collections import ConfigDict
from tqdm import tqdm

from spear_jax.config import (
    EXTENDABLE,
    IRRELEVANT,
    check_evaluate_override,
    default_config,
    flatten,
    load_valid_config,
    to_json,
)
from spear_jax.data import is_demo, mimic_iv_copy
from spear_jax.errors import InputError
from spear_jax.report import NAMES
from spear_jax.storage import read_json, write_whole
from spear_jax.studies.study import Row, Study
from spear_jax.studies.table import COSTS, Layout, draw_study, markdown, summary


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run of a study.

    Attributes:
      row: what its row in the table is called.
      seed: of it.
      arguments: its command line, without --workdir; in the place of {source} goes the source's folder.
      name: of its folder; equal for equal configs, so that studies may share a folder of runs.
      config: the fields that shape it.
      known: its results may be taken from where they are kept: it is of the data that they were measured on.
      source: the run whose detector this one begins with.
    """

    row: str
    seed: int
    arguments: tuple[str, ...]
    name: str
    config: Mapping[str, Any]
    known: bool
    source: "Planned | None" = None


FREE = (*IRRELEVANT, *EXTENDABLE)


def plan(study: Study, overrides: Mapping[str, str]) -> list[Planned]:
    """The runs of a study, every one of them checked before the first begins.

    Args:
      study: the study.
      overrides: from the command line, of all runs.

    Raises:
      InputError: a run's config is impossible.
    """
    if "seed" in overrides:
        raise InputError("--config.seed: a study has seeds of its own")
    return [_plan(study, name, row, seed, overrides) for name, row in study.rows.items() for seed in study.seeds]


def _plan(study: Study, name: str, row: Row, seed: int, overrides: Mapping[str, str]) -> Planned:
    source = _plan(study, name, row.source, seed, overrides) if row.source else None
    path = row.config or study.config
    given = {**study.base, **row.fields, **({} if row.evaluate else {"seed": seed}), **overrides}
    config = load_valid_config(path, {field: str(value) for field, value in given.items()})
    for field in overrides:
        if row.evaluate:
            check_evaluate_override(field, reuse_threshold=config.threshold.reuse)
    arguments = [f"--config={path}", *(f"--config.{field}={value}" for field, value in given.items())]
    folder = run_name(config)
    if source:
        arguments += (
            ["--mode=evaluate", "--detector={source}"] if row.evaluate else ["--config.train.init_from={source}"]
        )
        folder += f"-{'by' if row.evaluate else 'from'}-{source.name}"
    own = flatten(json.loads(to_json(config)))
    return Planned(name, seed, tuple(arguments), folder, own, _is_public(config), source)


def _is_public(config: ConfigDict) -> bool:
    """Whether a config's data are those that everybody has: no own copy or files, and of MIMIC-IV the demo."""
    if config.data.dir or config.data.name == "files":
        return False
    if config.data.name != "mimic_iv":
        return True
    try:
        return is_demo(mimic_iv_copy(""))
    except InputError:  # none is at hand
        return True


def run_name(config: ConfigDict) -> str:
    """A name that equal configs share, and no others; fields that are added later change no name."""
    said = flatten(json.loads(to_json(config)))
    usual = flatten(json.loads(to_json(default_config())))
    kept = {name: value for name, value in said.items() if name not in IRRELEVANT and value != usual[name]}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]
    return f"{config.data.name}-{config.method}-{digest}"


def run_study(study: Study, overrides: Mapping[str, str], workdir: Path, done: Path | None) -> str:
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
    workdir = workdir.resolve()  # runs note where their sources lie
    for folder in (workdir, workdir / "runs"):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--workdir={workdir}: {folder} is a file; needed is a folder, new or of studies")
    changed = changed_defaults(done) if done else []
    if changed:
        print(f"{done}: measured with other defaults ({'; '.join(changed)}): not used")
        done = None
    workdir.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    with tqdm(planned, desc=study.title, unit="run", disable=None) as bar:
        for one in bar:
            if one.name not in found:
                found[one.name] = _outcome(one, workdir / "runs", done, found)
    return publish(study, planned, found, workdir)


DEFAULTS = "defaults.txt"  # beside results that are kept: what the configs' defaults were


def defaults() -> dict[str, str]:
    """Every field of a config and its default, as text."""
    return {name: repr(value) for name, value in flatten(default_config()).items()}


def changed_defaults(done: Path) -> list[str]:
    """How defaults differ from those that kept results were measured with: a run's name does not tell them.

    Args:
      done: the folder of results; fields that were added since do not matter.
    """
    path = done / DEFAULTS
    before = dict(line.split("=", 1) for line in path.read_text().splitlines()) if path.is_file() else {}
    now = defaults()
    return [f"{name} was {value}, is {now.get(name)}" for name, value in before.items() if now.get(name) != value]


def publish(study: Study, planned: Sequence[Planned], found: Mapping[str, Mapping[str, Any]], folder: Path) -> str:
    """Writes a study's table as Markdown and CSV, and its figure.

    Args:
      study: the study.
      planned: its runs, or those of them that are to be shown.
      found: their results by name, or {'error'}.
      folder: gets <name>.md, <name>.csv and <name>.png.

    Returns:
      The table, in Markdown.
    """
    lines = []
    for one in planned:
        content = found[one.name]
        lines.append({"row": one.row, "seed": one.seed, "run": one.name, **summary(content, content)})
        if one.row == study.controls_of and "error" not in content:
            for control, metrics in content["controls"].items():
                own = {"row": NAMES[control], "seed": one.seed, "run": one.name}
                lines.append({**own, **summary(content, metrics), **dict.fromkeys(COSTS)})
    runs = pd.DataFrame(lines).sort_values("row", key=lambda rows: rows.isin(NAMES.values()), kind="stable")
    layout = Layout(
        title=study.title,
        question=study.question,
        varied=study.varied,
        along={name: float(row.fields[study.axis]) for name, row in study.rows.items()} if study.axis else {},
        axis=study.axis,
        seeds=len(study.seeds),
        reference=study.reference,
        metrics=study.metrics,
        matrices=study.matrices,
        cells={cell: name for name, row in study.rows.items() for cell in row.cells},
        not_measured=study.not_measured,
    )
    text = markdown(layout, runs)
    write_whole(folder / f"{study.name}.csv", runs.to_csv(index=False).encode())
    write_whole(folder / f"{study.name}.md", text.encode())
    draw_study(layout, runs, folder / f"{study.name}.png")
    return text


def _outcome(one: Planned, runs: Path, done: Path | None, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The results of a run, which is run if need be; {'error'} if it failed.

    Args:
      one: the run.
      runs: the folder of all runs.
      done: a folder of results that are known; None where the run's own folder is needed.
      found: outcomes so far; those of sources are added, as 'source <name>', for a failed one is not tried again.
    """
    known = done / f"{one.name}.json" if done and one.known else None
    if known is not None and known.is_file():
        content = read_json(known)
        if "error" not in content:  # one that failed is tried again
            return content
    if one.source is not None:
        name = f"source {one.source.name}"
        if name not in found:
            found[name] = _outcome(one.source, runs, None, found)
        if "error" in found[name]:
            return {"error": f"its {name} failed: {found[name]['error']}"}
    began = time.monotonic()
    runs.mkdir(parents=True, exist_ok=True)
    folder, path = runs / one.name, runs / f"{one.name}.log"
    source = runs / one.source.name if one.source else ""
    with path.open("ab") as log:
        # Another study may be at the same run. The lock is the log's, which the run itself holds open: it lasts as long
        # as the run, whatever becomes of the study.
        fcntl.flock(log, fcntl.LOCK_EX)
        if (folder / "results.json").is_file():
            before = flatten(read_json(folder / "config.json")) if one.source is None else {}
            changed = [f for f in before.keys() & one.config.keys() - set(FREE) if before[f] != one.config[f]]
            if changed:
                return {"error": f"{folder} was run with other defaults of {', '.join(sorted(changed))}; remove it"}
            return read_json(folder / "results.json")
        arguments = [argument.replace("{source}", str(source)) for argument in one.arguments]
        finished = subprocess.run(
            [sys.executable, "-m", "spear_jax.main", *arguments, f"--workdir={folder}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
        lines = path.read_text(errors="replace").split("\n")
    if finished.returncode == 0:
        return read_json(folder / "results.json")
    said = next((line for line in reversed(lines) if line.strip()), "nothing was said")
    return {"error": f"exit code {finished.returncode} after {time.monotonic() - began:.0f} s: {said.strip()[:300]}"}
