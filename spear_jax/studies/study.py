"""Describes studies: grids of configs that are run with several seeds to answer one question."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from spear_jax.config import run_file, variants
from spear_jax.errors import InputError

SEEDS = (0, 1, 2)

# The protocol of every comparison, sized for two CPU cores: few named series, non-overlapping windows, five epochs.
# controls.head_only is off because prompt.length=0 is a row of its own.
_FIVE_EPOCHS = {"train.epochs": 5, "train.decay_steps": 150, "controls.head_only": False}
PROTOCOL: dict[str, dict[str, Any]] = {
    "nasa": {**_FIVE_EPOCHS, "data.limit_series": 24},
    "nab": _FIVE_EPOCHS,
    "mimic_iv": {**_FIVE_EPOCHS, "data.limit_series": 300},
}
DEBUG = {**_FIVE_EPOCHS, "train.epochs": 2, "data.limit_series": 8}

# The protocol of comparisons over all folds. Five epochs are 240 to 310 steps on NASA, NAB and the MIMIC-IV demo.
_ALL_SERIES = {**_FIVE_EPOCHS, "train.decay_steps": 250}
FOLDS = 4
FOLD_PROTOCOL: dict[str, dict[str, Any]] = {
    "nasa81": _ALL_SERIES,
    "nab58": _ALL_SERIES,
    "mimic_iv": _ALL_SERIES,
    "synthetic": {
        **_ALL_SERIES,
        "data.synthetic.series": 120,
        # The values of configs/nasa.py, so that the data sets differ in their data alone.
        "data.window": 128,
        "data.stride": 128,
        "data.fractions": (0.6, 0.2, 0.2),
        "quantizer.margin": 0.25,
        "embedding.kind": "numbers",
        "head.init": "fitted",
        "train.head_learning_rate": 1e-3,
    },
}
_CONFIGS = {
    "nasa81": "configs/nasa.py:nasa81,{}",
    "nab58": "configs/nab.py:nab58,{}",
    "mimic_iv": "configs/mimic_iv.py:{}",
    "synthetic": "configs/quickstart.py:{}",
}
# As many series as leave no fold empty; generated series are never limited, their number is the data set.
_DEBUG_LIMITS = {"nasa81": 12, "nab58": 12, "mimic_iv": 60, "synthetic": 0}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a study's table: one config, run once with each seed.

    Attributes:
      overrides: config fields by dotted name, on top of the study's.
      config: config file and argument, as in --config=; '' means the study's.
      source: row whose detector this one starts from, seed by seed; None means that it starts from scratch.
      evaluate: whether the source's detector is applied unchanged, so that nothing is trained.
      cells: cells of the study's matrices that show this row, each (matrix, trained on, tested on).
    """

    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: str = ""
    source: "Row | None" = None
    evaluate: bool = False
    cells: tuple[tuple[str, str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Study:
    """A grid of runs that answers one question: each row of its table is a config, run once with each seed.

    Attributes:
      name: stem of the file names of its table, page and figure.
      title: heading of its page and figure.
      question: the question it answers, in one or two sentences.
      varied: what the rows differ in, the head of the first column.
      rows: rows by label.
      config: config file and argument that all runs start from, as in --config=.
      overrides: config fields that all rows share, by dotted name.
      seeds: seeds of each row.
      variant: what differs from the study's usual form, such as 'split by time'.
      path: file and argument that it was loaded from, as in --config=.
      axis: config field along which the figure is drawn; '' means one line of the figure per row.
      controls_of: row whose controls get rows of their own; '' means none.
      reference: row that the others are compared with, seed by seed; '' means none.
      metrics: metrics of the test split that the table shows.
      matrices: metrics shown in each of the matrices that `Row.cells` name.
      folds: K to run each row and seed once for each of K folds (`data.folds`) and to show their test splits together,
        pooled over steps and by series, instead of `metrics`, `matrices` and controls; 0 for runs without folds.
      not_measured: rows that need weights or an API -> the command that measures them.
    """

    name: str
    title: str
    question: str
    varied: str
    rows: Mapping[str, Row]
    config: str = ""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: Sequence[int] = SEEDS
    variant: str = ""
    path: str = ""
    axis: str = ""
    controls_of: str = ""
    reference: str = ""
    metrics: Sequence[str] = ("auroc", "aupr", "f1", "vus_pr")
    matrices: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    not_measured: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folds: int = 0


def load_study(path: str) -> Study:
    """Loads the file of a study, see `run_file`."""
    return dataclasses.replace(run_file(path, "get_study", Study), path=path)


def grid(**values: Sequence[Any]) -> dict[str, Row]:
    """Returns a row for each combination of values; prompt__length=(0, 5) varies prompt.length."""
    fields = [name.replace("__", ".") for name in values]
    combinations = itertools.product(*values.values())
    return {
        ", ".join(map(str, combination)): Row(dict(zip(fields, combination, strict=True)))
        for combination in combinations
    }


def on_data_set(study: Study, arg: str) -> Study:
    """Returns a study on the data set that a config argument names, under the common protocol.

    Args:
      study: the study; its overrides take precedence over the protocol's.
      arg: 'nasa' (default), 'nab' or 'mimic_iv'; 'time' or 'random' for another split than 'series'; 'debug' for
        random:tiny, two epochs and two seeds.

    Raises:
      InputError: a word is not allowed, or two words exclude each other.
    """
    words = variants(arg, (*PROTOCOL, "time", "random", "debug"))
    for exclusive in (words & PROTOCOL.keys(), words & {"time", "random"}):
        if len(exclusive) > 1:
            raise InputError(f"config argument {arg!r}: {', '.join(sorted(exclusive))} exclude each other")
    data = next((name for name in PROTOCOL if name in words), "nasa")
    split = next((name for name in ("time", "random") if name in words), "")
    own = [study.overrides, *(row.overrides for row in study.rows.values())]
    if split and any("data.split" in overrides for overrides in own):
        raise InputError(f"config argument {split!r}: this study sets data.split itself")
    debug = "debug" in words
    protocol = DEBUG if debug else PROTOCOL[data]
    marks = [f"split by {split}" if split == "time" else "random split"] if split else []
    return dataclasses.replace(
        study,
        name="-".join(filter(None, (study.name, data, split, "debug" if debug else ""))),
        variant=", ".join([*marks, *(["debug: random weights"] if debug else [])]),
        config=f"configs/{data}.py:{'debug' if debug else 'minilm'}",
        overrides={**protocol, **({"data.split": split} if split else {}), **study.overrides},
        seeds=study.seeds[:2] if debug else study.seeds,
    )


def on_folds(study: Study, arg: str) -> Study:
    """Returns a study on all folds of the data set that a config argument names, under the common protocol.

    Args:
      study: the study; its overrides take precedence over the protocol's.
      arg: 'nasa81' (default), 'nab58', 'mimic_iv' or 'synthetic'; 'debug' for random:tiny, two epochs, few series and
        one seed.

    Raises:
      InputError: a word is not allowed, or two words exclude each other.
    """
    words = variants(arg, (*FOLD_PROTOCOL, "debug"))
    named = sorted(words & FOLD_PROTOCOL.keys())
    if len(named) > 1:
        raise InputError(f"config argument {arg!r}: {', '.join(named)} exclude each other")
    data = named[0] if named else "nasa81"
    protocol, word = FOLD_PROTOCOL[data], "frozen" if data == "synthetic" else "minilm"
    if debug := "debug" in words:
        few = {"data.synthetic.series": 12} if data == "synthetic" else {}
        protocol, word = {**protocol, **DEBUG, "data.limit_series": _DEBUG_LIMITS[data], **few}, "debug"
    return dataclasses.replace(
        study,
        name="-".join(filter(None, (study.name, data, "debug" if debug else ""))),
        variant="debug: random weights" if debug else "",
        config=_CONFIGS[data].format(word),
        overrides={**protocol, **study.overrides},
        seeds=study.seeds[:1] if debug else study.seeds,
        folds=FOLDS,
    )
