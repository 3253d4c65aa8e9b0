"""Plans a study: one checked run for each row and seed."""

import dataclasses
import functools
import hashlib
import json
import shlex
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from spear_jax.config import IRRELEVANT, check_evaluate_override, default_config, load_valid_config, stored_values
from spear_jax.data import is_demo, mimic_iv_copy
from spear_jax.errors import InputError
from spear_jax.studies.study import Row, Study


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
      row: label of its row.
      seed: its seed.
      name: name of its folder; equal for equal configs, so that studies can share runs.
      arguments: its command line without --workdir, with {source} in place of the source's folder.
      config: its resolved config by dotted name.
      public: whether its data are publicly available, so that published results can replace the run.
      source: run whose detector this one starts from; None means that it starts from scratch.
      fold: the fold that it is tested on; 0 in a study without folds.
    """

    row: str
    seed: int
    name: str
    arguments: tuple[str, ...]
    config: Mapping[str, Any]
    public: bool
    source: "PlannedRun | None" = None
    fold: int = 0

    @property
    def command(self) -> str:
        """Returns the command line shown in tables, relative to the folder of the study."""
        source = f"runs/{self.source.name}" if self.source else ""
        return shlex.join(
            ["python", "-m", "spear_jax.main", *(part.replace("{source}", source) for part in self.arguments)]
        )


def plan(study: Study, overrides: Mapping[str, str]) -> list[PlannedRun]:
    """Returns the runs of a study, by row, seed and fold; all of them are checked before the first one starts.

    Raises:
      InputError: the config of a run is impossible.
    """
    if "seed" in overrides:
        raise InputError("--config.seed has no effect on a study, which lists its seeds")
    for field in ("data.folds", "data.fold"):
        if study.folds and field in overrides:
            raise InputError(f"--config.{field} has no effect on this study, which runs all of its {study.folds} folds")
    return [
        _plan(study, label, row, seed, fold, overrides)
        for label, row in study.rows.items()
        for seed in study.seeds
        for fold in range(study.folds or 1)
    ]


def _plan(study: Study, label: str, row: Row, seed: int, fold: int, overrides: Mapping[str, str]) -> PlannedRun:
    source = _plan(study, label, row.source, seed, fold, overrides) if row.source else None
    path = row.config or study.config
    folds = {"data.folds": study.folds, "data.fold": fold} if study.folds else {}
    own = {**study.overrides, **row.overrides, **({} if row.evaluate else {"seed": seed}), **folds, **overrides}
    config = load_valid_config(path, {field: str(value) for field, value in own.items()})
    for field in overrides if row.evaluate else ():
        check_evaluate_override(field, reuse_threshold=config.threshold.reuse)
    arguments = [f"--config={path}", *(f"--config.{field}={value}" for field, value in own.items())]
    name = run_name(config)
    if source and row.evaluate:
        arguments += ["--mode=evaluate", "--detector={source}"]
        name += f"-by-{source.name}"
    elif source:
        arguments += ["--config.train.init_from={source}"]
        name += f"-from-{source.name}"
    return PlannedRun(label, seed, name, tuple(arguments), stored_values(config), _is_public(config), source, fold)


def run_name(config: ConfigDict) -> str:
    """Returns a name that is the same for equal configs only; fields added later do not change it."""
    defaults = _default_values()
    changed = {
        field: value
        for field, value in stored_values(config).items()
        if field not in IRRELEVANT and value != defaults[field]
    }
    digest = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:12]
    return f"{config.data.name}-{config.method}-{digest}"


@functools.cache
def _default_values() -> dict[str, Any]:
    return stored_values(default_config())


def _is_public(config: ConfigDict) -> bool:
    """Returns whether the data are publicly available: no user files or local copy, and only the demo of MIMIC-IV."""
    if config.data.dir or config.data.name == "files":
        return False
    if config.data.name != "mimic_iv":
        return True
    try:
        return is_demo(mimic_iv_copy(""))
    except InputError:  # there is no copy here
        return True
