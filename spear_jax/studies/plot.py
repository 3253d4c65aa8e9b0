"""Draws the figure of a study."""

import io
import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spear_jax.report import COLUMNS
from spear_jax.studies.markdown import matrix_cells, seed_results, setting
from spear_jax.studies.planning import PlannedRun
from spear_jax.studies.study import Study


def draw_study(study: Study, planned: Sequence[PlannedRun], table: pd.DataFrame) -> bytes:
    """Returns a PNG: test AUPR of every run, the mean of each row, and the base rate; for matrices, test AUROC.

    If the table does not show AUPR, because rows differ in thresholds only, its first two metrics are drawn.
    """
    results = seed_results(study, planned, table)
    if study.matrices:
        figure = _heat_maps(study, results)
    elif study.axis:
        along = {label: float(row.overrides[study.axis]) for label, row in study.rows.items()}
        results = results[results["row"].isin(list(along))]
        figure = _lines(study, results, results["row"].map(along))
    else:
        figure = _strips(study, results)
    png = io.BytesIO()
    figure.savefig(png, dpi=120)
    return png.getvalue()


def _drawn(study: Study) -> list[str]:
    return ["aupr"] if "aupr" in study.metrics else list(study.metrics[:2])


def _title(study: Study, results: pd.DataFrame) -> str:
    return "\n".join(filter(None, (study.title, setting(study, results))))


def _label(study: Study) -> str:
    return "test " + " and ".join(COLUMNS[metric] for metric in _drawn(study))


def _lines(study: Study, results: pd.DataFrame, along: pd.Series) -> Figure:
    """Draws metrics along a config field."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    drawn = _drawn(study)
    for metric in drawn:
        axes.plot(along, results[metric], "o", alpha=0.5, label=_each_seed(drawn, metric))
        means = results[metric].groupby(along).mean()
        axes.plot(means.index, means, "k-", label="mean" if metric == drawn[-1] else None)
    if "aupr" in drawn:
        axes.axhline(results["base_rate"].mean(), color="tab:red", linestyle=":", label="mean base rate")
    axes.set(xlabel=study.axis, ylabel=_label(study), title=_title(study, results))
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _strips(study: Study, results: pd.DataFrame) -> Figure:
    """Draws metrics with one line of the figure for each row of the table."""
    labels = list(dict.fromkeys(results["row"]))[::-1]
    figure = Figure(figsize=(10, 1.8 + 0.3 * len(labels)), layout="constrained")
    axes = figure.subplots()
    drawn, places = _drawn(study), results["row"].map(labels.index)
    for metric in drawn:
        axes.plot(results[metric], places, "o", alpha=0.5, label=_each_seed(drawn, metric))
        means = results[metric].groupby(places).mean()
        axes.plot(means, means.index, "k|", markersize=14, label="mean" if metric == drawn[-1] else None)
    if "aupr" in drawn:
        axes.axvline(results["base_rate"].mean(), color="tab:red", linestyle=":", label="mean base rate")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel=_label(study), ylabel=study.varied.replace(", ", ",\n"), ylim=(-0.6, len(labels) - 0.4))
    figure.suptitle(_title(study, results))  # centred over the row labels as well: it may be wider than the axes
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _each_seed(drawn: Sequence[str], metric: str) -> str:
    return "each seed" if len(drawn) == 1 else f"each seed, {COLUMNS[metric]}"


def _heat_maps(study: Study, results: pd.DataFrame) -> Figure:
    """Draws mean test AUROC, a panel for each matrix that shows it."""
    means = results.groupby("row")["auroc"].mean()
    matrices = [matrix for matrix, metrics in study.matrices.items() if "auroc" in metrics]
    figure = Figure(figsize=(4.6 * len(matrices), 4.6), layout="constrained")
    panels = figure.subplots(1, len(matrices), squeeze=False)
    for axes, matrix in zip(panels[0], matrices, strict=True):
        cells = matrix_cells(study, matrix)
        origins, targets = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
        values = np.array(
            [[means.get(cells.get((origin, target)), np.nan) for target in targets] for origin in origins]
        )
        axes.imshow(values, vmin=0, vmax=1, cmap="RdBu_r")  # 0.5, chance, is white
        for i, j in itertools.product(*map(range, values.shape)):
            axes.text(j, i, "-" if np.isnan(values[i, j]) else f"{values[i, j]:.2f}", ha="center", va="center")
        axes.set_xticks(range(len(targets)), targets, rotation=30, ha="right")
        axes.set_yticks(range(len(origins)), origins)
        axes.set(xlabel="tested on", ylabel="trained on", title=f"test AUROC\n{matrix}")
    return figure
