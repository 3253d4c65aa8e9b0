"""Runs a study, each run once and in a separate process, and writes a table, a page and a figure of the results."""

import fcntl
import itertools
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from spear_jax.config import EXTENDABLE, IRRELEVANT, flatten
from spear_jax.errors import InputError
from spear_jax.evaluation import read_results
from spear_jax.storage import read_json, write_whole
from spear_jax.studies.folds import POOLED, group_folds, pool_folds, read_run_series, read_series, write_series
from spear_jax.studies.markdown import heading, results_of_study, seed_results
from spear_jax.studies.planning import PlannedRun, plan
from spear_jax.studies.plot import draw_study
from spear_jax.studies.study import Study
from spear_jax.studies.table import changed_defaults, make_table, read_tables, result_rows, write_table


def run_study(study: Study, overrides: Mapping[str, str], workdir: Path, published: Path) -> str:
    """Runs everything that is not measured yet; writes the study's table, page and figure, and returns the page.

    A failed run is listed with its error, and retried when the study is started again.

    Args:
      study: the study.
      overrides: config fields from the command line, for all runs.
      workdir: gets <name>.parquet, <name>.md, <name>.png and runs/, which several studies may share; with folds, also
        <name>_series.parquet.
      published: folder of tables; runs measured in one of them with the current defaults are not repeated.

    Raises:
      InputError: a run's config is impossible, or the workdir is a file.
    """
    planned = plan(study, overrides)
    workdir = workdir.resolve()  # runs record the paths of their sources
    for folder in (workdir, workdir / "runs"):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--workdir={workdir}: {folder} is a file; it must be a new folder or one with studies")
    published_series = read_series(published, study.name)
    runs = _Runs(workdir / "runs", _published_rows(published), published_series)
    workdir.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, list[dict[str, Any]]] = {}
    with tqdm(total=len(planned), desc=study.title, unit="run", disable=None) as bar:
        for folds in group_folds(planned) if study.folds else [[run] for run in planned]:
            if any(run.name not in outcomes for run in folds):
                outcomes |= runs.pooled(folds) if study.folds else {folds[0].name: runs.outcome(folds[0])}
            bar.update(len(folds))
    table = make_table([row for rows in outcomes.values() for row in rows], study.path)
    title = heading(study, seed_results(study, planned, table))
    by_series = runs.by_series(outcomes) if study.folds else None
    page = f"# {title}\n\n{study.question}\n\n{results_of_study(study, planned, table, by_series)}"
    write_table(workdir / f"{study.name}.parquet", table)
    if by_series is not None:
        write_series(workdir, study.name, study.path, by_series)
    write_whole(workdir / f"{study.name}.md", page)
    write_whole(workdir / f"{study.name}.png", draw_study(study, planned, table))
    return page


def _published_rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of all successful runs in a folder's tables, by run."""
    rows: dict[str, list[dict[str, Any]]] = {}
    refused: dict[str, None] = {}
    for table in read_tables(folder).values():
        changed = changed_defaults(table)
        if changed:
            refused["; ".join(changed)] = None
            continue
        for run, own in table[table["error"] == ""].groupby("run", sort=False):
            rows[str(run)] = own.to_dict("records")
    for reason in refused:
        print(f"{folder}: not used, because it was measured with other defaults ({reason})")
    return rows


class _Runs:
    """Executes runs in a folder that several studies may share, each at most once."""

    def __init__(
        self, folder: Path, published: Mapping[str, list[dict[str, Any]]], published_series: pd.DataFrame
    ) -> None:
        self._folder = folder
        self._published = published
        self._published_series = published_series
        self._errors: dict[str, str] = {}

    def outcome(self, run: PlannedRun) -> list[dict[str, Any]]:
        """Returns the rows of a run, executing it if necessary; a single row with the error if it failed."""
        if run.public and run.name in self._published:
            return self._published[run.name]
        return self._executed(run)

    def _executed(self, run: PlannedRun) -> list[dict[str, Any]]:
        error = self._execute_once(run)
        if error:
            failed = {"run": run.name, "seed": run.seed, "split": "", "control": "", "error": error}
            return [{**failed, "command": run.command}]
        rows = result_rows(run.name, read_results(self._folder / run.name / "results.json"))
        return [{**row, "command": run.command} for row in rows]

    def pooled(self, folds: Sequence[PlannedRun]) -> dict[str, list[dict[str, Any]]]:
        """Returns the rows of each run; if none failed, that of fold 0 has one more, about all folds together.

        Args:
          folds: the runs of one row and seed.
        """
        series = set(self._published_series["run"])
        rows = {run.name: self._published.get(run.name, []) if run.public else [] for run in folds}
        if all(rows.values()) and rows.keys() <= series and any(row["split"] == POOLED for row in rows[folds[0].name]):
            return rows
        # Scores are not published, so all runs are needed here.
        rows = {run.name: self._executed(run) for run in folds}
        if not any(row["error"] for row in itertools.chain(*rows.values())):
            own = [
                next(row for row in rows[run.name] if (row["split"], row["control"]) == ("test", "")) for run in folds
            ]
            rows[folds[0].name].append(pool_folds(own, [self._folder / run.name for run in folds]))
        return rows

    def by_series(self, names: Iterable[str]) -> pd.DataFrame:
        """Returns the metrics of each series of the named runs: of finished ones here, else as published."""
        frames = []
        for name in names:
            if (self._folder / name / "results.json").is_file() and not self._errors.get(name):
                frames.append(read_run_series(name, self._folder / name))
            else:
                frames.append(self._published_series[self._published_series["run"] == name])
        return pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)

    def _execute_once(self, run: PlannedRun) -> str:
        if run.name not in self._errors:
            self._errors[run.name] = self._execute(run)
        return self._errors[run.name]

    def _execute(self, run: PlannedRun) -> str:
        """Ensures that the run's folder contains its results; returns the error, or '' for none."""
        source = ""
        if run.source:
            error = self._execute_once(run.source)
            if error:
                return f"its source {run.source.name} failed: {error}"
            source = str(self._folder / run.source.name)
        start = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        workdir, log_path = self._folder / run.name, self._folder / f"{run.name}.log"
        with log_path.open("ab") as log:
            # Another study may execute the same run. The run itself keeps the locked log open, so the lock lasts as
            # long as the run, even if the study is killed.
            fcntl.flock(log, fcntl.LOCK_EX)
            # The program itself finds out whether the user's own files are still those of a finished run.
            if (workdir / "results.json").is_file() and run.config["data.name"] != "files":
                return _other_defaults(run, workdir)
            arguments = [argument.replace("{source}", source) for argument in run.arguments]
            finished = subprocess.run(
                [sys.executable, "-m", "spear_jax.main", *arguments, f"--workdir={workdir}"],
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
            if finished.returncode == 0:
                return ""
            lines = [line.strip() for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
        last = lines[-1][:300] if lines else "no output"
        return f"exit code {finished.returncode} after {time.monotonic() - start:.0f} s: {last}"


def _other_defaults(run: PlannedRun, workdir: Path) -> str:
    """Returns an error if a finished run has another config than planned, although its name is the same."""
    if run.source:  # its config.json contains fields of the source's detector
        return ""
    config = flatten(read_json(workdir / "config.json"))
    compared = config.keys() & run.config.keys() - {*IRRELEVANT, *EXTENDABLE}
    # What is 'auto' in the plan was chosen by the run.
    changed = sorted(field for field in compared if run.config[field] not in (config[field], "auto"))
    return f"{workdir} was run with other defaults of {', '.join(changed)}; remove it" if changed else ""
