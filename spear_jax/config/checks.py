"""Checks a config before anything is read or written."""

import json
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from spear_jax.config.fields import CHOICES, EXTENDABLE, IRRELEVANT, OF_METHODS, PROMPT_INITS, RANGES, default_config
from spear_jax.config.reading import _KINDS, _nearest, flatten, to_json
from spear_jax.errors import InputError


def validate(config: ConfigDict) -> None:
    """Checks every field against the defaults' names and types, and against CHOICES and RANGES.

    Raises:
      InputError: naming the first field that cannot be used, its value, and what is allowed.
    """
    fields, defaults = flatten(config), flatten(default_config())
    for field in fields:
        if field not in defaults:
            raise InputError(f"config.{field}: no such field; {_nearest(field, defaults)}")
    for field, default in defaults.items():
        if field not in fields:
            raise InputError(f"config.{field}: missing")
        value = fields[field]
        if type(default) is float and type(value) is int:
            value = float(value)
        if type(value) is not type(default):
            needed = _KINDS.get(type(default), type(default).__name__)
            raise InputError(f"config.{field}={value!r}: needed is {needed}, like {default!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"config.{field}={value}: needed is a finite number")
        if field in CHOICES and value not in CHOICES[field]:
            raise InputError(f"config.{field}={value!r}: allowed are {', '.join(CHOICES[field])}")
        if field in RANGES:
            low, high = RANGES[field]
            if not low <= value <= high:
                limits = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
                raise InputError(f"config.{field}={value}: allowed is {limits}")
    _validate_together(config)


def _validate_together(config: ConfigDict) -> None:
    fractions = config.data.fractions
    if config.data.window == 1:
        raise InputError("config.data.window=1: allowed is at least 2, or 0 for each series whole")
    if config.data.window and config.data.stride > config.data.window:
        raise InputError(
            f"config.data.stride={config.data.stride}: allowed is at most config.data.window={config.data.window}, so"
            " that every step lies in a window"
        )
    if (
        len(fractions) != 3
        or not all(isinstance(f, int | float) and 0 < f < 1 for f in fractions)
        or abs(sum(fractions) - 1) > 1e-6
    ):
        raise InputError(
            f"config.data.fractions={tuple(fractions)}: needed are three shares (train, validation, test) between 0"
            " and 1 that sum to 1"
        )
    of_files = ("column", "intervals")
    if config.data.name == "files" and config.data.labels == "recorded":
        raise InputError("config.data.labels='recorded': for own files allowed are column, intervals, rules, injected")
    if config.data.name != "files" and config.data.labels in of_files:
        raise InputError(
            f"config.data.labels={config.data.labels!r}: is of own files (config.data.name='files'); for"
            f" {config.data.name} allowed are recorded, rules, injected"
        )
    if config.data.combine != "none" and config.data.name != "files":
        raise InputError(
            f"config.data.combine={config.data.combine!r}: is of the columns of own files (config.data.name='files')"
        )
    for field, methods in OF_METHODS.items():
        value = flatten(config)[field]
        if value != flatten(default_config())[field] and config.method not in methods:
            raise InputError(
                f"config.{field}={value!r}: is not of config.method={config.method!r}; it is of {', '.join(methods)}"
            )
    if config.tsmote.enabled and config.train.labelled_share < 1:
        raise InputError(
            f"config.train.labelled_share={config.train.labelled_share:g}: T-SMOTE reads all labels; allowed is 1, or"
            " config.tsmote.enabled=False"
        )
    if config.method.startswith("lstm") and config.head.kind != "step":
        raise InputError(f"config.head.kind={config.head.kind!r}: the LSTM has a score per step; allowed is step")
    if config.method == "fine_tuning" and config.backbone.int8 != "none":
        raise InputError(
            f"config.backbone.int8={config.backbone.int8!r}: weights that are fine-tuned cannot be int8; allowed is"
            " none, or config.method=lora"
        )
    zero_shot = config.zero_shot
    if zero_shot.most_cost and not (zero_shot.price_in and zero_shot.price_out):
        raise InputError(
            f"config.zero_shot.most_cost={zero_shot.most_cost:g}: needs config.zero_shot.price_in and price_out, per"
            " million tokens"
        )
    init = config.prompt.init
    if init not in PROMPT_INITS and not init.endswith(".npy") and "/" not in init:
        raise InputError(
            f"config.prompt.init={init!r}: allowed are {', '.join(PROMPT_INITS)}, a .npy file, or an adapter of PEFT's"
            " prompt tuning: a path with a slash (./adapter), or user/name of the Hub"
        )
    if init not in PROMPT_INITS and not init.endswith(".npy") and config.prompt.position != "prefix":
        raise InputError(
            f"config.prompt.position={config.prompt.position!r}: PEFT puts its prompts in front, so with"
            f" config.prompt.init={init!r} allowed is prefix"
        )
    if config.head.kind == "window" and config.head.pooling == "cls" and config.prompt.position != "after_cls":
        raise InputError(
            f"config.head.pooling='cls' with config.prompt.position={config.prompt.position!r}: only 'after_cls' puts a"
            " [CLS] into the sequence"
        )


def check_length(config: ConfigDict, window: int, max_positions: int) -> None:
    """Checks that prompt and window fit into the backbone.

    Args:
      config: a whole config.
      window: steps in the longest window.
      max_positions: of the backbone.

    Raises:
      InputError: naming the field that is too long.
    """
    extra = 1 if config.prompt.position == "after_cls" else 0
    left = max_positions - config.prompt.length - extra
    if left < 2:
        raise InputError(
            f"config.prompt.length={config.prompt.length}: the backbone {config.backbone.name} has {max_positions}"
            f" positions, so at most {max_positions - extra - 2} can be prompt"
        )
    if window > left:
        longest = "" if config.data.window else f" (each series whole, the longest of {window} steps)"
        raise InputError(
            f"config.data.window={config.data.window}{longest}: the backbone {config.backbone.name} has {max_positions}"
            f" positions and {config.prompt.length + extra} are prompt, so a window has at most {left} steps"
        )


def differences(before: Mapping[str, Any], now: ConfigDict) -> list[str]:
    """Fields in which a run folder's config differs from the one at hand, in what shaped the steps already done."""
    old, new = flatten(before), flatten(json.loads(to_json(now)))
    free = set(IRRELEVANT) | set(EXTENDABLE)
    return [
        f"{field} ({old.get(field, 'absent')!r} there, {new.get(field, 'absent')!r} here)"
        for field in sorted(old.keys() | new.keys())
        if field not in free and old.get(field) != new.get(field)
    ]
