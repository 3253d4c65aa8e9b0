"""Builds docs/results/ and the headline table of RESULTS.md from the tables in this folder.

python results/build.py [WORKDIR]

WORKDIR is the --workdir of a study: what was measured there is added to the tables first. Of a page, only the section
"Findings" is written by hand; it is kept.
"""

import functools
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from spear_jax.data import dataset_title
from spear_jax.errors import InputError
from spear_jax.storage import write_whole
from spear_jax.studies import (
    PROTOCOL,
    PlannedRun,
    Study,
    changed_defaults,
    draw_study,
    heading,
    load_study,
    make_table,
    pipe_table,
    plan,
    read_series,
    read_tables,
    results_of_study,
    seed_results,
    setting,
    write_series,
    write_table,
)

TABLES = Path(__file__).parent
ROOT = TABLES.parent
PAGES = ROOT / "docs" / "results"
FINDINGS = re.compile(r"^## Findings\n\n(.*?)(?=^## )", re.DOTALL | re.MULTILINE)
HEADLINE = re.compile(r"(<!-- headline -->\n).*?(<!-- end -->)", re.DOTALL)
HEADLINE_ROWS = (
    "SPEAR",
    "control: prompt of vocabulary rows, untrained",
    "control: head only (m = 0), by gradient descent",
    "control: random backbone (one draw)",
    "bidirectional LSTM",
    "gradient boosting",
    "isolation forest (no labels)",
    "1-nearest neighbour (no labels)",
    "random scores",
)


@functools.cache
def load_planned(path: str) -> tuple[Study, list[PlannedRun]]:
    """Loads a study and plans its runs."""
    study = load_study(path)
    return study, plan(study, {})


def check_defaults(tables: Mapping[str, pd.DataFrame]) -> None:
    """Refuses tables that were measured with other defaults than today's.

    Raises:
      InputError: a default has changed since.
    """
    for name, table in tables.items():
        changed = changed_defaults(table)
        if changed:
            raise InputError(f"{name}.parquet: measured with other defaults ({'; '.join(changed)}); measure again")


def add(workdir: Path, folder: Path) -> None:
    """Adds the runs of a study's workdir to a folder of tables; a failed run replaces no successful one.

    Raises:
      InputError: they were measured with other defaults.
    """
    published, measured = read_tables(folder), read_tables(workdir)
    check_defaults(published)
    check_defaults(measured)
    for name, table in measured.items():
        study, planned = load_planned(table.attrs["study"])
        rows = table[table["run"].isin([run.name for run in planned if run.public])]
        if name in published:
            successful = rows[rows["error"] == ""]["run"]
            kept = published[name][~published[name]["run"].isin(successful)]
            rows = pd.concat([kept, rows[~rows["run"].isin(kept["run"])]])
        if len(rows):
            write_table(folder / f"{name}.parquet", make_table(rows.to_dict("records"), study.path))
        if len(rows) and study.folds:
            series = read_series(workdir, name)
            series = series[series["run"].isin(rows["run"])]
            older = read_series(folder, name)
            series = pd.concat([older[~older["run"].isin(series["run"])], series])
            write_series(folder, name, study.path, series)


def page(file: str, tables: Sequence[pd.DataFrame], findings: str) -> str:
    """Returns a study's page.

    Args:
      file: the study's config file.
      tables: its tables, one for each argument that it was run with.
      findings: text of that section, in Markdown.
    """
    study = load_study(file)
    blocks = [
        f"# {study.title}",
        '<!-- Built by results/build.py; only the section "Findings" is written by hand. -->',
        study.question,
        "## Findings",
        findings.strip(),
    ]
    for table in tables:
        study, planned = load_planned(table.attrs["study"])
        results = seed_results(study, planned, table)
        blocks += [
            f"## {setting(study, results) or 'Results'}",
            f"![{heading(study, results)}]({study.name}.png)",
            results_of_study(study, planned, table, read_series(TABLES, study.name)).strip(),
            f"`python -m spear_jax.main --mode=study --config={study.path} --workdir=runs/studies`",
        ]
    return "\n\n".join(blocks) + "\n"


