"""A study's runs as a table in Markdown and as a figure."""

import dataclasses
import functools
import io
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from spear_jax.report import COLUMNS
from spear_jax.storage import write_whole

METRICS = ("auroc", "aupr", "f1", "vus_pr")  # of a table, unless a study says otherwise


COMPARED = ("auroc", "aupr", "vus_pr")  # with those of a reference


ENDS = ("low", "high")  # of the 95 % interval of the bootstrap over series


COSTS = {
    "trainable": "trained numbers",
    "best_step": "best step",
    "seconds_per_epoch": "seconds an epoch",
    "optimizer_mib": "optimizer, MiB",
    "peak_mib": "peak of the process, MiB",
    "cpu_seconds": "CPU seconds",
}


EXPLANATION = (
    "Test parts. Mean ± standard deviation over seeds; in brackets the 95 % interval of the bootstrap over series, its"
    " ends averaged over seeds."
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a table is called and how it is arranged.

    Attributes:
      title: of table and figure.
      question: stands above the table.
      varied: head of the first column.
      along: where the figure draws each row, if it draws along an axis.
      axis: what that is.
      seeds: that each row has.
      reference: the row that the others are compared with, seed by seed; '' means none.
      metrics: of the test part, in the table's columns.
      matrices: metrics of each of the matrices.
      cells: matrix, line and column of a cell -> the row that fills it.
      not_measured: rows without runs -> the command that would fill them.
    """

    title: str
    question: str
    varied: str
    along: Mapping[str, float]
    axis: str
    seeds: int
    reference: str
    metrics: Sequence[str]
    matrices: Mapping[str, Sequence[str]]
    cells: Mapping[tuple[str, str, str], str]
    not_measured: Mapping[str, str]


def summary(content: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What a table needs of a results.json, and of the metrics of the method or a control in it."""
    if "error" in content:
        return {"error": content["error"]}
    speed = content.get("throughput", {}).get("training_windows_per_second")
    return {
        "dataset": content["dataset"],
        "method": content["method"],
        "random_weights": not content["backbone"].get("pretrained", True),
        "warnings": "\n".join(content["warnings"]),
        "base_rate": content["test"]["base_rate"],
        **{f"{split}_{name}": value for split in ("validation", "test") for name, value in metrics[split].items()},
        **{
            f"test_{name}_{end}": bounds[i]
            for name, bounds in (content["confidence_intervals"]["test"] if metrics is content else {}).items()
            for i, end in enumerate(ENDS)
            if bounds
        },
        "trainable": content["parameters"]["trainable"],
        "best_step": content["training"].get("best", {}).get("step"),
        "seconds_per_epoch": content["splits"]["train"]["windows"] / speed if speed else None,
        "optimizer_mib": content["memory"]["optimizer_bytes"] / 2**20 if "memory" in content else None,
        "peak_mib": content["memory"]["peak_bytes"] / 2**20 if "memory" in content else None,
        "cpu_seconds": content["cpu_seconds"],
        "error": "",
    }


def markdown(layout: Layout, runs: pd.DataFrame) -> str:
    """A row each: mean and standard deviation over the seeds, and how many of them ended."""
    head = [
        layout.varied,
        "seeds",
        "base rate",
        "validation AUPR",
        *(f"test {COLUMNS[name]}" for name in layout.metrics),
        *(f"test {COLUMNS[name]} minus that of {layout.reference}" for name in COMPARED if layout.reference),
        *COSTS.values(),
    ]
    reference = runs[runs["row"] == layout.reference]
    lines = [f"### {layout.title}", "", layout.question, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row, here in runs.groupby("row", sort=False):
        ended = here[here["error"] == ""]
        cells = [str(row), str(len(ended)) if len(ended) == layout.seeds else f"{len(ended)} of {layout.seeds}"]
        shown = ("base_rate", "validation_aupr", *(f"test_{name}" for name in layout.metrics))
        cells += [_spread(ended, name) for name in shown]
        if layout.reference:
            cells += ["" if row == layout.reference else _less(ended, reference, f"test_{name}") for name in COMPARED]
        for name in COSTS:
            told = ended.get(name, pd.Series(dtype=float)).dropna()
            mean = told.mean()
            cells.append("" if not len(told) else f"{mean:.2f}" if mean < 1 else f"{mean:,.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    for row in layout.not_measured:
        lines.append(f"| {row} | 0 |" + " |" * (len(head) - 3) + " not measured |")
    failed = runs[runs["error"] != ""]
    notes = [EXPLANATION, "", *_remarks(layout, runs)]
    notes += [f"- failed: `{one['run']}` (seed {one['seed']}): {one['error']}" for _, one in failed.iterrows()]
    for table, metrics in layout.matrices.items():
        for name in metrics:
            lines += ["", f"{table}: test {COLUMNS[name]}; trained on (line), tested on (column)", ""]
            lines += _pipes(
                _matrix(layout, runs, table, functools.partial(_spread, name=f"test_{name}", interval=False))
            )
    notes += [f"- not measured, weights or API needed: {row}: `{way}`" for row, way in layout.not_measured.items()]
    return "\n".join([*lines, "", *notes]).rstrip() + "\n"


def _remarks(layout: Layout, runs: pd.DataFrame) -> list[str]:
    """What the results say of themselves, each once: warnings by data set, and which weights were random."""
    ended = runs[runs["error"] == ""]
    if not len(ended):
        return []
    said = {
        f"- {data}: {warning}": None
        for data, lines in zip(ended["dataset"], ended["warnings"], strict=True)
        for warning in lines.split("\n")
        if warning
    }
    random = list(dict.fromkeys(ended[ended["random_weights"]]["row"]))
    every = " (all)" if len(random) == ended["row"].nunique() else ""
    return [*said, *([f"- RANDOM WEIGHTS, nothing pretrained: {'; '.join(random)}{every}"] if random else [])]


def _matrix(layout: Layout, runs: pd.DataFrame, table: str, fill: Callable[[pd.DataFrame], Any]) -> pd.DataFrame:
    """A matrix of a study: what `fill` makes of the runs of each cell that ended."""
    ended = runs[runs["error"] == ""]
    found: dict[str, dict[str, Any]] = {}
    for (title, line, column), row in layout.cells.items():
        if title == table:
            found.setdefault(column, {})[line] = fill(ended[ended["row"] == row])
    return pd.DataFrame(found, index=list(dict.fromkeys(line for t, line, _ in layout.cells if t == table)))


def _pipes(matrix: pd.DataFrame) -> list[str]:
    lines = [["", *matrix.columns], ["---"] * (len(matrix.columns) + 1)]
    lines += [
        [str(name), *map(str, row)] for name, row in zip(matrix.index, matrix.fillna("-").to_numpy(), strict=True)
    ]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _spread(runs: pd.DataFrame, name: str, interval: bool = True) -> str:
    values = pd.to_numeric(runs[name], errors="coerce").dropna() if name in runs else pd.Series(dtype=float)
    if not len(values):
        return "-"
    text = f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")
    bounds = [runs[f"{name}_{end}"].mean() for end in ENDS if f"{name}_{end}" in runs]
    if interval and bounds and not any(map(math.isnan, bounds)):
        text += f" [{bounds[0]:.2f}, {bounds[1]:.2f}]"
    return text


def _less(runs: pd.DataFrame, reference: pd.DataFrame, name: str) -> str:
    """How far runs lie above those of the same seed in a row, whose data were divided alike: mean, and its spread."""
    if name not in runs:  # no run of the study has ended
        return "-"
    both = runs.merge(reference, on="seed", suffixes=("", "_reference"))
    differences = pd.to_numeric(both[name] - both[f"{name}_reference"], errors="coerce").dropna()
    if not len(differences):
        return "-"
    return f"{differences.mean():+.3f}" + (f" ± {differences.std():.3f}" if len(differences) > 1 else "")


def draw_study(layout: Layout, runs: pd.DataFrame, path: Path) -> None:
    """Test AUPR of every run, the mean of each row, and the base rates; for matrices, heat maps of test AUROC.

    Where AUPR is not in the table, as where thresholds alone differ, the first two of its metrics.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = ["aupr"] if "aupr" in layout.metrics else list(layout.metrics[:2])
    needed = [*(f"test_{name}" for name in drawn), "test_auroc", "base_rate"]
    runs = runs.reindex(columns=[*runs.columns.union(needed, sort=False)])
    measured = "test " + " and ".join(COLUMNS[name] for name in drawn)
    if layout.matrices:
        figure = _heat_maps(layout, runs)
    elif layout.along:
        figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
        ended = runs[(runs["error"] == "") & runs["row"].isin(list(layout.along))]
        along = ended["row"].map(layout.along)
        for name in drawn:
            axes.plot(along, ended[f"test_{name}"], "o", alpha=0.5, label=_each_seed(drawn, name))
            means = ended.assign(along=along).groupby("along")[f"test_{name}"].mean()
            axes.plot(means.index, means, "k-", label="mean" if name == drawn[-1] else None)
        if "aupr" in drawn:
            axes.axhline(ended["base_rate"].mean(), color="tab:red", linestyle=":", label="base rate, mean")
        axes.set(xlabel=layout.axis, ylabel=measured, title=layout.title)
        figure.legend(loc="outside lower center", ncols=3)
    else:
        rows = list(dict.fromkeys(runs["row"]))[::-1]
        figure, axes = pyplot.subplots(figsize=(10, 1.6 + 0.3 * len(rows)), layout="constrained")
        ended = runs[runs["error"] == ""]
        places = ended["row"].map(rows.index)
        for name in drawn:
            axes.plot(ended[f"test_{name}"], places, "o", alpha=0.5, label=_each_seed(drawn, name))
            means = ended.assign(place=places).groupby("place")[f"test_{name}"].mean()
            axes.plot(means, means.index, "k|", markersize=14, label="mean" if name == drawn[-1] else None)
        if "aupr" in drawn:
            axes.axvline(ended["base_rate"].mean(), color="tab:red", linestyle=":", label="base rate, mean")
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel(measured)
        figure.suptitle(layout.title)  # over the rows' names too: it may be wider than the axes
        figure.legend(loc="outside lower center", ncols=3)
    blob = io.BytesIO()
    figure.savefig(blob, dpi=120)
    pyplot.close(figure)
    write_whole(path, blob.getvalue())


def _each_seed(drawn: Sequence[str], name: str) -> str:
    return "each seed" if len(drawn) == 1 else f"each seed, {COLUMNS[name]}"


def _heat_maps(layout: Layout, runs: pd.DataFrame) -> Any:
    from matplotlib import pyplot

    tables = [table for table, metrics in layout.matrices.items() if "auroc" in metrics]
    figure, panels = pyplot.subplots(
        1, len(tables), figsize=(4.6 * len(tables), 4.6), layout="constrained", squeeze=False
    )
    for axes, table in zip(panels[0], tables, strict=True):
        means = _matrix(layout, runs, table, lambda ended: ended["test_auroc"].mean() if len(ended) else float("nan"))
        values = means.to_numpy(float)
        axes.imshow(values, vmin=0, vmax=1, cmap="RdBu_r")  # .5, chance, is white
        for i, j in itertools.product(*map(range, values.shape)):
            axes.text(j, i, "-" if math.isnan(values[i, j]) else f"{values[i, j]:.2f}", ha="center", va="center")
        axes.set_xticks(range(values.shape[1]), means.columns, rotation=30, ha="right")
        axes.set_yticks(range(values.shape[0]), means.index)
        axes.set(xlabel="tested on", ylabel="trained on", title=f"test AUROC\n{table}")
    return figure
