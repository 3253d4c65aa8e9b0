"""Turns recorded series into what a model reads: split, scaled, labelled, cut into windows and quantized."""

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from spear_jax.config import view_names
from spear_jax.data import labels
from spear_jax.data.batches import Examples, padded_lengths
from spear_jax.data.own_past import Reference
from spear_jax.data.quantizer import Quantizer
from spear_jax.data.scaler import LOOKS_AHEAD, Scaler, Stretches, choose_references
from spear_jax.data.series import LoadedSeries, ScaleRange, Series, check_order
from spear_jax.data.splits import LEAKS, assign_folds, split_fold, split_series
from spear_jax.data.views import look_ahead, quantize_views, view_numbers
from spear_jax.data.windows import Windows, cut_views, cut_windows
from spear_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Recorded series and, per split, their windows, as values and as bins.

    Attributes:
      name: name of the data set, e.g. 'nasa'.
      recorded: the series, with the labels to learn and to evaluate by; `Windows.series` is an index into them.
      windows: raw values and labels by split.
      examples: what the model reads, by split.
      views: further numbers of every step, by split (`quantizer.views`); the paper has none.
      training: what the model is trained on: the train split, or what T-SMOTE and ablations made of it.
      quantizer: fitted on the training split.
      typical_width: the scaler's substitute for the range of a constant reference.
      references: the reference of each series, if there are views that need it.
      ranges: the range scaled to [0, 1] for each training series whose later values must be scaled the same way.
      notes: facts about labels, padding and synthesized windows, for the results.
      warnings: warnings that every output repeats.
    """

    name: str
    recorded: Sequence[Series]
    windows: dict[str, Windows]
    examples: dict[str, Examples]
    views: dict[str, Float[np.ndarray, "windows time views"]]
    training: Examples
    quantizer: Quantizer
    typical_width: float
    references: dict[str, Reference]
    ranges: dict[str, ScaleRange]
    notes: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def window(self) -> int:
        """Returns the steps in the longest window that the model reads."""
        return self.training.bins.shape[1]


def build_dataset(
    config: ConfigDict,
    loaded: LoadedSeries,
    *,
    parts: Mapping[str, Sequence[Series]] | None = None,
    quantizer: Quantizer | None = None,
    typical_width: float = 0.0,
) -> Dataset:
    """Builds a data set: splits, scales, labels, cuts into windows and quantizes.

    Args:
      config: a complete config.
      loaded: the recorded series.
      parts: stretches of the series by split, if already decided; a split may be missing. By default the config
        decides.
      quantizer: a trained detector's; by default one is fitted on the training split.
      typical_width: a trained detector's; see `Scaler`.

    Raises:
      InputError: a split would be empty, a name occurs twice, or labels are missing.
    """
    data, recorded = config.data, loaded.series
    _check_series(data, loaded)
    # 0: each stretch is one window, padded until it fills the positions of the backbone.
    patch = config.quantizer.patch
    window = data.window or -(-max(map(len, recorded)) // patch) * patch
    stride = data.stride if data.window else window
    parts = parts or _split(config, loaded, window, stride)
    # Fitted before anomalies are injected: a range widened by them would give them away.
    scaler = Scaler.fit(
        config.quantizer.scale,
        recorded,
        parts["train"],
        reference_steps=config.quantizer.reference_steps,
        margin=config.quantizer.margin,
        typical_width=typical_width,
    )
    if data.labels == "injected":
        recorded, parts = labels.label_by_injection(data, recorded, parts)

    names = [series.name for series in recorded]
    windows = {split: cut_windows(part, names, window, stride) for split, part in parts.items()}
    references = _fit_references(config, loaded.series, parts, scaler.typical_width)
    numbers = _view_numbers(config, parts, references)
    views = {split: cut_views(part, window, stride) for split, part in numbers.items()}
    scaled = {split: scaler(part) for split, part in windows.items()}
    notes: dict[str, Any] = {"labels": {"kind": data.labels}}
    if data.folds:
        notes["fold"] = {"number": data.fold, "of": data.folds}
    if data.labels == "rules":
        recorded, windows, notes["labels"]["fired"] = labels.label_by_rules(data, recorded, windows, scaled)
    if quantizer is None:
        quantizer = Quantizer.fit(config.quantizer.kind, config.quantizer.bins, scaled["train"])

    lengths, notes["padding"] = _pad(windows, patch)
    examples = {
        split: _examples(config, part, quantizer(scaled[split]), views[split], lengths[split])
        for split, part in windows.items()
    }
    training, learned = examples["train"], windows["train"]
    if config.tsmote.enabled:
        stretches = labels.recut_stretches(recorded, parts["train"])
        learned, values, notes["tsmote"] = labels.resample(config, scaler, stretches, names, learned, scaled["train"])
        nothing = np.zeros((*values.shape, 0))
        training = _examples(config, learned, quantizer(values), nothing, np.full(len(learned), lengths["train"].max()))
    training = _choose_training(config, training, learned, recorded, notes)
    return Dataset(
        name=loaded.name,
        recorded=recorded,
        windows=windows,
        examples=examples,
        views=views,
        training=training,
        quantizer=quantizer,
        typical_width=scaler.typical_width,
        references=references,
        ranges=_ranges(config, recorded, parts["train"], scaler),
        notes=notes,
        warnings=(*loaded.warnings, *_warnings(config, recorded, parts), *_warn_of_one_class(examples["train"])),
    )


def _split(config: ConfigDict, loaded: LoadedSeries, window: int, stride: int) -> dict[str, list[Series]]:
    """Divides the recorded series into splits as the config says."""
    data = config.data
    if not data.folds:
        return split_series(
            loaded.series, data.split, data.fractions, window=window, stride=stride, gap=data.gap, seed=config.seed
        )
    groups = loaded.groups or [series.indivisible for series in loaded.series]
    fold_of = assign_folds(groups, data.folds)
    return split_fold(loaded.series, fold_of, data.fold, fractions=data.fractions, seed=config.seed)


def _choose_training(
    config: ConfigDict, training: Examples, windows: Windows, recorded: Sequence[Series], notes: dict[str, Any]
) -> Examples:
    """Returns the training windows that the config's samples and controls keep; adds to the notes."""
    if config.train.normal_windows:
        rng = np.random.default_rng((config.seed, 6))
        kept = labels.sample_normal_windows(windows, config.train.normal_windows, rng)
        notes["normal_windows"] = _count_kept(windows, kept)
        training, windows = training.select(np.flatnonzero(kept)), windows.select(kept)
    if config.train.labelled_share < 1:
        rng = np.random.default_rng((config.seed, 5))
        training = labels.keep_labelled_share(training, windows, recorded, config.train.labelled_share, rng)
    if config.train.shuffled_labels:
        training = labels.shuffle_targets(training, np.random.default_rng((config.seed, 4)))
    return training


