"""Every field of a config, its default, and what is allowed in it."""

from spear_jax.config.checks import check_length, differences, validate
from spear_jax.config.fields import BACKBONES, EXTENDABLE, IRRELEVANT, MINILM, TINY, default_config, own_data_config
from spear_jax.config.methods import METHODS, Method
from spear_jax.config.reading import (
    choose_backbone,
    find_file,
    flatten,
    load_config,
    override,
    take_environment,
    to_json,
    variants,
)

__all__ = [
    "BACKBONES",
    "EXTENDABLE",
    "IRRELEVANT",
    "METHODS",
    "MINILM",
    "TINY",
    "Method",
    "check_length",
    "choose_backbone",
    "default_config",
    "differences",
    "find_file",
    "flatten",
    "load_config",
    "override",
    "own_data_config",
    "take_environment",
    "to_json",
    "validate",
    "variants",
]
