"""Draws the figures of a run with matplotlib."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, precision_recall_curve, roc_curve

from spear_jax.data import StepScores, find_equal_runs
from spear_jax.evaluation import Threshold

WIDTH = 7.0  # inches; text in a figure this wide is still readable on a phone
STYLE: dict[Any, Any] = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
VALUE, SCORE, ANOMALY = "#1f4e79", "#d9730d", "#c00000"
LEGEND_STYLE: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 4, "fontsize": 9}
SERIES = 4  # shown at most
LINE_COLUMNS = 700  # of a plotted line; each column of a longer series shows the extremes of its steps
POINTS = 2000  # of a curve
BINS = 10  # of scores in the reliability diagram


def draw_series(steps: StepScores, threshold: Threshold, names: Sequence[str]) -> Figure:
    """Draws values with labelled intervals above scores with predicted intervals, for a few series.

    Series with anomalies come first, longer ones before shorter ones.
    """
    numbers, sizes = np.unique(steps.series, return_counts=True)
    anomalous = np.array([steps.label[steps.series == number].any() for number in numbers])
    shown = numbers[np.lexsort((-sizes, ~anomalous))][:SERIES]
    figure = Figure(figsize=(WIDTH, 0.6 + 2.4 * len(shown)), layout="constrained")
    axes = figure.subplots(2 * len(shown), 1, height_ratios=[3, 2] * len(shown))
    for upper, lower, number in zip(axes[::2], axes[1::2], shown, strict=True):
        here = steps.series == number
        x = steps.step[here]
        _line(upper, x, steps.value[here], color=VALUE, label="value")
        _intervals(upper, x, steps.label[here], color=ANOMALY, label="labelled anomaly")
        upper.set_title(names[number], loc="left", fontsize=10, parse_math=False)  # a name may contain dollar signs
        upper.set_ylabel("value")
        upper.sharex(lower)
        upper.tick_params(labelbottom=False)
        _line(lower, x, steps.score[here], color=SCORE, label="score")
        _intervals(lower, x, steps.score[here] >= threshold.value, color=SCORE, label="predicted anomaly")
        lower.axhline(threshold.value, ls=":", lw=1, color="black", label="threshold")
        lower.set_ylabel("score")
        lower.margins(x=0)
        if steps.score.min() >= 0 and steps.score.max() <= 1:
            lower.set_ylim(0, 1)
    axes[-1].set_xlabel("time step")
    lines = [entry for axis in axes[:2] for entry in zip(*axis.get_legend_handles_labels(), strict=True)]
    figure.legend(*zip(*lines, strict=True), loc="outside upper center", ncols=3)
    return figure


def _line(
    axis: Axes, x: Int[np.ndarray, "steps"], y: Float[np.ndarray, "steps"], *, color: str, label: str | None = None
) -> None:
    """Draws a line of any length, with gaps where steps are missing (in another split, or not recorded)."""
    span = int(x[-1] - x[0]) + 1
    columns = min(span, LINE_COLUMNS)
    column = (x - x[0]) * columns // span
    ends = pd.Series(y).groupby(column).agg(["min", "max"]).reindex(range(columns))
    middle = x[0] + (np.arange(columns) + 0.5) * span / columns - 0.5
    axis.plot(np.repeat(middle, 2), ends.to_numpy(float).reshape(-1), lw=0.8, color=color, label=label)


def _intervals(
    axis: Axes, x: Int[np.ndarray, "steps"], flags: Bool[np.ndarray, "steps"], *, color: str, label: str
) -> None:
    """Shades intervals; their edge keeps a single step among thousands visible."""
    marked = x[flags]
    starts, ends = find_equal_runs(marked - np.arange(len(marked)))  # consecutive steps
    spans = [(marked[start] - 0.5, end - start) for start, end in zip(starts, ends, strict=True)]
    axis.broken_barh(
        spans, (0, 1), transform=axis.get_xaxis_transform(), color=color, alpha=0.2, lw=0.6, zorder=0, label=label
    )


def draw_learning_curves(log: Sequence[Mapping[str, Any]], best_step: int) -> Figure:
    """Draws training and validation loss above validation AUROC and AUPR, by optimizer step."""
    train = pd.DataFrame([line for line in log if line["kind"] == "train"])
    evaluations = pd.DataFrame([line for line in log if line["kind"] == "evaluation"])
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    loss, ranking = figure.subplots(2, 1, sharex=True)
    loss.plot(train["step"], train["loss"], lw=0.6, color="0.6", label="train, each log point")
    loss.plot(evaluations["step"], evaluations["loss"], "o-", ms=3, lw=1, color="0.3", label="train, epoch")
    loss.plot(evaluations["step"], evaluations["validation_loss"], "o-", ms=3, lw=1, color=SCORE, label="validation")
    loss.set_ylabel("loss")
    for name, label, color in (("auroc", "AUROC", VALUE), ("aupr", "AUPR", SCORE)):
        values = evaluations[f"validation_{name}"].astype(float)
        ranking.plot(evaluations["step"], values, "o-", ms=3, lw=1, color=color, label=f"validation {label}")
    base_rate = evaluations["validation_base_rate"].iloc[-1]
    ranking.axhline(base_rate, ls=":", lw=1, color=SCORE, label=f"base rate {base_rate:.3f}")
    ranking.set(ylim=(0, 1), xlabel="optimizer step")
    for axis in (loss, ranking):
        axis.axvline(best_step, ls="--", lw=1, color="black", label=f"best step ({best_step})")
        axis.legend(**LEGEND_STYLE)
    return figure


def draw_ranking_curves(
    scores: Mapping[str, StepScores], metrics: Mapping[str, Mapping[str, float | None]], base_rate: float
) -> Figure:
    """Draws precision-recall and ROC curves of the method (first) and of its controls; both classes must occur."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (name, steps) in enumerate(scores.items()):
        precision, recall, _ = precision_recall_curve(steps.label, steps.score, drop_intermediate=True)
        false, true, _ = roc_curve(steps.label, steps.score)
        color = (SCORE, "C0", "C2", "C4", "C5", "C6", "C8", "C9")[i]
        style: dict[str, Any] = {"color": color, "lw": 1 if i else 2, "zorder": 2 if i else 3}
        label = f"{name}: AUPR {metrics[name]['aupr']:.3f}, AUROC {metrics[name]['auroc']:.3f}"
        precision[-1] = precision[-2]  # scikit-learn sets precision to 1 at recall 0, which has no threshold
        left.plot(*_thinned(recall, precision), drawstyle="steps-post", label=label, **style)
        right.plot(*_thinned(false, true), **style)
    left.axhline(base_rate, ls=":", color="black", label=f"no information: base rate {base_rate:.3f}, AUROC 0.5")
    right.plot([0, 1], [0, 1], ls=":", color="black")
    left.set(xlabel="recall", ylabel="precision", title="precision-recall", xlim=(0, 1), ylim=(0, 1.02))
    right.set(xlabel="false-positive rate", ylabel="recall", title="ROC", xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(loc="outside lower center")
    return figure


def _thinned(*curve: np.ndarray) -> list[np.ndarray]:
    chosen = np.unique(np.linspace(0, len(curve[0]) - 1, POINTS).astype(int))
    return [coordinates[chosen] for coordinates in curve]


def draw_reliability(labels: Bool[np.ndarray, "steps"], scores: Float[np.ndarray, "steps"]) -> Figure:
    """Draws a reliability diagram with the Brier score, above a histogram of the scores."""
    share, mean = calibration_curve(labels, scores, n_bins=BINS)
    rate = labels.mean()
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    upper.plot([0, 1], [0, 1], ls=":", color="black", label="score = probability")
    upper.plot(mean, share, "o-", color=SCORE, label="share of anomalous steps")
    upper.set(ylabel="anomalous", xlim=(0, 1), ylim=(0, 1.02))
    figure.suptitle(
        f"Brier score {brier_score_loss(labels, scores):.4f}; of a constant score equal to the base rate, {rate:.3f}:"
        f" {rate * (1 - rate):.4f}",
        fontsize=10,
    )
    edges = np.linspace(0, 1, BINS + 1)
    lower.hist([scores[~labels], scores[labels]], edges, color=[VALUE, ANOMALY], label=["normal", "anomalous"])
    lower.set(xlabel="score", ylabel="steps", yscale="log")
    lower.set_ylim(bottom=0.8)  # so that a single step is visible
    for axis in (upper, lower):
        axis.legend(**LEGEND_STYLE)
    return figure


def draw_prompt_movement(log: Sequence[Mapping[str, Any]], best_step: int) -> Figure:
    """Draws the distance of each prompt vector from its initial value, by optimizer step."""
    lines = [line for line in log if line.get("prompt_moved")]
    steps, moved = np.array([0, *(line["step"] for line in lines)]), np.array([line["prompt_moved"] for line in lines])
    moved = np.concatenate([np.zeros((1, moved.shape[1])), moved])
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axis = figure.subplots()
    axis.set_prop_cycle(color=colormaps["viridis"](np.linspace(0, 0.9, moved.shape[1])))
    axis.plot(steps, moved, lw=1, marker=".", ms=4)
    for number in np.argsort(-moved[-1])[:1]:
        axis.annotate(f" vector {number + 1}", (steps[-1], moved[-1, number]), fontsize=8, va="center")
    axis.axvline(best_step, ls="--", lw=1, color="black", label=f"best step ({best_step})")
    axis.set(xlabel="optimizer step", ylabel="distance from initial value")
    axis.set_ylim(bottom=0)
    axis.legend(loc="upper left")
    return figure


def draw_attention(
    values: Float[np.ndarray, "time"],
    labels: Bool[np.ndarray, "time"],
    weights: Float[np.ndarray, "layers time prompt"],
) -> Figure:
    """Draws the attention of a window's steps to the prompt, in total and for each vector and layer."""
    layers, time, m = weights.shape
    columns = min(3, layers)
    rows = -(-layers // columns)
    figure = Figure(figsize=(WIDTH, 3.6 + 1.25 * rows), layout="constrained")
    total, by_vector = figure.subfigures(2, 1, height_ratios=[3.6, 1.25 * rows], squeeze=False)[:, 0]
    top, share = total.subplots(2, 1, sharex=True)
    x = np.arange(time)
    _line(top, x, values, color=VALUE)
    _intervals(top, x, labels, color=ANOMALY, label="labelled anomaly")
    top.set_ylabel("value")
    image = share.imshow(100 * weights.sum(axis=2), aspect="auto", vmin=0, extent=(-0.5, time - 0.5, layers + 0.5, 0.5))
    share.set(xlabel="step of the window", ylabel="layer")
    share.yaxis.set_major_locator(MaxNLocator(integer=True))
    total.colorbar(image, ax=share, label="% on the prompt")
    panels = by_vector.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    scale = LogNorm(max(weights.max() / 1000, 1e-6), max(weights.max(), 1e-5), clip=True)
    for axis, number in zip(panels.flat, range(rows * columns), strict=True):
        if number >= layers:
            axis.set_axis_off()
            continue
        image = axis.imshow(weights[number].T, aspect="auto", norm=scale, extent=(-0.5, time - 0.5, m + 0.5, 0.5))
        axis.set_title(f"layer {number + 1}", fontsize=8)
        axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.tick_params(labelsize=7)
    by_vector.supxlabel("step of the window", fontsize=9)
    by_vector.supylabel("prompt vector", fontsize=9)
    by_vector.colorbar(image, ax=panels, label="weight")
    return figure
