"""T-SMOTE: more anomalous training windows, from the time before each anomaly's end.

Zhao et al., IJCAI 2022, doi 10.24963/ijcai.2022/334, as rebuilt from digests of the paper (no official code is known).
A positive sample ends with an anomaly interval; its window at leading time l ends l steps earlier, nearer to the
border of the classes. Spies among the normal windows tell how far back a window still looks anomalous; between
neighbouring leading times new windows are mixed; and as many positives as there are normal windows are drawn, those
far from the border more often.

The paper has one label per window. Here each step of a mixed window takes the label that the parent of the larger
weight has there.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spear_jax.data.series import Series


@dataclasses.dataclass(frozen=True)
class PositiveSamples:
    """The windows of each positive sample by leading time.

    Attributes:
      series: index of the stretch that the sample lies in.
      end: the step after the window's last one, at leading time 0.
      leads: how many leading times fit before the stretch begins, at least 1.
    """

    series: Int[np.ndarray, "samples"]
    end: Int[np.ndarray, "samples"]
    leads: Int[np.ndarray, "samples"]


@dataclasses.dataclass(frozen=True)
class DrawnSamples:
    """The new positive windows, and where they come from.

    Attributes:
      values: as many windows as there are normal ones.
      labels: True where a step counts as anomalous.
      sample: the positive sample behind each window.
      lead: its leading time; of a mixed window that of the later parent, the other's is one more.
      weight: of the later parent, in [0, 1]; 1 for a window that is not mixed.
      report: counts and figures for the results.
    """

    values: Float[np.ndarray, "drawn time"]
    labels: Bool[np.ndarray, "drawn time"]
    sample: Int[np.ndarray, "drawn"]
    lead: Int[np.ndarray, "drawn"]
    weight: Float[np.ndarray, "drawn"]
    report: dict[str, Any]


def find_positive_samples(stretches: Sequence[Series], window: int, max_lead: int) -> PositiveSamples:
    """The positive samples: what ends with the last step of an anomaly interval and has room for a window.

    Args:
      stretches: of the training split.
      window: w, steps in a window.
      max_lead: the largest leading time that is looked at.
    """
    found = []
    for number, stretch in enumerate(stretches):
        edges = np.diff(stretch.labels.astype(np.int8), append=0)
        for end in np.flatnonzero(edges == -1) + 1:
            if end >= window:
                found.append((number, end, min(int(end) - window, max_lead) + 1))
    samples = np.array(found, int).reshape(-1, 3)
    return PositiveSamples(*samples.T)


def spy_threshold(
    positives: Float[np.ndarray, "positives time"],
    negatives: Float[np.ndarray, "negatives time"],
    spy_share: float,
    rng: np.random.Generator,
) -> tuple[float, Any]:
    """Step 1: what a spy among the positives scores at most, and the classifier that says so.

    Args:
      positives: windows at leading time 0.
      negatives: normal windows.
      spy_share: share of them that is put among the positives.
      rng: draws the spies and repeats the smaller class.

    Returns:
      The threshold h, and a fitted classifier with `predict_proba`.
    """
    order = rng.permutation(len(negatives))
    count = max(1, round(spy_share * len(negatives)))
    spies, others = negatives[order[:count]], negatives[order[count:]]
    disguised = np.concatenate([positives, spies])
    size = max(len(disguised), len(others))

    def oversampled(windows: np.ndarray) -> np.ndarray:
        return np.concatenate([windows, windows[rng.integers(0, len(windows), size - len(windows))]])

    x = np.concatenate([oversampled(disguised), oversampled(others)])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(x, np.repeat([1, 0], size))
    return float(classifier.predict_proba(spies)[:, 1].max()), classifier


def last_lead(scores: Float[np.ndarray, "samples leads"], threshold: float) -> int:
    """Step 1, its end: the last leading time before the mean score falls below the threshold; -1 if the first does.

    Args:
      scores: NaN where no window fits; the mean is over the samples that have one.
      threshold: h.
    """
    for lead in range(scores.shape[1]):
        known = np.isfinite(scores[:, lead])
        if not known.any() or scores[known, lead].mean() < threshold:
            return lead - 1
    return scores.shape[1] - 1


def mixing_counts(scores: Float[np.ndarray, "samples leads"], ratio: float) -> Int[np.ndarray, "samples leads"]:
    """Step 2: windows to mix after each leading time: floor(r s / sum of the sample's s), r per sample in all.

    A sample with more leading times than r = |normal| / |positive| gets none; only its own windows are drawn then.
    """
    known = np.where(np.isfinite(scores), scores, 0.0)
    total = known.sum(axis=1, keepdims=True)
    return np.floor(ratio * known / np.where(total > 0, total, 1.0)).astype(int)


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
      windows: of each sample at each leading time; NaN throughout where none fits.
      labels: of their steps.
      negatives: normal windows of the training split.
      spy_share: see `spy_threshold`.
      rng: all that is random.

    Returns:
      The new positives; None where already the windows at leading time 0 look no more anomalous than a spy.
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
        odds = np.ones(len(odds))  # all on the threshold: none is farther from the border than another
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
