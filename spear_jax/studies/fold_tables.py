"""Shows studies with folds in Markdown: figures of all folds, paired differences, and where single folds disagree."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from spear_jax.evaluation import paired_interval
from spear_jax.studies.folds import SERIES_METRICS
from spear_jax.studies.planning import PlannedRun
from spear_jax.studies.study import Study
from spear_jax.studies.table_cells import pipe_table, spread

HEADS = {
    "auroc": "AUROC, pooled",
    "aupr": "AUPR, pooled",
    "series_auroc": "AUROC by series",
    "series_aupr": "AUPR by series",
    "vus_pr": "VUS-PR by series",
}
"""Metric of a pooled row -> its name in tables."""

JUDGED = ("aupr", "vus_pr")
"""Metrics in which folds are compared with all of them: one pooled over steps, one by series."""

# The metric of a single series behind each mean over series.
_BY_SERIES = {"series_auroc": "auroc", "series_aupr": "aupr", "vus_pr": "vus_pr"}


def explain_folds(study: Study, by_row: Mapping[str, pd.DataFrame], numbers: pd.DataFrame) -> str:
    """Returns what the figures of the first table are; arguments as for `paired_differences`."""
    rates = sorted({f"{rate:.3f}" for runs in by_row.values() for rate in runs["base_rate"].dropna()})
    return (
        f"Mean ± standard deviation over seeds, on the test splits of all {study.folds} folds together: every series is"
        " tested once, by a detector that never saw its labels. Pooled: over the steps of all series, although each"
        f" fold's scores come from another detector; base rate {' or '.join(rates) or '-'}. By series: mean over the"
        f" {numbers['series'].nunique()} series with normal and anomalous steps. Validation AUPR: mean over folds."
    )


def figures_of_folds(study: Study, by_row: Mapping[str, pd.DataFrame]) -> list[str]:
    """Returns the table of all rows.

    Args:
      study: the study.
      by_row: the pooled results of each row, a line per seed.
    """
    seeds = len(study.seeds)
    lines = [
        [label, f"{seeds}" if len(runs) == seeds else f"{len(runs)} of {seeds}", spread(runs, "validation_aupr")]
        + [spread(runs, metric) for metric in HEADS]
        for label, runs in by_row.items()
    ]
    return [pipe_table([study.varied, "seeds", "validation AUPR", *HEADS.values()], lines)]


def paired_differences(study: Study, by_row: Mapping[str, pd.DataFrame], numbers: pd.DataFrame) -> list[str]:
    """Returns by how much each row exceeds the reference row, with equal seeds and on equal series.

    Args:
      study: the study.
      by_row: the pooled results of each row, a line per seed.
      numbers: metrics of each series, from `locate_series`.
    """
    pooled = {row: runs.set_index("seed")[["auroc", "aupr"]].apply(pd.to_numeric) for row, runs in by_row.items()}
    own_series = dict(iter(numbers.groupby("row")))
    lines = []
    for label, runs in by_row.items():
        if label == study.reference or not len(runs) or not len(by_row[study.reference]):
            continue
        differences = pooled[label] - pooled[study.reference]
        ours, theirs = (own_series.get(row, numbers[:0]) for row in (label, study.reference))
        pairs = ours.merge(theirs, on=["seed", "series"], suffixes=("", "_reference"))
        # Seeds first: the interval is about other series, not about other seeds.
        means = pairs.groupby("series").mean(numeric_only=True)
        cells = [_difference(means[metric] - means[f"{metric}_reference"]) for metric in _BY_SERIES.values()]
        lines.append(
            [label, f"{len(means)}", *(spread(differences, metric, sign="+") for metric in differences), *cells]
        )
    if not lines:
        return []
    title = (
        f"Difference from {study.reference} with the same seeds, on the same series. Pooled: mean ± standard deviation"
        " over seeds. By series: figures of a series averaged over seeds, then mean and 95 % interval of a paired"
        " bootstrap over series."
    )
    return [title, pipe_table([study.varied, "series", *HEADS.values()], lines)]


def locate_series(planned: Sequence[PlannedRun], by_series: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """Returns the metrics by series with row, seed and fold of their run, for each row and seed with all folds.

    Args:
      planned: the runs of the study.
      by_series: from `folds.read_series`.
      results: from `markdown.seed_results`, which has the rows and seeds with all folds.
    """
    columns = ["row", "seed", "fold", "run"]
    runs = pd.DataFrame([(run.row, run.seed, run.fold, run.name) for run in planned], columns=columns)
    complete = runs.merge(results[["row", "seed"]], on=["row", "seed"])
    return complete.merge(by_series, on="run")[[*columns, "series", *SERIES_METRICS]]


def spread_of_folds(
    study: Study, by_row: Mapping[str, pd.DataFrame], table: pd.DataFrame, numbers: pd.DataFrame
) -> list[str]:
    """Returns the lowest and highest fold of each row, and the comparisons in which folds disagree with all of them.

    Args:
      study: the study.
      by_row: the pooled results of each row, a line per seed.
      table: measured runs, from `table.result_rows`.
      numbers: metrics of each series, from `locate_series`.
    """
    figures = _figures_by_fold(table, numbers)
    measured = [label for label in by_row if label in figures.index]
    lines = [
        [label, *(f"{low:.3f} to {high:.3f}" for low, high in figures.loc[label].agg(["min", "max"]).T.to_numpy())]
        for label in measured
    ]
    if not lines:
        return []
    title = f"Lowest and highest of the {study.folds} folds, each averaged over seeds:"
    blocks = [title, pipe_table([study.varied, *HEADS.values()], lines)]
    remarks = [
        remark
        for label in measured
        if study.reference in measured and label != study.reference
        for metric in JUDGED
        if (remark := _disagreement(study, label, metric, by_row, figures))
    ]
    if remarks:
        blocks += ["Single folds that say otherwise than all of them:", "\n".join(remarks)]
    return blocks


def _figures_by_fold(table: pd.DataFrame, numbers: pd.DataFrame) -> pd.DataFrame:
    """Returns the metrics of `HEADS` by row and fold, averaged over seeds."""
    runs = numbers.groupby(["row", "seed", "fold", "run"], sort=False)[list(_BY_SERIES.values())].mean()
    runs.columns = pd.Index(_BY_SERIES)
    test = table[(table["split"] == "test") & (table["control"] == "")].set_index("run")[["auroc", "aupr"]]
    return runs.join(test.apply(pd.to_numeric), on="run").groupby(["row", "fold"])[list(HEADS)].mean()


def _disagreement(
    study: Study, label: str, metric: str, by_row: Mapping[str, pd.DataFrame], figures: pd.DataFrame
) -> str:
    """Returns a line on the folds in which a row's difference from the reference has the other sign, or ''."""
    pooled = [pd.to_numeric(by_row[row].set_index("seed")[metric]) for row in (label, study.reference)]
    overall = float((pooled[0] - pooled[1]).mean())
    differences = figures.loc[label][metric] - figures.loc[study.reference][metric]
    otherwise = differences[np.sign(differences) == -np.sign(overall)]
    if not len(otherwise):
        return ""
    folds = ", ".join(f"fold {fold} ({difference:+.3f})" for fold, difference in otherwise.items())
    above, below = ("above", "below") if overall > 0 else ("below", "above")
    return (
        f"- {HEADS[metric]}: {label} is {above} {study.reference} over all folds ({overall:+.3f}), but {below} it on"
        f" {folds}"
    )


def _difference(differences: pd.Series) -> str:
    ends = paired_interval(differences.to_numpy(float))
    text = f"{differences.mean():+.3f}" if len(differences) else "-"
    return text + (f" [{ends[0]:+.3f}, {ends[1]:+.3f}]" if ends else "")
