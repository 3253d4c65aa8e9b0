"""Every config field: default, allowed values and meaning; reading, checking and reusing configs."""

from spear_jax.config.arguments import BACKBONES, MINILM, TINY, choose_backbone, variants
from spear_jax.config.checks import check_length, check_scheme, load_valid_config, validate
from spear_jax.config.data_fields import DISTANCES, VIEW_EMBEDDINGS, VIEWS
from spear_jax.config.fields import OWN_PAST, default_config, own_data_config
from spear_jax.config.methods import METHODS
from spear_jax.config.reading import (
    flatten,
    load_config,
    missing_values,
    override,
    packaged_configs,
    run_file,
    split_names,
    stored_values,
    to_json,
    view_names,
)
from spear_jax.config.reuse import (
    EXTENDABLE,
    IRRELEVANT,
    LOCAL,
    RETIRED,
    carry,
    check_evaluate_override,
    check_not_carried,
    check_score_override,
    differences,
    read_stored,
)

__all__ = [
    "BACKBONES",
    "DISTANCES",
    "EXTENDABLE",
    "IRRELEVANT",
    "LOCAL",
    "METHODS",
    "MINILM",
    "OWN_PAST",
    "RETIRED",
    "TINY",
    "VIEWS",
    "VIEW_EMBEDDINGS",
    "carry",
    "check_evaluate_override",
    "check_length",
    "check_not_carried",
    "check_scheme",
    "check_score_override",
    "choose_backbone",
    "default_config",
    "differences",
    "flatten",
    "load_config",
    "load_valid_config",
    "missing_values",
    "override",
    "own_data_config",
    "packaged_configs",
    "read_stored",
    "run_file",
    "split_names",
    "stored_values",
    "to_json",
    "validate",
    "variants",
    "view_names",
]
