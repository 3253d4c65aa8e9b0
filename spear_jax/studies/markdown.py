"""Writes the results of a study as Markdown: tables of at most eight columns, and notes."""

from collections.abc import Mapping, Sequence

import pandas as pd

from spear_jax.data import dataset_title
from spear_jax.report import COLUMNS, NAMES
from spear_jax.studies import fold_tables
from spear_jax.studies.folds import POOLED
from spear_jax.studies.planning import PlannedRun
from spear_jax.studies.study import Study
from spear_jax.studies.table_cells import pipe_table, spread

COMPARED = ("auroc", "aupr", "vus_pr")  # metrics whose difference from the reference row is shown

COSTS = {
    "trainable": "trained numbers",
    "best_step": "best step",
    "seconds_per_epoch": "seconds per epoch",
    "optimizer_mib": "optimizer (MiB)",
    "peak_mib": "peak memory (MiB)",
    "cpu_seconds": "CPU seconds",
}

EXPLANATION = (
    "Mean ± standard deviation over seeds, on the test split unless the column says otherwise. Brackets: 95 % bootstrap"
    " interval over series, its ends averaged over seeds."
)


def seed_results(study: Study, planned: Sequence[PlannedRun], table: pd.DataFrame) -> pd.DataFrame:
    """Returns the measured runs of a study, one line for each row and seed, in the order of the rows, controls last.

    Its columns are those of `table` for the test split, and `row` and `validation_aupr`. With folds, a line is about
    the test splits of all of them; controls have none.

    Args:
      study: the study.
      planned: the runs of the study.
      table: measured runs, from `table.result_rows`.
    """
    columns = ["run", "control", "dataset", "warnings", "random_weights", "base_rate", *COMPARED, *study.metrics]
    columns += [*fold_tables.HEADS, *COSTS]
    table = table.reindex(columns=[*table.columns.union(dict.fromkeys(columns), sort=False)])
    aupr = table[table["split"] == "validation"].set_index(["run", "control"])["aupr"].rename("validation_aupr")
    test = table[table["split"] == "test"].drop(columns="seed").join(aupr, on=["run", "control"])
    runs = pd.DataFrame([(run.row, run.seed, run.name) for run in planned], columns=["row", "seed", "run"])
    if study.folds:
        own = runs.merge(test[test["control"] == ""], on="run").astype({"validation_aupr": float})
        validation = own.groupby(["row", "seed"])["validation_aupr"].mean()
        pooled = table[table["split"] == POOLED].drop(columns="seed")
        return runs.merge(pooled, on="run").join(validation, on=["row", "seed"])
    own = runs.merge(test[test["control"] == ""], on="run")
    controls = runs[runs["row"] == study.controls_of].merge(test[test["control"] != ""], on="run")
    controls = controls.assign(row=controls["control"].map(NAMES), **dict.fromkeys(COSTS, float("nan")))
    return pd.concat([own, controls], ignore_index=True) if len(controls) else own


def results_of_study(
    study: Study, planned: Sequence[PlannedRun], table: pd.DataFrame, by_series: pd.DataFrame | None = None
) -> str:
    """Returns the results of a study in Markdown.

    Args:
      study: the study.
      planned: the runs of the study; those missing from the table are listed as not measured yet.
      table: measured runs, from `table.result_rows`.
      by_series: for a study with folds, metrics of each series, from `folds.read_series`.
    """
    results = seed_results(study, planned, table)
    errors = table[table["error"] != ""].set_index("run")["error"].to_dict()
    attempted = {run.row for run in planned if run.name in errors} | set(results["row"])
    by_row = {label: results[results["row"] == label] for label in (*study.rows, *NAMES.values()) if label in attempted}
    notes = [*_warnings(results), *_failures(planned, errors), *_missing(study, planned, table)]
    if study.folds:
        assert by_series is not None
        blocks = _folds(study, planned, table, by_series, by_row)
    else:
        blocks = [*_matrices(study, results), *_metrics(study, by_row), EXPLANATION]
        if study.reference:
            blocks += _differences(study, by_row, results)
    blocks += _costs(study, by_row)
    return "\n\n".join([*blocks, *(["\n".join(notes)] if notes else [])]) + "\n"


def _metrics(study: Study, by_row: Mapping[str, pd.DataFrame]) -> list[str]:
    head = ["base rate", "validation AUPR", *(COLUMNS[metric] for metric in study.metrics)]
    columns = ("base_rate", "validation_aupr", *study.metrics)
    seeds = len(study.seeds)
    lines = [
        [label, f"{seeds}" if len(runs) == seeds else f"{len(runs)} of {seeds}"]
        + [spread(runs, column) for column in columns]
        for label, runs in by_row.items()
    ]
    return [pipe_table([study.varied, "seeds", *head], lines)]


def _folds(
    study: Study,
    planned: Sequence[PlannedRun],
    table: pd.DataFrame,
    by_series: pd.DataFrame,
    by_row: Mapping[str, pd.DataFrame],
) -> list[str]:
    numbers = fold_tables.locate_series(planned, by_series, pd.concat(list(by_row.values())))
    blocks = [*fold_tables.figures_of_folds(study, by_row), fold_tables.explain_folds(study, by_row, numbers)]
    if study.reference in by_row:
        blocks += fold_tables.paired_differences(study, by_row, numbers)
    return [*blocks, *fold_tables.spread_of_folds(study, by_row, table, numbers)]


