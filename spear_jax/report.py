"""Figures of one run."""

import io
import textwrap

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from etils import epath

from spear_jax.data.dataset import Dataset
from spear_jax.evaluation import Evaluation
from spear_jax.files import write_whole

SHOWN = 4


def draw(workdir: epath.Path, dataset: Dataset, evaluation: Evaluation) -> None:
    """Draws figures/test_series.png: values, true intervals and scores of a few test series."""
    steps = evaluation.steps["test"]
    found, size = np.unique(steps.series, return_counts=True)
    anomalous = np.array([steps.label[steps.series == series].sum() for series in found])
    shown = found[np.lexsort((-size, -np.minimum(anomalous, 1)))][:SHOWN]
    figure, axes = plt.subplots(len(shown), 1, figsize=(12, 2.6 * len(shown)), squeeze=False, layout="constrained")
    for axis, series in zip(axes[:, 0], shown, strict=True):
        here = np.flatnonzero(steps.series == series)
        x = steps.step[here]
        gaps = np.flatnonzero(np.diff(x) > 1) + 1  # steps of another split: no line across them

        def broken(y: np.ndarray, gaps: np.ndarray = gaps) -> np.ndarray:
            return np.insert(y.astype(float), gaps, np.nan)

        axis.plot(broken(x), broken(steps.value[here]), lw=0.8, color="#1f4e79", label="value")
        axis.set_title(dataset.recorded[series].name, loc="left", fontsize=10)
        axis.set_ylabel("value")
        right = axis.twinx()
        right.plot(broken(x), broken(steps.score[here]), lw=0.8, color="#d9730d", label="score")
        right.axhline(evaluation.threshold.value, ls=":", lw=1, color="#d9730d", label="threshold")
        right.set_ylim(0, 1)
        right.set_ylabel("score")
        axis.fill_between(
            x,
            0,
            1,
            where=steps.label[here],
            step="mid",  # a single step is one step wide
            transform=axis.get_xaxis_transform(),
            color="#c00000",
            alpha=0.18,
            lw=0,
            label="labelled anomaly",
        )
        axis.margins(x=0)
    lines = [entry for a in (axes[0, 0], right) for entry in zip(*a.get_legend_handles_labels(), strict=True)]
    figure.legend(*zip(*lines, strict=True), loc="outside upper right", ncols=4, frameon=False, fontsize=9)
    axes[-1, 0].set_xlabel("time step")
    (workdir / "figures").mkdir(parents=True, exist_ok=True)
    if dataset.warnings:  # a picture is passed on without the table that it belongs to
        wrapped = [line for warning in dataset.warnings for line in textwrap.wrap(warning, 150)]
        figure.supxlabel("\n".join(wrapped), x=0.01, ha="left", fontsize=7, color="#c00000")
    about = {"Description": " | ".join(dataset.warnings)}
    drawn = io.BytesIO()  # matplotlib knows no gs://
    figure.savefig(drawn, dpi=110, metadata=about)
    write_whole(workdir / "figures" / "test_series.png", drawn.getvalue())
    plt.close(figure)
