"""Puts a soft prompt and a head on a frozen backbone."""

from spear_jax.model.assemble import assemble_model, build_spear, warn
from spear_jax.model.inspection import Inspection, inspect
from spear_jax.model.peft import CONFIG, check, read_adapter, write_adapter
from spear_jax.model.placed import PlacedModel, count
from spear_jax.model.probing import MAX_BYTES, fit_head, precompute_states
from spear_jax.model.spear import Params, Spear, merge

__all__ = [
    "CONFIG",
    "MAX_BYTES",
    "Inspection",
    "Params",
    "PlacedModel",
    "Spear",
    "assemble_model",
    "build_spear",
    "check",
    "count",
    "fit_head",
    "inspect",
    "merge",
    "precompute_states",
    "read_adapter",
    "warn",
    "write_adapter",
]
