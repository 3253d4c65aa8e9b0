"""Tests attention through jax.nn against the formula as written."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spear_jax.backbones.attention import attend, attend_fused, cudnn_can
from spear_jax.backbones.pretrained import choose_dtype

SHAPES = {  # batch, queries, keys, heads, heads of keys and values, size
    "bert": (2, 6, 6, 4, 4, 8),
    "odd": (2, 5, 7, 2, 2, 8),
    "grouped queries": (3, 4, 9, 6, 2, 16),
}
MASKS = ("none", "padding", "holes", "causal")


def make_mask(kind: str, queries: int, keys: int) -> np.ndarray:
    """Makes a mask; those of padding and holes are the same for all queries."""
    if kind == "causal":  # the last query is at the last key
        return np.tril(np.ones((queries, keys), bool), keys - queries)[None]
    allowed = np.ones((1, 1, keys), bool)
    if kind == "padding":
        allowed[..., keys - 2 :] = False
    elif kind == "holes":
        allowed[..., 1:3] = False
    return allowed


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_fused_form_equals_the_formula(shape: tuple[int, ...], kind: str) -> None:
    """Compares values and gradients; XLA stands in for cuDNN, which is given the same arguments."""
    batch, queries, keys, heads, shared, size = shape
    rng = np.random.default_rng(0)
    query = jnp.asarray(rng.normal(size=(batch, queries, heads, size)), jnp.float32)
    key, value = jnp.asarray(rng.normal(size=(2, batch, keys, shared, size)), jnp.float32)
    seen = rng.normal(size=(batch, queries, heads * size)).astype(np.float32)
    allowed = jnp.asarray(make_mask(kind, queries, keys))

    def plain(*arrays: jax.Array) -> jax.Array:
        return attend(*arrays, allowed, scale=0.3)[0]

    def fused(*arrays: jax.Array) -> jax.Array:
        return attend_fused(*arrays, allowed, scale=0.3, implementation="xla")

    np.testing.assert_allclose(fused(query, key, value), plain(query, key, value), atol=2e-6)
    gradients = [
        jax.grad(lambda *arrays, f=form: jnp.sum(f(*arrays) * seen), argnums=(0, 1, 2))(query, key, value)
        for form in (plain, fused)
    ]
    for expected, gradient in zip(*gradients, strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_weights_are_returned_where_they_are_asked_for() -> None:
    query = jnp.ones((1, 3, 2, 8))
    allowed = jnp.array([[[True, True, False]]])
    assert attend(query, query, query, allowed, scale=1.0)[1] is None
    weights = attend(query, query, query, allowed, scale=1.0, weights=True)[1]
    np.testing.assert_allclose(weights, np.broadcast_to([0.5, 0.5, 0.0], (1, 3, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("platform", "capability", "can"),
    [
        ("gpu", "9.0", True),  # H100
        ("gpu", "10.0", True),  # B200
        ("gpu", "7.5", False),  # T4
        ("gpu", "gfx90a", False),  # AMD
        ("tpu", "", False),
        ("cpu", "", False),
    ],
)
def test_cudnn_and_bfloat16_are_for_recent_gpus(
    platform: str, capability: str, can: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(compute_capability=capability)])
    assert cudnn_can(jnp.zeros((1, 2, 2, 32), jnp.bfloat16)) == can
    assert not cudnn_can(jnp.zeros((1, 2, 2, 32), jnp.float32))
    assert not cudnn_can(jnp.zeros((1, 2, 2, 36), jnp.bfloat16))
    assert not cudnn_can(jnp.zeros((1, 2, 2, 256), jnp.bfloat16))
    assert choose_dtype("auto") == ("bfloat16" if can or platform == "tpu" else "float32")
    assert choose_dtype("float32") == "float32"
