"""One data set from its source to what the model reads."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from spear_jax.data import splits, windows
from spear_jax.data.batches import Examples, padded_lengths
from spear_jax.data.labels import labelling, tsmote
from spear_jax.data.quantizer import Quantizer
from spear_jax.data.scaler import LOOKS_AHEAD, Scaler
from spear_jax.data.series import LoadedSeries, ScaleRange, Series
from spear_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Recorded series and, per split, their windows, as values and as bins.

    Attributes:
      name: of the data set, e.g. 'nasa'.
      recorded: the series, with the labels that are learned and evaluated; windows count in this list.
      windows: raw values and labels by split.
      examples: what the model reads, by split.
      training: what it is trained on: the train split, or what T-SMOTE made of it.
      quantizer: fitted on the training split.
      typical_width: the scaler's stand-in for the range of a constant reference.
      ranges: where 0 and 1 lie for each series that was trained on, if new values of it are to be scaled alike.
      notes: what the results say of labels, lengths and synthesized windows.
      warnings: what every output has to say about these numbers.
    """

    name: str
    recorded: Sequence[Series]
    windows: dict[str, windows.Windows]
    examples: dict[str, Examples]
    training: Examples
    quantizer: Quantizer
    typical_width: float
    ranges: dict[str, ScaleRange]
    notes: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def window(self) -> int:
        """Steps in the longest window that the model reads."""
        return self.training.bins.shape[1]


def build_dataset(
    config: ConfigDict,
    loaded: LoadedSeries,
    *,
    parts: Mapping[str, list[Series]] | None = None,
    quantizer: Quantizer | None = None,
    typical_width: float = 0.0,
) -> Dataset:
    """Splits, scales, cuts into windows and quantizes.

    Args:
      config: a whole config.
      loaded: the recorded series.
      parts: stretches of them by split, if that is decided; a split may be missing. Else the config decides.
      quantizer: a finished detector's; without it one is fitted on the training split.
      typical_width: a finished detector's.

    Raises:
      InputError: a split would be empty.
    """
    data, recorded = config.data, loaded.series
    _check(data, loaded)
    window = data.window or max(len(one) for one in recorded)  # 0: each stretch whole, as one window
    stride = data.stride if data.window else window
    parts = parts or splits.split_series(
        recorded, data.split, data.fractions, window=window, stride=stride, gap=data.gap, seed=config.seed
    )
    # Fitted before anything is injected: a scale of its own would give an injected anomaly away.
    scaler = Scaler(
        config.quantizer.scale,
        recorded,
        parts["train"],
        reference_steps=config.quantizer.reference_steps,
        margin=config.quantizer.margin,
        typical_width=typical_width,
    )
    order = [one.name for one in recorded]
    if data.labels == "injected":
        recorded = labelling.by_injection(data, recorded, parts)
        parts = labelling.take_over(recorded, parts)
    cut = {split: windows.cut_windows(part, order, window, stride) for split, part in parts.items()}
    scaled = {split: scaler(part) for split, part in cut.items()}
    notes: dict[str, Any] = {"labels": {"kind": data.labels}}
    if data.labels == "rules":
        recorded, fired = labelling.by_rules(data, recorded, cut, scaled)
        parts = labelling.take_over(recorded, parts)
        cut = {split: windows.cut_windows(part, order, window, stride) for split, part in parts.items()}
        notes["labels"]["fired"] = fired
    if quantizer is None:
        quantizer = Quantizer.fit(config.quantizer.kind, config.quantizer.bins, scaled["train"])

    lengths, notes["padding"] = _lengths(cut)
    examples = {split: _examples(config, part, quantizer(scaled[split]), lengths[split]) for split, part in cut.items()}
    training = examples["train"]
    if config.tsmote.enabled:
        part, values, notes["tsmote"] = _resample(config, scaler, parts["train"], order, cut["train"], scaled["train"])
        training = _examples(config, part, quantizer(values), np.full(len(part), lengths["train"].max()))
    if config.train.labelled_share < 1:
        rng = np.random.default_rng((config.seed, 5))
        training = _labelled(training, cut["train"], recorded, config.train.labelled_share, rng)
    if config.train.shuffled_labels:
        training = _shuffled(training, np.random.default_rng((config.seed, 4)))
    return Dataset(
        name=loaded.name,
        recorded=recorded,
        windows=cut,
        examples=examples,
        training=training,
        quantizer=quantizer,
        typical_width=scaler.typical_width,
        ranges=_ranges(config, recorded, parts["train"], scaler),
        notes=notes,
        warnings=(*loaded.warnings, *_warnings(config, recorded), *_one_class(examples["train"])),
    )