def index(by_file: Mapping[str, Sequence[pd.DataFrame]]) -> str:
    """Returns the list of all pages."""
    lines = []
    for file, tables in by_file.items():
        study = load_study(file)
        datasets = dict.fromkeys(dataset_title(name) for table in tables for name in table["dataset"].dropna().unique())
        question = study.question.partition("?")[0] + "?"
        lines.append([f"[{study.title}]({Path(file).stem}.md)", question, "; ".join(datasets)])
    blocks = [
        "# Measured results",
        "One page per study, built by `python results/build.py` from the tables in [results/](../../results/README.md)."
        " The protocol, the paper's claims and a summary are in [RESULTS.md](../../RESULTS.md).",
        pipe_table(["study", "question", "data"], sorted(lines)),
        "Outside the studies: [single runs](single_runs.md), some on all 81 channels of NASA; [inputs that know a"
        " series' past](own_past.md); [memory](memory.md); [TPU](tpu.md), compiled;"
        " [speed](../../benchmarks/README.md).",
    ]
    return "\n\n".join(blocks) + "\n"


def headline(tables: Mapping[str, pd.DataFrame]) -> str:
    """Returns the headline table: AUROC, AUPR and VUS-PR of some methods on each data set."""
    columns: dict[str, dict[str, str]] = {}
    for name in ("methods-nasa", "methods-nab", "methods-mimic_iv"):
        study, planned = load_planned(tables[name].attrs["study"])
        results = seed_results(study, planned, tables[name])
        means = results.groupby("row")[["auroc", "aupr", "vus_pr"]].mean()
        title = f"{setting(study, results)} (base rate {_short(results['base_rate'].mean(), 2)})"
        columns[title] = {label: " / ".join(map(_short, means.loc[label])) for label in HEADLINE_ROWS}
    head = ["test AUROC / AUPR / VUS-PR", *columns]
    return pipe_table(head, ([label, *(cells[label] for cells in columns.values())] for label in HEADLINE_ROWS))


def _short(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}".removeprefix("0")


def _order(table: pd.DataFrame) -> int:
    """Sorts tables by data set, NASA first."""
    config = load_planned(table.attrs["study"])[0].config
    return next((i for i, name in enumerate(PROTOCOL) if f"/{name}." in config), 0)


def build(tables: Mapping[str, pd.DataFrame]) -> dict[Path, str]:
    """Returns the text of every generated file, by path.

    Raises:
      InputError: the tables were measured with other defaults.
    """
    check_defaults(tables)
    by_file: dict[str, list[pd.DataFrame]] = {}
    for table in sorted(tables.values(), key=_order):
        by_file.setdefault(table.attrs["study"].partition(":")[0], []).append(table)
    files = {PAGES / "index.md": index(by_file)}
    for file, own in by_file.items():
        path = PAGES / f"{Path(file).stem}.md"
        findings = FINDINGS.search(path.read_text()) if path.is_file() else None
        files[path] = page(file, own, findings[1] if findings else "Not written yet.")
    text = (ROOT / "RESULTS.md").read_text()
    files[ROOT / "RESULTS.md"] = HEADLINE.sub(lambda match: f"{match[1]}{headline(tables)}\n{match[2]}", text)
    return files


def main() -> None:
    """Adds what a study measured, if a folder is given, and rewrites the generated files and the figures."""
    if len(sys.argv) > 1:
        add(Path(sys.argv[1]), TABLES)
    tables = read_tables(TABLES)
    for path, text in build(tables).items():
        write_whole(path, text.encode())
    for name, table in tables.items():
        write_whole(PAGES / f"{name}.png", draw_study(*load_planned(table.attrs["study"]), table))


if __name__ == "__main__":
    main()