def _count_kept(windows: Windows, kept: Bool[np.ndarray, "windows"]) -> dict[str, int]:
    """Returns notes on `train.normal_windows`."""
    normal = ~windows.labels.any(axis=1)
    return {"kept": int((normal & kept).sum()), "of": int(normal.sum()), "training_windows": int(kept.sum())}


def _check_series(data: ConfigDict, loaded: LoadedSeries) -> None:
    """Checks names, the order of rows, and that labels were recorded if the config uses recorded labels."""
    names: set[str] = set()
    for series in loaded.series:
        if series.name in names:
            raise InputError(f"two series are named {series.name!r}; rename one")
        names.add(series.name)
        check_order(f"series {series.name!r}", series.timestamps)
    if data.labels in ("recorded", "column", "intervals") and not all(series.labelled for series in loaded.series):
        raise InputError(
            f"config.data.labels={data.labels!r}: {loaded.name} has no recorded labels; allowed: rules (the context"
            " rules label the series) and injected (anomalies are injected into them)"
        )


def _pad(windows: Mapping[str, Windows], patch: int) -> tuple[dict[str, Int[np.ndarray, "windows"]], dict[str, Any]]:
    """Returns the length that each window is padded to, from few lengths for all splits, and notes on the padding."""
    lengths = padded_lengths(np.concatenate([part.lengths for part in windows.values()]), patch)
    ends = np.cumsum([len(part) for part in windows.values()])[:-1]
    steps = sum(int(part.real.sum()) for part in windows.values())
    notes = {"lengths": sorted(set(lengths.tolist())), "share": 1 - steps / int(lengths.sum())}
    return dict(zip(windows, np.split(lengths, ends), strict=True)), notes


