"""Puts in wrong shapes on purpose: the annotations of the package are checked while the tests run."""

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

import spear_jax
from spear_jax.evaluation import ranking_metrics

LABELS = np.array([True, False, True])


def test_arrays_of_different_lengths_are_refused_where_one_axis_is_meant() -> None:
    assert ranking_metrics(LABELS, np.array([0.9, 0.1, 0.8])) == (1, 1)
    with pytest.raises(TypeCheckError, match="ranking_metrics"):
        ranking_metrics(LABELS, np.array([0.9, 0.1]))


@pytest.mark.parametrize("scores", [np.ones((3, 1)), np.ones(3, int), [0.9, 0.1, 0.8]])
def test_a_wrong_rank_dtype_or_type_is_refused(scores: object) -> None:
    with pytest.raises(TypeCheckError, match="scores"):
        ranking_metrics(LABELS, scores)


def test_a_transposed_mask_is_refused_by_a_backbone() -> None:
    backbone = spear_jax.load_backbone("random:tiny")
    embeddings = jnp.ones((2, 3, backbone.hidden_size))
    assert backbone.encode(embeddings, jnp.ones((2, 3), bool)).shape == embeddings.shape
    with pytest.raises(TypeCheckError, match="encode"):
        backbone.encode(embeddings, jnp.ones((3, 2), bool))


def test_a_wrong_shape_that_a_function_returns_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = spear_jax.load_backbone("random:tiny")
    monkeypatch.setattr(type(backbone), "_encode", lambda *arguments: jnp.ones((2, 3)))
    with pytest.raises(TypeCheckError, match="return value"):
        backbone.encode(jnp.ones((2, 3, backbone.hidden_size)), jnp.ones((2, 3), bool))
