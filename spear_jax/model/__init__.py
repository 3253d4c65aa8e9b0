"""Puts a soft prompt and a head on a frozen backbone."""

from spear_jax.model.assemble import assemble_model, build_spear, model_warnings
from spear_jax.model.inspection import Inspection, inspect_prompt
from spear_jax.model.members import over_members
from spear_jax.model.peft import ADAPTER_CONFIG, check_exchange, read_adapter, write_adapter
from spear_jax.model.placed import NotFiniteError, PlacedModel, apply_batch, count_parameters, score_batch
from spear_jax.model.probing import MAX_STATE_BYTES, fit_head, fit_heads, precompute_states
from spear_jax.model.spear import Params, Spear, merge

__all__ = [
    "ADAPTER_CONFIG",
    "MAX_STATE_BYTES",
    "Inspection",
    "NotFiniteError",
    "Params",
    "PlacedModel",
    "Spear",
    "apply_batch",
    "assemble_model",
    "build_spear",
    "check_exchange",
    "count_parameters",
    "fit_head",
    "fit_heads",
    "inspect_prompt",
    "merge",
    "model_warnings",
    "over_members",
    "precompute_states",
    "read_adapter",
    "score_batch",
    "write_adapter",
]