def _differences(study: Study, by_row: Mapping[str, pd.DataFrame], results: pd.DataFrame) -> list[str]:
    """Returns by how much each row exceeds the reference row: mean and standard deviation over pairs of equal seeds."""
    metrics = list(COMPARED)
    reference = results[results["row"] == study.reference].set_index("seed")[metrics].apply(pd.to_numeric)
    lines = []
    for label, runs in by_row.items():
        if label != study.reference:
            differences = runs.set_index("seed")[metrics].apply(pd.to_numeric) - reference
            lines.append([label, *(spread(differences, metric, sign="+") for metric in metrics)])
    title = f"Difference from {study.reference} with the same seed, and so the same test split:"
    return [title, pipe_table([study.varied, *(COLUMNS[metric] for metric in metrics)], lines)]


def _costs(study: Study, by_row: Mapping[str, pd.DataFrame]) -> list[str]:
    lines = [[label, *(_mean(runs[cost]) for cost in COSTS)] for label, runs in by_row.items()]
    measured = [line for line in lines if any(line[1:])]
    title = "Cost, averaged over seeds" + (", CPU seconds of all folds:" if study.folds else ":")
    return [title, pipe_table([study.varied, *COSTS.values()], measured)] if measured else []


def setting(study: Study, results: pd.DataFrame) -> str:
    """Returns what distinguishes these results from others of the same study: data set and variant."""
    datasets = results["dataset"].dropna().unique()
    title = dataset_title(datasets[0]) if len(datasets) == 1 else ""
    return ", ".join(filter(None, (title, study.variant)))


def heading(study: Study, results: pd.DataFrame) -> str:
    """Returns a study's title with data set and variant."""
    return ": ".join(filter(None, (study.title, setting(study, results))))


def _mean(costs: pd.Series) -> str:
    mean = costs.dropna().mean()
    return "" if pd.isna(mean) else f"{mean:.2f}" if mean < 1 else f"{mean:,.0f}"


def _matrices(study: Study, results: pd.DataFrame) -> list[str]:
    """Returns a table for each matrix and metric of a study, with a line for each training set."""
    blocks = []
    for matrix, metrics in study.matrices.items():
        cells = matrix_cells(study, matrix)
        origins, targets = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
        for metric in metrics:
            values = results[["row", metric]]  # without the ends of intervals
            lines = [
                [origin] + [spread(values[values["row"] == cells.get((origin, target))], metric) for target in targets]
                for origin in origins
            ]
            title = f"{COLUMNS[metric]}, {matrix}; trained on (line), tested on (column):"
            blocks += [title, pipe_table(["", *targets], lines)]
    return blocks


def matrix_cells(study: Study, matrix: str) -> dict[tuple[str, str], str]:
    """Returns the row shown in each cell of a matrix, by training set and test set."""
    return {
        (origin, target): label
        for label, row in study.rows.items()
        for name, origin, target in row.cells
        if name == matrix
    }


def _warnings(results: pd.DataFrame) -> list[str]:
    """Returns the warnings of the runs without duplicates, and the rows with random weights."""
    several = results["dataset"].nunique() > 1
    warnings = {
        f"- {f'{dataset}: ' if several else ''}{warning}": None
        for dataset, text in zip(results["dataset"], results["warnings"], strict=True)
        for warning in text.splitlines()
    }
    random = results[results["random_weights"].fillna(False).astype(bool)]["row"].unique()
    rows = "all rows" if len(random) == results["row"].nunique() else "; ".join(random)
    return [*warnings, *([f"- RANDOM WEIGHTS, nothing pretrained: {rows}"] if len(random) else [])]


def _failures(planned: Sequence[PlannedRun], errors: Mapping[str, str]) -> list[str]:
    return [
        f"- failed: {run.row}, seed {run.seed}{_fold(run)} (`{run.name}`): {errors[run.name]}"
        for run in planned
        if run.name in errors
    ]


def _fold(run: PlannedRun) -> str:
    return f", fold {run.fold}" if run.config["data.folds"] else ""


def _missing(study: Study, planned: Sequence[PlannedRun], table: pd.DataFrame) -> list[str]:
    """Returns notes about missing measurements: planned runs, and rows that need weights or an API."""
    measured = set(table["run"])
    seeds: dict[str, dict[str, None]] = {}  # of a run or, with folds, of any of its runs
    for run in planned:
        if run.name not in measured:
            seeds.setdefault(run.row, {})[str(run.seed)] = None
    missing = [
        label if len(absent) == len(study.seeds) else f"{label} (seed {', '.join(absent)})"
        for label, absent in seeds.items()
    ]
    by_command: dict[str, list[str]] = {}
    for label, command in study.not_measured.items():
        by_command.setdefault(command, []).append(label)
    return [
        *([f"- not measured yet: {'; '.join(missing)}"] if missing else []),
        *(f"- not measured, needs weights or an API: {'; '.join(rows)}: `{way}`" for way, rows in by_command.items()),
    ]
