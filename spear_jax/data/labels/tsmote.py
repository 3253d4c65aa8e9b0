"""Synthesizes anomalous training windows with T-SMOTE, from the time before each anomaly's end.

Zhao et al., IJCAI 2022, doi 10.24963/ijcai.2022/334, reimplemented from summaries of the paper (no official code is
known). A positive sample ends with an anomaly interval; its window at leading time l ends l steps earlier, closer to
the class border. Spies, normal windows mixed in with the positives, show how far back a window still looks anomalous.
New windows interpolate between neighbouring leading times, and as many positives are drawn as there are normal windows,
those far from the border more often.

The paper has one label per window. Here each step of an interpolated window takes its label from the parent with the
larger weight.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spear_jax.data.runs import find_runs
from spear_jax.data.scaler import Scaler
from spear_jax.data.series import Series
from spear_jax.data.windows import Windows, windows_at


@dataclasses.dataclass(frozen=True)
class PositiveSamples:
    """The positions of the positive samples, each of which has a window per leading time.

    Attributes:
      series: index of the stretch that the sample lies in.
      end: the step after the window's last one, at leading time 0.
      leads: number of leading times that fit before the stretch begins, at least 1.
    """

    series: Int[np.ndarray, "samples"]
    end: Int[np.ndarray, "samples"]
    leads: Int[np.ndarray, "samples"]


@dataclasses.dataclass(frozen=True)
class DrawnSamples:
    """New positive windows and their origin.

    Attributes:
      values: scaled values, as many windows as there are normal ones.
      labels: True where a step counts as anomalous.
      sample: index of the positive sample that each window comes from.
      lead: leading time of the window, or of the later parent of a mixed window; that of the other is one more.
      weight: weight of the later parent in [0, 1]; 1 for a window that is not mixed.
      report: counts and figures for the results.
    """

    values: Float[np.ndarray, "drawn time"]
    labels: Bool[np.ndarray, "drawn time"]
    sample: Int[np.ndarray, "drawn"]
    lead: Int[np.ndarray, "drawn"]
    weight: Float[np.ndarray, "drawn"]
    report: dict[str, Any]


def resample(
    config: ConfigDict,
    scaler: Scaler,
    stretches: Sequence[Series],
    names: Sequence[str],
    train: Windows,
    scaled: Float[np.ndarray, "windows time"],
) -> tuple[Windows, Float[np.ndarray, "resampled time"], dict[str, Any]]:
    """Replaces the anomalous training windows, drawing as many as there are normal windows.

    Returns:
      Windows, their scaled values, and a report for the results; the training windows themselves if there are too
      few anomalies.
    """
    window = train.real.shape[1]
    normal = ~train.labels.any(axis=1)
    complete = normal & np.isfinite(scaled).all(axis=1)
    samples = find_positive_samples(stretches, window, config.tsmote.max_lead)
    if len(samples.end):  # a window with a gap cannot be mixed
        at_end = windows_at(stretches, names, samples.series, samples.end - window, window)
        gapless = np.isfinite(at_end.values).all(axis=1)
        samples = PositiveSamples(samples.series[gapless], samples.end[gapless], samples.leads[gapless])
    if not len(samples.end) or complete.sum() < 2:
        return train, scaled, {"skipped": "too few anomaly intervals or normal windows without gaps"}

    lead = np.arange(samples.leads.max())
    starts = samples.end[:, None] - lead - window
    earlier = windows_at(stretches, names, np.repeat(samples.series, len(lead)), starts.reshape(-1), window)
    shape = (*starts.shape, window)
    fits = lead < samples.leads[:, None]
    drawn = draw_samples(
        np.where(fits[:, :, None], scaler(earlier).reshape(shape), np.nan),
        earlier.labels.reshape(shape),
        scaled[complete],
        spy_share=config.tsmote.spy_share,
        rng=np.random.default_rng((config.seed, 3)),
    )
    if drawn is None:
        return train, scaled, {"skipped": "windows that end with an anomaly look no more anomalous than normal ones"}
    nowhere = np.full(len(drawn.values), -1)
    resampled = Windows(
        values=np.concatenate([train.values[normal], drawn.values.astype(train.values.dtype)]),
        labels=np.concatenate([train.labels[normal], drawn.labels]),
        real=np.concatenate([train.real[normal], np.ones(drawn.labels.shape, bool)]),
        series=np.concatenate([train.series[normal], nowhere]),
        start=np.concatenate([train.start[normal], nowhere]),
    )
    return resampled, np.concatenate([scaled[normal], drawn.values.astype(scaled.dtype)]), drawn.report


def find_positive_samples(stretches: Sequence[Series], window: int, max_lead: int) -> PositiveSamples:
    """Finds the anomaly intervals with a complete window that ends with their last step."""
    samples = [
        (number, end, min(end - window, max_lead) + 1)
        for number, stretch in enumerate(stretches)
        for end in find_runs(stretch.labels)[1].tolist()
        if end >= window
    ]
    return PositiveSamples(*np.array(samples, int).reshape(-1, 3).T)


def spy_threshold(
    positives: Float[np.ndarray, "positives time"],
    negatives: Float[np.ndarray, "negatives time"],
    spy_share: float,
    rng: np.random.Generator,
) -> tuple[float, Any]:
    """Returns the highest score of a spy, a normal window mixed in with the positives (step 1 of the paper).

    Returns:
      The threshold h, and a fitted classifier with `predict_proba`.
    """
    order = rng.permutation(len(negatives))
    count = max(1, round(spy_share * len(negatives)))
    spies, others = negatives[order[:count]], negatives[order[count:]]
    with_spies = np.concatenate([positives, spies])
    size = max(len(with_spies), len(others))

    def oversample(windows: np.ndarray) -> np.ndarray:
        return np.concatenate([windows, windows[rng.integers(0, len(windows), size - len(windows))]])

    x = np.concatenate([oversample(with_spies), oversample(others)])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(x, np.repeat([1, 0], size))
    return float(classifier.predict_proba(spies)[:, 1].max()), classifier


def last_lead(scores: Float[np.ndarray, "samples leads"], threshold: float) -> int:
    """Returns the last leading time before the mean score falls below the threshold (end of step 1).

    It is -1 if the mean score is below the threshold at leading time 0 already.

    Args:
      scores: NaN where no window fits; the mean is over the samples that have one.
      threshold: h.
    """
    for lead in range(scores.shape[1]):
        exists = np.isfinite(scores[:, lead])
        if not exists.any() or scores[exists, lead].mean() < threshold:
            return lead - 1
    return scores.shape[1] - 1


def mixing_counts(scores: Float[np.ndarray, "samples leads"], ratio: float) -> Int[np.ndarray, "samples leads"]:
    """Returns how many windows to interpolate after each leading time: floor(r s / sum of the sample's s) (step 2).

    A sample with more leading times than r = |normal| / |positive| may get none; then only its own windows are drawn.
    """
    weights = np.where(np.isfinite(scores), scores, 0.0)
    total = weights.sum(axis=1, keepdims=True)
    return np.floor(ratio * weights / np.where(total > 0, total, 1.0)).astype(int)


def draw_samples(
    windows: Float[np.ndarray, "samples leads time"],
    labels: Bool[np.ndarray, "samples leads time"],
    negatives: Float[np.ndarray, "negatives time"],
    *,
    spy_share: float,
    rng: np.random.Generator,
) -> DrawnSamples | None:
    """Synthesizes and draws as many positive windows as there are normal ones.

    Args:
      windows: windows of each sample at each leading time; all NaN where none fits.
      labels: labels of their steps.
      negatives: normal windows of the training split.
      spy_share: see `spy_threshold`.
      rng: source of all randomness.

    Returns:
      The new positives; None if even the windows at leading time 0 look no more anomalous than a spy.
    """
    ratio = len(negatives) / len(windows)
    threshold, classifier = spy_threshold(windows[:, 0], negatives, spy_share, rng)
    exists = np.isfinite(windows).all(axis=2)
    scores = np.full(exists.shape, np.nan)
    scores[exists] = classifier.predict_proba(windows[exists])[:, 1]
    last = last_lead(scores, threshold)
    if last < 0:
        return None
    scores, exists = scores[:, : last + 1], exists[:, : last + 1]

    sample, lead = np.nonzero(exists)
    pool = [(sample, lead, np.ones(len(sample)), scores[exists])]
    if last:
        both = exists[:, :-1] & exists[:, 1:]
        repeats = np.where(both, mixing_counts(scores[:, :last], ratio), 0)
        mixed_sample, mixed_lead = (np.repeat(axis, repeats[both]) for axis in np.nonzero(both))
        later, earlier = scores[mixed_sample, mixed_lead], scores[mixed_sample, mixed_lead + 1]
        alpha = rng.beta(np.maximum(later, 1e-6), np.maximum(earlier, 1e-6))
        pool.append((mixed_sample, mixed_lead, alpha, alpha * later + (1 - alpha) * earlier))
    sample, lead, alpha, score = (np.concatenate(column) for column in zip(*pool, strict=True))

    odds = np.maximum(0.0, score - threshold)
    if not odds.any():
        odds = np.ones(len(odds))  # all scores equal the threshold
    chosen = rng.choice(len(odds), size=len(negatives), p=odds / odds.sum())
    sample, lead, alpha = sample[chosen], lead[chosen], alpha[chosen]
    other = np.minimum(lead + 1, windows.shape[1] - 1)
    late, early = windows[sample, lead], windows[sample, other]
    mixed = (alpha < 1)[:, None]
    values = np.where(mixed, alpha[:, None] * late + (1 - alpha[:, None]) * np.where(mixed, early, late), late)
    from_late = (alpha >= 0.5)[:, None]
    report = {
        "samples": len(windows),
        "normal_windows": len(negatives),
        "threshold": threshold,
        "last_lead": last,
        "synthesized": int(len(odds) - exists.sum()),
        "drawn": len(chosen),
        "drawn_synthetic": int((alpha < 1).sum()),
    }
    return DrawnSamples(
        values, np.where(from_late, labels[sample, lead], labels[sample, other]), sample, lead, alpha, report
    )