def _examples(
    config: ConfigDict,
    windows: Windows,
    bins: Int[np.ndarray, "windows time"],
    views: Float[np.ndarray, "windows time views"],
    lengths: Int[np.ndarray, "windows"],
) -> Examples:
    mask = windows.real
    if config.quantizer.missing == "mask":
        mask = mask & np.isfinite(windows.values)
    targets = windows.labels
    if config.head.kind == "window":
        targets = np.broadcast_to(targets.any(axis=1, keepdims=True), targets.shape)
    view_bins = quantize_views(view_names(config)[1:], views, config.quantizer.bins)
    return Examples(bins=bins, views=view_bins, mask=mask, targets=targets.astype(np.float32), lengths=lengths)


def _fit_references(
    config: ConfigDict, series: Sequence[Series], parts: Mapping[str, Sequence[Series]], typical_width: float
) -> dict[str, Reference]:
    """Fits the reference of each series, the one that it is scaled by, if there are views that need it.

    Args:
      config: a complete config.
      series: the series without injected anomalies.
      parts: stretches of them by split.
      typical_width: see `Scaler`.
    """
    if len(view_names(config)) == 1:
        return {}
    if config.quantizer.scale == "series":
        chosen = [Stretches(own.values, np.arange(len(own))) for own in series]
    else:
        train = labels.recut_stretches(series, parts.get("train", ()))
        chosen = choose_references(series, train, config.quantizer.reference_steps)
    return {
        own.name: Reference.fit(*stretches, typical_width=typical_width)
        for own, stretches in zip(series, chosen, strict=True)
    }


def _view_numbers(
    config: ConfigDict, parts: Mapping[str, Sequence[Series]], references: Mapping[str, Reference]
) -> dict[str, list[Float[np.ndarray, "_time views"]]]:
    """Computes the further views of every stretch, from its own past and its series' reference alone."""
    names = view_names(config)[1:]
    return {
        split: [
            view_numbers(names, stretch.values, references[stretch.name], stretch.start + np.arange(len(stretch)))
            if names
            else np.zeros((len(stretch), 0))
            for stretch in part
        ]
        for split, part in parts.items()
    }


def _ranges(
    config: ConfigDict, recorded: Sequence[Series], train: Sequence[Series], scaler: Scaler
) -> dict[str, ScaleRange]:
    """Returns the ranges of the user's own series; those of public data sets never continue, or have a reference."""
    if config.data.name != "files" or config.quantizer.scale == "series":
        return {}
    trained = {stretch.name for stretch in train}
    columns = Counter(series.column for series in recorded)
    return {
        series.name: ScaleRange(series.column, *limits, alone=columns[series.column] == 1)
        for series, limits in zip(recorded, scaler.ranges, strict=True)
        if series.name in trained
    }


def _warnings(config: ConfigDict, recorded: Sequence[Series], splits: Collection[str]) -> tuple[str, ...]:
    warnings = []
    if config.data.labels in ("rules", "injected"):
        origin = {"rules": "made by the context rules", "injected": "of injected anomalies"}[config.data.labels]
        relabelled = [split for split in labels.relabelled_splits(recorded) if split in splits]
        warnings.append(
            f"data.labels={config.data.labels!r}: the labels of {', '.join(relabelled)} are {origin}, not recorded"
        )
    if config.train.labelled_share < 1:
        warnings.append(
            f"train.labelled_share: training uses {config.train.labelled_share:.1%} of the training part's incidents,"
            " and of its windows without one"
        )
    if config.train.shuffled_labels:
        warnings.append("train.shuffled_labels: a control, trained on labels that belong to other windows")
    if config.data.split == "random":
        warnings.append(f"data.split='random': {LEAKS}")
    if config.quantizer.scale == "series":
        warnings.append(LOOKS_AHEAD)
    if look_ahead(view_names(config)[1:]) is None:
        warnings.append("quantizer.views: whole_W compares with the whole series, future included: offline use only")
    return tuple(warnings)


def _warn_of_one_class(train: Examples) -> list[str]:
    classes = np.unique(train.targets[train.mask])
    if len(classes) != 1:
        return []
    return [f"the training part has no {'normal' if classes[0] else 'anomalous'} step: there is nothing to tell apart"]
