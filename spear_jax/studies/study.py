"""Describes a study: a grid of runs and what its table shows."""

import dataclasses
import itertools
import runpy
from collections.abc import Mapping, Sequence
from typing import Any

from spear_jax.config import find_file, variants
from spear_jax.errors import InputError
from spear_jax.studies.table import METRICS


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


def load_study(path: str) -> Study:
    """Reads a study's file: get_study(argument) gives the `Study`.

    Raises:
      InputError: there is no such file, or it fails.
    """
    file, _, argument = path.partition(":")
    found = find_file(file)
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
    words = variants(arg, (*PROTOCOL, "time", "random", "debug"))
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
