"""Selecting the hidden states that the head reads."""

import jax.numpy as jnp
import numpy as np
import pytest

from spear_jax.model.head_input import mean_over_steps, positions_to_read, shift_positions

MASK = jnp.array([[True, True, True], [True, False, False]])


@pytest.mark.parametrize(
    ("head_input", "positions"),
    [
        ("step", (0, 3)),
        ("mean", (0, 3)),
        ("cls", (-2, -1)),
        ("peft_first", (-2, -1)),
        ("peft_last", (6, 7)),
    ],
)
def test_positions_count_from_the_first_step(head_input: str, positions: tuple[int, int]) -> None:
    assert positions_to_read(MASK, head_input, before=2, after=4) == positions
    assert shift_positions(positions, 2) == (positions[0] + 2, positions[1] + 2)


def test_the_last_step_is_a_position_of_each_window() -> None:
    positions = positions_to_read(MASK, "last", before=2, after=0)
    np.testing.assert_array_equal(positions, [[2], [0]])
    np.testing.assert_array_equal(shift_positions(positions, 2), [[4], [2]])


def test_the_mean_leaves_out_padding() -> None:
    states = jnp.array([[[1.0], [2.0], [6.0]], [[4.0], [1e9], [-5.0]]])
    np.testing.assert_allclose(mean_over_steps(states, MASK), [[[3.0]], [[4.0]]])
    np.testing.assert_array_equal(mean_over_steps(states, jnp.zeros_like(MASK)), np.zeros((2, 1, 1)))