def _ranges(
    config: ConfigDict, recorded: Sequence[Series], train: Sequence[Series], scaler: Scaler
) -> dict[str, ScaleRange]:
    """Of own series alone, of which more is to come: other sources are never seen again, or bring a reference."""
    if config.data.name != "files" or config.quantizer.scale != "train":
        return {}
    trained = {one.name for one in train}
    return {
        one.name: ScaleRange(one.column, *limits)
        for one, limits in zip(recorded, scaler.ranges, strict=True)
        if one.name in trained
    }


def _lengths(cut: Mapping[str, windows.Windows]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The length that each window is read in, the same few for all splits; and what is said of the padding."""
    read = padded_lengths(np.concatenate([part.lengths for part in cut.values()]))
    ends = np.cumsum([len(part) for part in cut.values()])[:-1]
    steps = sum(int(part.real.sum()) for part in cut.values())
    said = {"lengths": sorted(set(read.tolist())), "share": 1 - steps / int(read.sum())}
    return dict(zip(cut, np.split(read, ends), strict=True)), said


def _examples(config: ConfigDict, part: windows.Windows, bins: np.ndarray, lengths: np.ndarray) -> Examples:
    mask = part.real
    if config.quantizer.missing == "mask":
        mask = mask & np.isfinite(part.values)
    targets = part.labels
    if config.head.kind == "window":
        targets = np.broadcast_to(targets.any(axis=1, keepdims=True), targets.shape)
    return Examples(bins=bins, mask=mask, targets=targets.astype(np.float32), lengths=lengths)


def _resample(
    config: ConfigDict,
    scaler: Scaler,
    stretches: Sequence[Series],
    names: Sequence[str],
    train: windows.Windows,
    scaled: np.ndarray,
) -> tuple[windows.Windows, np.ndarray, dict[str, Any]]:
    """T-SMOTE's training windows, their scaled values, and what it did."""
    window = train.real.shape[1]
    samples = tsmote.find_positive_samples(stretches, window, config.tsmote.max_lead)
    normal = np.logical_not(train.labels.any(axis=1))
    whole = normal & np.isfinite(scaled).all(axis=1)
    first = (
        windows.windows_at(stretches, names, samples.series, samples.end - window, window) if len(samples.end) else None
    )
    if first is not None:  # an anomaly with a gap in it is no sample
        known = np.isfinite(first.values).all(axis=1)
        samples = tsmote.PositiveSamples(samples.series[known], samples.end[known], samples.leads[known])
    if not len(samples.end) or whole.sum() < 2:
        return train, scaled, {"skipped": "too few anomaly intervals or normal windows without gaps"}
    leads = int(samples.leads.max())
    ends = samples.end[:, None] - np.arange(leads)
    found = windows.windows_at(stretches, names, np.repeat(samples.series, leads), ends.reshape(-1) - window, window)
    shape = (len(samples.end), leads, window)
    values = scaler(found).reshape(shape)
    drawn = tsmote.draw_samples(
        np.where(np.arange(leads)[:, None] < samples.leads[:, None, None], values, np.nan),
        found.labels.reshape(shape),
        scaled[whole],
        spy_share=config.tsmote.spy_share,
        rng=np.random.default_rng((config.seed, 3)),
    )
    if drawn is None:
        return train, scaled, {"skipped": "windows that end with an anomaly look no more anomalous than normal ones"}
    kept = train.take(normal)
    size = len(drawn.values)
    positive = windows.Windows(
        values=drawn.values.astype(train.values.dtype),
        labels=drawn.labels,
        real=np.ones(drawn.labels.shape, bool),
        series=np.full(size, -1),
        start=np.full(size, -1),
    )
    both = windows.concatenate([kept, positive])
    return both, np.concatenate([scaled[normal], drawn.values.astype(scaled.dtype)]), drawn.report


def _labelled(
    training: Examples, cut: windows.Windows, recorded: Sequence[Series], share: float, rng: np.random.Generator
) -> Examples:
    """The windows of a share of the incidents, and a share of the windows without any.

    An incident is a labelled interval. At least one of each is kept; a window in which a kept incident meets another
    has both.
    """
    begins = [np.diff(one.labels.astype(np.int8), prepend=0) == 1 for one in recorded]
    numbers = [np.where(one.labels, np.cumsum(begin), 0) for one, begin in zip(recorded, begins, strict=True)]
    touched = [
        {(series, number) for number in np.unique(numbers[series][start : start + length]).tolist() if number}
        for series, start, length in zip(cut.series.tolist(), cut.start.tolist(), cut.lengths.tolist(), strict=True)
    ]

    def some(of: Sequence[Any]) -> list[Any]:
        return [of[i] for i in rng.permutation(len(of))[: max(round(share * len(of)), 1)]]

    chosen = set(some(sorted(set().union(*touched))))
    normal = some([row for row, incidents in enumerate(touched) if not incidents])
    rows = np.sort([*normal, *(row for row, incidents in enumerate(touched) if incidents & chosen)]).astype(int)
    return Examples(*(getattr(training, field.name)[rows] for field in dataclasses.fields(Examples)))


def _shuffled(training: Examples, rng: np.random.Generator) -> Examples:
    """Every window gets the labels of another one of its length, so that the base rate stays and no padding is read."""
    targets = training.targets.copy()
    lengths = training.mask.sum(axis=1)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        targets[rows] = targets[rng.permutation(rows)]
    return dataclasses.replace(training, targets=targets)


def _warnings(config: ConfigDict, recorded: Sequence[Series]) -> tuple[str, ...]:
    said = []
    if config.data.labels in ("rules", "injected"):
        how = {"rules": "made by the context rules", "injected": "of anomalies that were put in"}[config.data.labels]
        said.append(
            f"data.labels={config.data.labels!r}: the labels of {', '.join(labelling.relabelled_splits(recorded))} are"
            f" {how}, not recorded"
        )
    if config.train.labelled_share < 1:
        said.append(
            f"train.labelled_share: {config.train.labelled_share:.1%} of the training part's incidents, and of its"
            " windows without one, are learned from"
        )
    if config.train.shuffled_labels:
        said.append("train.shuffled_labels: a control, trained on labels that belong to other windows")
    if config.data.split == "random":
        said.append(f"data.split='random': {splits.LEAKS}")
    if config.quantizer.scale == "series":
        said.append(LOOKS_AHEAD)
    return tuple(said)


def _one_class(train: Examples) -> list[str]:
    found = np.unique(train.targets[train.mask])
    if len(found) != 1:
        return []
    return [f"the training part has no {'normal' if found[0] else 'anomalous'} step: there is nothing to tell apart"]


def _check(data: ConfigDict, loaded: LoadedSeries) -> None:
    """Checks that every series can be told from the others by its name, and that there are labels.

    Raises:
      InputError: naming one that comes twice, or what labels there may be.
    """
    seen: set[str] = set()
    for one in loaded.series:
        if one.name in seen:
            raise InputError(f"two series are named {one.name!r}")
        seen.add(one.name)
    if data.labels in ("recorded", "column", "intervals") and not all(one.labelled for one in loaded.series):
        raise InputError(
            f"config.data.labels={data.labels!r}: {loaded.name} has no recorded labels; allowed are rules (the context"
            " rules label the series) and injected (known anomalies are put in)"
        )
