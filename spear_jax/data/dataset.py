"""One data set from its source to what the model reads."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from spear_jax.data import nasa, splits, synthetic, windows
from spear_jax.data.batches import Examples
from spear_jax.data.quantizer import Quantizer
from spear_jax.data.scaler import LOOKS_AHEAD, Scaler
from spear_jax.data.series import Series
from spear_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Recorded series and, per split, their windows, as values and as bins.

    Attributes:
      name: of the data set, e.g. 'nasa'.
      recorded: the series as recorded; windows count in this list.
      windows: raw values and labels by split.
      examples: what the model reads, by split.
      quantizer: fitted on the training split.
      typical_width: the scaler's stand-in for the range of a constant reference.
      warnings: what every output has to say about these numbers.
    """

    name: str
    recorded: Sequence[Series]
    windows: dict[str, windows.Windows]
    examples: dict[str, Examples]
    quantizer: Quantizer
    typical_width: float
    warnings: tuple[str, ...]


def load_series(config: ConfigDict) -> list[Series]:
    """Reads the recorded series that `config.data` names.

    Raises:
      InputError: they are not there, or cannot be used.
    """
    data = config.data
    if data.name == "synthetic":
        return synthetic.generate(**(data.synthetic.to_dict() | _limit(data)))
    return nasa.load(
        data.dir,
        spacecraft=data.nasa.spacecraft,
        parts=data.nasa.parts,
        column=data.nasa.column,
        limit=data.limit_series,
    )


def _limit(data: ConfigDict) -> dict[str, int]:
    return {"series": data.limit_series} if data.limit_series else {}


def build(
    config: ConfigDict,
    recorded: Sequence[Series],
    *,
    quantizer: Quantizer | None = None,
    typical_width: float = 0.0,
) -> Dataset:
    """Splits, scales, cuts into windows and quantizes.

    Args:
      config: a whole config.
      recorded: the series, of unique names.
      quantizer: a finished detector's; without it one is fitted on the training split.
      typical_width: a finished detector's.

    Raises:
      InputError: a split would be empty.
    """
    data = config.data
    parts = splits.split_series(
        recorded,
        data.split,
        data.fractions,
        window=data.window,
        stride=data.stride,
        gap=data.gap,
        seed=config.seed,
    )
    scaler = Scaler(
        config.quantizer.scale,
        recorded,
        parts["train"],
        reference_steps=config.quantizer.reference_steps,
        margin=config.quantizer.margin,
        typical_width=typical_width,
    )
    names = [one.name for one in recorded]
    cut = {split: windows.cut(part, names, data.window, data.stride) for split, part in parts.items()}
    scaled = {split: scaler(part) for split, part in cut.items()}
    if quantizer is None:
        quantizer = Quantizer.fit(config.quantizer.kind, config.quantizer.bins, scaled["train"])
    examples = {split: _examples(part, quantizer(scaled[split]), config) for split, part in cut.items()}
    return Dataset(
        name=data.name,
        recorded=recorded,
        windows=cut,
        examples=examples,
        quantizer=quantizer,
        typical_width=scaler.typical_width,
        warnings=_warnings(config),
    )


def _examples(part: windows.Windows, bins: np.ndarray, config: ConfigDict) -> Examples:
    mask = part.real
    if config.quantizer.missing == "mask":
        mask = mask & np.isfinite(part.values)
    targets = part.labels
    if config.head.kind == "window":
        targets = np.broadcast_to(targets.any(axis=1, keepdims=True), targets.shape)
    return Examples(bins=bins, mask=mask, targets=targets.astype(np.float32))


def _warnings(config: ConfigDict) -> tuple[str, ...]:
    said = []
    if config.data.split == "random":
        said.append(f"data.split='random': {splits.LEAKS}")
    if config.quantizer.scale == "series":
        said.append(LOOKS_AHEAD)
    return tuple(said)


def check_names(recorded: Sequence[Series]) -> None:
    """Checks that every series can be told from the others by its name.

    Raises:
      InputError: naming one that comes twice.
    """
    seen: set[str] = set()
    for one in recorded:
        if one.name in seen:
            raise InputError(f"two series are named {one.name!r}")
        seen.add(one.name)
