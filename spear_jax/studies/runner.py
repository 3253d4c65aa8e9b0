"""Runs a study, each run once and in a separate process, and writes a table, a page and a figure of the results."""

import fcntl
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from spear_jax.config import EXTENDABLE, IRRELEVANT, flatten
from spear_jax.errors import InputError
from spear_jax.storage import read_json, write_whole
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
      workdir: gets <name>.parquet, <name>.md, <name>.png and runs/, which several studies may share.
      published: folder of tables; runs measured in one of them with the current defaults are not repeated.

    Raises:
      InputError: a run's config is impossible, or the workdir is a file.
    """
    planned = plan(study, overrides)
    workdir = workdir.resolve()  # runs record the paths of their sources
    for folder in (workdir, workdir / "runs"):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--workdir={workdir}: {folder} is a file; it must be a new folder or one with studies")
    runs = _Runs(workdir / "runs", _published_rows(published))
    workdir.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, list[dict[str, Any]]] = {}
    with tqdm(planned, desc=study.title, unit="run", disable=None) as bar:
        for run in bar:
            if run.name not in outcomes:
                outcomes[run.name] = runs.outcome(run)
    table = make_table([row for rows in outcomes.values() for row in rows], study.path)
    title = heading(study, seed_results(study, planned, table))
    page = f"# {title}\n\n{study.question}\n\n{results_of_study(study, planned, table)}"
    write_table(workdir / f"{study.name}.parquet", table)
    write_whole(workdir / f"{study.name}.md", page.encode())
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

    def __init__(self, folder: Path, published: Mapping[str, list[dict[str, Any]]]) -> None:
        self._folder = folder
        self._published = published
        self._errors: dict[str, str] = {}

    def outcome(self, run: PlannedRun) -> list[dict[str, Any]]:
        """Returns the rows of a run, executing it if necessary; a single row with the error if it failed."""
        if run.public and run.name in self._published:
            return self._published[run.name]
        error = self._execute_once(run)
        if error:
            failed = {"run": run.name, "seed": run.seed, "split": "", "control": "", "error": error}
            return [{**failed, "command": run.command}]
        rows = result_rows(run.name, read_json(self._folder / run.name / "results.json"))
        return [{**row, "command": run.command} for row in rows]

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
            if (workdir / "results.json").is_file():
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
    changed = sorted(field for field in compared if config[field] != run.config[field])
    return f"{workdir} was run with other defaults of {', '.join(changed)}; remove it" if changed else ""
