"""Puts a soft prompt and a head on a frozen backbone."""

from spear_jax.model.assemble import Assembled, assemble_model, build_spear, count, warn
from spear_jax.model.inspection import Inspection, inspect
from spear_jax.model.peft import CONFIG, check, read_adapter, write_adapter
from spear_jax.model.placed import features, score_windows
from spear_jax.model.probing import MAX_BYTES, fit_head, states_once
from spear_jax.model.spear import Params, Spear, merge

__all__ = [
    "CONFIG",
    "MAX_BYTES",
    "Assembled",
    "Inspection",
    "Params",
    "Spear",
    "assemble_model",
    "build_spear",
    "check",
    "count",
    "features",
    "fit_head",
    "inspect",
    "merge",
    "read_adapter",
    "score_windows",
    "states_once",
    "warn",
    "write_adapter",
]
