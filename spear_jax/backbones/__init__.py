"""Loads frozen language models."""

from spear_jax.backbones.attention import Selection, take
from spear_jax.backbones.backbone import Backbone
from spear_jax.backbones.decoder import Decoder
from spear_jax.backbones.pretrained import BackboneShape, choose_dtype, describe_backbone, load_backbone
from spear_jax.backbones.weights.checkpoint import Params, check_finite, param_shapes

__all__ = [
    "Backbone",
    "BackboneShape",
    "Decoder",
    "Params",
    "Selection",
    "check_finite",
    "choose_dtype",
    "describe_backbone",
    "load_backbone",
    "param_shapes",
    "take",
]
