"""Decides which fields may change when a run is resumed or a detector is used."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from spear_jax.config.fields import FIELDS, default_config
from spear_jax.config.reading import flatten, parse_value, stored_values
from spear_jax.errors import InputError

CARRIED = tuple(name for name, field in FIELDS.items() if field.carried)
"""Fields that a detector brings with it."""

LOCAL = tuple(name for name, field in FIELDS.items() if field.carried and field.scoring != "never")
"""Fields that a detector brings with it, but whose value may be replaced on the machine that uses it."""

EXTENDABLE = tuple(name for name, field in FIELDS.items() if field.affects == "duration")
"""Fields that may change when a run is resumed, and then extend or shorten it."""

IRRELEVANT = tuple(name for name, field in FIELDS.items() if field.affects == "nothing")
"""Fields that results do not depend on."""

RETIRED: dict[str, Any] = {"data.synthetic.kinds": "", "train.decay_to": 0.1, "controls.zscore_steps": 64}
"""Fields of earlier versions, and the value that this version always uses."""


ADDED: dict[str, Any] = {
    "data.folds": 0,
    "data.fold": 0,
    "data.missing_values": "",
    "data.decimal_sign": "",
    "data.series_column": "",
    "train.normal_windows": 0,
    "prompt.members": 1,
    "quantizer.patch": 1,
    "quantizer.views": "value",
    "score.smoothing": 1,
    "score.distance_weight": 0.0,
    "score.level": 0.0,
}
"""Fields that earlier versions lack, and the value that means what they did."""


def differences(stored: Mapping[str, Any], config: ConfigDict) -> list[str]:
    """Returns a line for each field by which two configs differ that affects steps already done.

    The first is the content of config.json, the other the config to resume with.
    """
    old, new = ADDED | RETIRED | flatten(stored), RETIRED | stored_values(config)
    return [
        f"{name} ({old.get(name, 'absent')!r} there, {new.get(name, 'absent')!r} here)"
        for name in sorted(old.keys() | new.keys())
        if name not in (*IRRELEVANT, *EXTENDABLE) and old.get(name) != new.get(name)
    ]


def read_stored(stored: Mapping[str, Any]) -> ConfigDict:
    """Rebuilds a detector's config from what `to_json` wrote; fields added since then take their defaults.

    Raises:
      InputError: a section that a detector carries is missing, a field does not exist, or a retired field has another
        value than the one that this version uses.
    """
    for section in dict.fromkeys(name.partition(".")[0] for name in CARRIED):
        if section not in stored:
            raise InputError(f"{section!r} is missing")
    values = flatten(stored)
    for name, value in RETIRED.items():
        if values.pop(name, value) != value:
            raise InputError(f"config.{name} no longer exists; this version always uses {value!r}")
    for name in values.keys() - FIELDS.keys():
        raise InputError(f"config.{name} does not exist in this version")
    config = default_config()
    config.update_from_flattened_dict(values)
    return config


def carry(detector: ConfigDict, config: ConfigDict) -> None:
    """Copies the fields that a detector carries from its config into another one, which is changed in place."""
    values = flatten(detector)
    config.update_from_flattened_dict({name: values[name] for name in CARRIED})


def check_retired(name: str, text: str) -> None:
    """Checks that a field of earlier versions is set to the value that this version always uses."""
    value = RETIRED[name]
    try:
        same = parse_value(name, text, value) == value
    except InputError:
        same = False
    if not same:
        raise InputError(f"--config.{name}={text} no longer exists; this version always uses {value!r}")


def check_not_carried(name: str) -> None:
    """Checks that a detector does not bring its own value of a field, which --mode=evaluate could not override."""
    if name in CARRIED and name not in LOCAL:
        raise InputError(f"--config.{name} comes from the detector and cannot be overridden with --mode=evaluate")


def check_evaluate_override(name: str, *, reuse_threshold: bool) -> None:
    """Checks that --mode=evaluate can override a field."""
    if name in RETIRED:
        return
    check_not_carried(name)
    field = FIELDS[name]
    if field.stage == "training":
        raise InputError(f"--config.{name} has no effect with --mode=evaluate, which trains nothing")
    if field.stage == "threshold" and reuse_threshold:
        raise InputError(
            f"--config.{name} has no effect with the detector's threshold and alarm rule; add"
            " --config.threshold.reuse=False"
        )


def check_score_override(name: str, *, live: bool) -> None:
    """Checks that --mode=score can override a field."""
    if name in FIELDS and FIELDS[name].scoring == "files" and live:
        raise InputError(
            f"--config.{name} has no effect with --input=-, which scores one window per column at a time and writes CSV"
            " without alarms"
        )
    allowed = [name for name, field in FIELDS.items() if field.scoring != "never"]
    if name not in allowed:
        raise InputError(f"--config.{name} cannot be overridden with --mode=score, only {', '.join(allowed)}")
