"""Draws scored series of any length, from summaries of bounded size."""

import io
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from etils import epath
from jaxtyping import Float, Int, Shaped
from matplotlib.dates import ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from spear_jax.report.figures import ANOMALY, SCORE, VALUE
from spear_jax.storage import write_whole

SERIES = 6  # shown at most
BUCKETS = 4096


class Envelope:
    """Extremes of a series in at most `BUCKETS` buckets, whose width grows with the series.

    Attributes:
      width: steps in a bucket.
      extremes: lowest value, highest value and highest score of each bucket; NaN where all are missing.
      times: time of the first step of each bucket, NaT where there is none.
    """

    def __init__(self) -> None:
        """Starts with no steps."""
        self.width = 1
        self.extremes = np.zeros((0, 3))
        self.times = np.zeros(0, "datetime64[ns]")
        self._count = 0  # steps so far

    def add(
        self,
        values: Float[np.ndarray, "steps"],
        scores: Float[np.ndarray, "steps"],
        times: Shaped[np.ndarray, "steps"],
    ) -> None:
        """Adds the next steps; NaN where a value is missing, NaT where a time is."""
        step = self._count + np.arange(len(values))
        bucket = step // self.width
        self.times = np.concatenate([self.times, times[step % self.width == 0]])
        self._count += len(values)
        grown = np.full((int(bucket[-1]) + 1, 3), np.nan)
        grown[: len(self.extremes)] = self.extremes
        for column, (extreme, numbers) in enumerate(((np.fmin, values), (np.fmax, values), (np.fmax, scores))):
            extreme.at(grown[:, column], bucket, numbers)
        self.extremes = grown
        while len(self.extremes) > BUCKETS:
            even = np.pad(self.extremes, ((0, len(self.extremes) % 2), (0, 0)), constant_values=np.nan)
            low, high, score = (even[:, column].reshape(-1, 2).T for column in range(3))
            self.extremes = np.stack([np.fmin(*low), np.fmax(*high), np.fmax(*score)], axis=1)
            self.times = self.times[::2]
            self.width *= 2

    @property
    def steps(self) -> Int[np.ndarray, "buckets"]:
        """Returns the first step of each bucket."""
        return np.arange(len(self.extremes)) * self.width

    @property
    def dated(self) -> bool:
        """Returns whether every bucket has a time, none before that of an earlier one."""
        return not np.isnat(self.times).any() and bool((np.diff(self.times) >= np.timedelta64(0)).all())

    @property
    def x(self) -> Float[np.ndarray, "buckets"]:
        """Returns the place of each bucket in a figure: its time in matplotlib's days, or its first step."""
        return date2num(self.times) if self.dated else self.steps.astype(float)


class Envelopes:
    """Envelopes of the first few series, and their figure."""

    def __init__(self) -> None:
        """Starts with no series."""
        self._series: dict[str, Envelope] = {}

    def add(self, table: pd.DataFrame) -> None:
        """Adds rows with the columns series, timestamp, value and score."""
        for name, part in table.groupby("series", sort=False):
            if str(name) in self._series or len(self._series) < SERIES:
                envelope = self._series.setdefault(str(name), Envelope())
                times = part["timestamp"].to_numpy("datetime64[ns]")
                envelope.add(part["value"].to_numpy(float), part["score"].to_numpy(float), times)

    def draw(self, path: epath.Path, threshold: float, alarms: pd.DataFrame, warnings: Sequence[str]) -> None:
        """Draws values, scores, threshold and alarms, one panel per series."""
        figure = Figure(figsize=(12, 0.6 + 2.4 * len(self._series)), layout="constrained")
        axes = figure.subplots(len(self._series), 1, squeeze=False)
        for axis, (name, envelope) in zip(axes[:, 0], self._series.items(), strict=True):
            x, (low, high, score) = envelope.x, envelope.extremes.T
            if np.isfinite(low).any():  # combined columns have no single value
                axis.fill_between(x, low, high, color=VALUE, lw=0.8, label="value")
                axis.set_ylabel("value")
            else:
                axis.set_yticks([])
            axis.set_title(name, loc="left", fontsize=10, parse_math=False)  # a name may contain dollar signs
            axis.margins(x=0)
            right = axis.twinx()
            right.plot(x, score, lw=0.8, color=SCORE, label="score")
            right.axhline(threshold, ls=":", lw=1, color=SCORE, label="threshold")
            right.set_ylim(0, 1)
            right.set_ylabel("score")
            spans = alarms.loc[alarms["series"] == name, ["start", "end"]].to_numpy()
            # At least one bucket wide, so that it stays visible however long the series.
            edges = [(start - 0.5, start - 0.5 + max(end + 1 - start, envelope.width)) for start, end in spans]
            ends = np.interp(np.array(edges).reshape(-1, 2), envelope.steps, x)
            bars = [(start, end - start) for start, end in ends]
            axis.broken_barh(bars, (0, 1), transform=axis.get_xaxis_transform(), color=SCORE, alpha=0.25, lw=0.6)
            if envelope.dated:
                axis.xaxis_date()
                axis.xaxis.set_major_formatter(ConciseDateFormatter(axis.xaxis.get_major_locator()))
            else:
                axis.set_xlabel("row")
        axes[0, 0].fill_between([], [], color=SCORE, alpha=0.25, label="alarm")
        lines = [entry for a in (axes[0, 0], right) for entry in zip(*a.get_legend_handles_labels(), strict=True)]
        figure.legend(*zip(*lines, strict=True), loc="outside upper right", ncols=4, frameon=False, fontsize=9)
        if warnings:
            wrapped = [line for warning in warnings for line in textwrap.wrap(warning, 150)]
            below = "\n".join(wrapped)
            figure.supxlabel(below, x=0.01, ha="left", fontsize=7, color=ANOMALY, parse_math=False)
        blob = io.BytesIO()
        figure.savefig(blob, dpi=110, metadata={"Description": " | ".join(warnings)})
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, blob.getvalue())
