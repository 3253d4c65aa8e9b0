"""The type of an entry in the table of config fields."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

Stage = Literal["data", "model", "training", "scoring", "threshold", "evaluation"]
"""The stage that reads a field: data preparation, building or training the model, scoring, alarms, or evaluation."""

TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list of numbers",
}
"""Type of a value -> its name in messages."""

_LARGEST_INTEGER = 2**32 - 1
"""Larger numbers overflow in NumPy or JAX; fields that take memory have limits of their own."""

Value = bool | int | float | str | tuple[float, ...]


class Limits(NamedTuple):
    """The smallest and largest value of a number."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"at least {self.low:.10g}" if self.high == math.inf else f"{self.low:.10g} to {self.high:.10g}"


@dataclasses.dataclass(frozen=True)
class Field:
    """Everything there is to know about one config field.

    Attributes:
      default: its value in `default_config`; 0 and '' mean unset.
      meaning: its description in docs/config.md.
      allowed: the choices, the limits of a number, or None.
      stage: the stage that reads it.
      carried: True if a detector brings its own value, which replaces the config's wherever the detector is used.
      scoring: when --mode=score accepts an override: 'always', 'files' (not for rows that arrive live), or 'never'.
        A carried field that can be overridden there can be overridden in --mode=evaluate as well.
      affects: what changing it in a started run affects: 'results', only the 'duration' of training, or
        'nothing'. A run can only be resumed if no field that affects results has changed.
      methods: the methods that read it; others refuse any value but the default. Empty: not checked.
    """

    default: Value
    meaning: str
    allowed: tuple[str, ...] | Limits | None = None
    stage: Stage = "data"
    carried: bool = False
    scoring: Literal["always", "files", "never"] = "never"
    affects: Literal["results", "duration", "nothing"] = "results"
    methods: tuple[str, ...] = ()

    def problem(self, value: object) -> str:
        """Returns why a value is invalid, such as 'must be at least 1', or '' if it is valid."""
        if type(self.default) is float and type(value) is int and abs(value) <= _LARGEST_INTEGER:
            value = float(value)
        if type(value) is not type(self.default):
            return f"must be {TYPE_NAMES[type(self.default)]}, such as {self.default!r}"
        if isinstance(value, float) and not math.isfinite(value):
            return "must be a finite number"
        if isinstance(self.allowed, Limits):
            assert isinstance(value, int | float)
            if not self.allowed.low <= value <= self.allowed.high:
                return f"must be {self.allowed}"
        elif self.allowed is not None and value not in self.allowed:
            return f"must be one of {', '.join(self.allowed)}"
        if type(value) is int and abs(value) > _LARGEST_INTEGER:
            return f"must be at most {_LARGEST_INTEGER}"
        return ""


def section(name: str, stage: Stage, fields: Mapping[str, Field], *, carried: bool = False) -> dict[str, Field]:
    """Returns the fields of one section by dotted name, with what they share filled in."""
    return {
        f"{name}.{key}": dataclasses.replace(field, stage=stage, carried=carried or field.carried)
        for key, field in fields.items()
    }
