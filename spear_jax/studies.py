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
from spear_jax.data import mimic_iv
from spear_jax.errors import InputError
from spear_jax.files import read_json, write_whole
from spear_jax.study_tables import COSTS, METRICS, Layout, draw, markdown, summary
from spear_jax.tables import NAMES


@dataclasses.dataclass(frozen=True)
class Row:
    """What is run for a row of the table, once for each seed.

    Attributes:
      fields: overrides of the config, beside the study's own.
      config: where it is not the study's.
      source: the run whose detector this one begins with.
      evaluate: the source's detector is applied as it is, and nothing is trained.
      cells: each a (table, line, column), where the study has matrices.
    """

    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: str = ""
    source: "Row | None" = None
    evaluate: bool = False
    cells: tuple[tuple[str, str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Study:
    """Which runs there are.

    Attributes:
      name: of its files.
      title: of the table and the figure.
      question: what the study is to answer, a sentence or two.
      config: the config that all runs start from, as on the command line.
      base: overrides that all runs share.
      varied: what the rows differ in, the head of the table's first column.
      rows: what each row of the table is called -> what is run for it.
      seeds: each row is run with each of them.
      axis: the field that the figure draws along, if its values are numbers; '' means a place per row.
      controls_of: the row whose runs' controls get rows of their own; '' means none do.
      reference: the row that the others are compared with, seed by seed; '' means none.
      metrics: of the test part, in the table's columns.
      matrices: metrics of each of the matrices that cells name.
      not_measured: rows that take what is not at hand -> the command that would measure them.
    """

    name: str
    title: str
    question: str
    config: str
    base: Mapping[str, Any]
    varied: str
    rows: Mapping[str, Row]
    seeds: Sequence[int] = (0, 1, 2)
    axis: str = ""
    controls_of: str = ""
    reference: str = ""
    metrics: Sequence[str] = METRICS
    matrices: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    not_measured: Mapping[str, str] = dataclasses.field(default_factory=dict)


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


def grid(**values: Sequence[Any]) -> dict[str, Row]:
    """A row for each combination; a field's dots are written as two underscores: prompt__length=(0, 5)."""
    fields = [name.replace("__", ".") for name in values]
    combinations = itertools.product(*values.values())
    return {", ".join(map(str, one)): Row(dict(zip(fields, one, strict=True))) for one in combinations}


# What all methods are measured with on two CPU cores: named series, windows side by side, five epochs.
_ALL = {"train.epochs": 5, "train.decay_steps": 150, "controls.head_only": False}  # prompt.length=0 is a row of its own
PROTOCOL: dict[str, dict[str, Any]] = {
    "nasa": {**_ALL, "data.limit_series": 24},
    "nab": _ALL,
    "mimic_iv": {**_ALL, "data.limit_series": 300},
}
DEBUG = {**_ALL, "train.epochs": 2, "data.limit_series": 8}
SEEDS = (0, 1, 2)
FREE = (*configs.IRRELEVANT, *configs.EXTENDABLE)


def one_data_set(
    arg: str,
    name: str,
    *,
    title: str,
    question: str,
    varied: str,
    rows: Mapping[str, Row],
    base: Mapping[str, Any] | None = None,
    **others: Any,
) -> Study:
    """A study on the data set that a config's argument names, with the protocol that all methods are measured with.

    Args:
      arg: 'nasa' (default), 'nab' or 'mimic_iv'; 'time' or 'random' for another split than 'series'; and 'debug' for
        random:tiny, two epochs and two seeds.
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
    words = configs.variants(arg, (*PROTOCOL, "time", "random", "debug"))
    for several in (words & PROTOCOL.keys(), words & {"time", "random"}):
        if len(several) > 1:
            raise InputError(f"config argument {arg!r}: {', '.join(sorted(several))} exclude each other")
    data = next((name for name in PROTOCOL if name in words), "nasa")
    debug = "debug" in words
    split = next((name for name in ("time", "random") if name in words), "")
    if split and any("data.split" in fields for fields in (base or {}, *(row.fields for row in rows.values()))):
        raise InputError(f"config argument {split!r}: this study has splits of its own")
    marks = [data, *([f"split {split}"] if split else []), *(["debug: random weights"] if debug else [])]
    return Study(
        name="-".join(filter(None, (name, data, split, "debug" if debug else ""))),
        title=", ".join([title, *marks]),
        question=question,
        config=f"configs/{data}.py:{'debug' if debug else 'minilm'}",
        base={**(DEBUG if debug else PROTOCOL[data]), **({"data.split": split} if split else {}), **(base or {})},
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
    if "seed" in overrides:
        raise InputError("--config.seed: a study has seeds of its own")
    return [_plan(study, name, row, seed, overrides) for name, row in study.rows.items() for seed in study.seeds]


def _plan(study: Study, name: str, row: Row, seed: int, overrides: Mapping[str, str]) -> Planned:
    source = _plan(study, name, row.source, seed, overrides) if row.source else None
    path = row.config or study.config
    given = {**study.base, **row.fields, **({} if row.evaluate else {"seed": seed}), **overrides}
    for field in overrides:
        if row.evaluate and not field.startswith(("data.", "score.", "threshold.", "metrics.")):
            raise InputError(f"--config.{field}: the row {name!r} applies a detector as it is")
    config = configs.load_config(path)
    for field, value in given.items():
        configs.override(config, field, str(value))
    configs.validate(config)
    configs.take_environment(config)
    arguments = [f"--config={path}", *(f"--config.{field}={value}" for field, value in given.items())]
    folder = run_name(config)
    if source:
        arguments += (
            ["--mode=evaluate", "--detector={source}"] if row.evaluate else ["--config.train.init_from={source}"]
        )
        folder += f"-{'by' if row.evaluate else 'from'}-{source.name}"
    own = configs.flatten(json.loads(configs.to_json(config)))
    return Planned(name, seed, tuple(arguments), folder, own, _is_public(config), source)


def _is_public(config: ConfigDict) -> bool:
    """Whether a config's data are those that everybody has: no own copy or files, and of MIMIC-IV the demo."""
    if config.data.dir or config.data.name == "files":
        return False
    if config.data.name != "mimic_iv":
        return True
    try:
        return mimic_iv.is_demo(mimic_iv.local_copy(""))
    except InputError:  # none is at hand
        return True


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
    return {name: repr(value) for name, value in configs.flatten(configs.default_config()).items()}


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
    draw(layout, runs, folder / f"{study.name}.png")
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
            before = configs.flatten(read_json(folder / "config.json")) if one.source is None else {}
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
