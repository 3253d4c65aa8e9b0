"""Combining prompt and series, its mask and its positions."""

import jax.numpy as jnp
import numpy as np

from spear_jax.model.sequence import combine, extend_mask, last_step, suffix_positions

STEPS = jnp.arange(12, dtype=jnp.float32).reshape(2, 3, 2)  # batch, time, hidden
MASK = jnp.array([[True, True, True], [True, False, False]])


def test_vectors_before_and_after_the_steps_are_the_same_for_all_windows() -> None:
    before, after = jnp.full((2, 2), -1.0), jnp.full((1, 2), -2.0)
    sequence = np.asarray(combine(before, STEPS, after))
    for window, steps in zip(sequence, STEPS, strict=True):
        np.testing.assert_array_equal(window, np.concatenate([before, steps, after]))
    nothing = jnp.zeros((0, 2))
    np.testing.assert_array_equal(combine(nothing, STEPS, nothing), STEPS)


def test_the_vectors_around_the_steps_are_attended_to() -> None:
    extended = extend_mask(MASK, before=1, after=2)
    np.testing.assert_array_equal(extended[1], [True, True, False, False, True, True])


def test_a_suffix_counts_on_from_the_last_real_step() -> None:
    np.testing.assert_array_equal(suffix_positions(MASK, after=2), [[0, 1, 2, 3, 4], [0, 1, 2, 1, 2]])


def test_the_last_step_is_that_of_the_mask() -> None:
    holes = jnp.array([[True, False, True], [False, True, False], [False, False, False]])
    np.testing.assert_array_equal(last_step(holes), [2, 1, 0])
