"""SPEAR in JAX: a frozen language model, steered by a tiny soft prompt, as a time-series anomaly detector."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spear_jax.backbones import load_backbone
    from spear_jax.estimator import SpearDetector


__version__ = "0.1.0"
__all__ = ["SpearDetector", "load_backbone"]


def __getattr__(name: str) -> Any:
    # Imported when first asked for, so that `--help` answers at once.
    if name == "load_backbone":
        from spear_jax.backbones import load_backbone

        return load_backbone
    if name == "SpearDetector":
        from spear_jax.estimator import SpearDetector

        return SpearDetector
    raise AttributeError(f"module 'spear_jax' has no attribute {name!r}")
