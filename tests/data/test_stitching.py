"""Stitching: one score per time step, whatever the windows overlap."""

import numpy as np

from spear_jax.data.stitching import ScoreSums


def test_overlapping_windows_are_averaged() -> None:
    sums = ScoreSums(5, columns=2)
    sums.add(np.array([0, 1, 2, 1, 2, 3]), np.arange(12.0).reshape(6, 2))
    np.testing.assert_array_equal(sums.scored, [True, True, True, True, False])
    np.testing.assert_array_equal(sums.means(np.arange(4)), [[0, 1], [4, 5], [6, 7], [10, 11]])


def test_a_step_may_keep_its_first_score() -> None:
    sums = ScoreSums(4)
    sums.add(np.array([0, 1, 1, 2]), np.array([[1.0], [2.0], [9.0], [3.0]]), first_only=True)
    sums.add(np.array([2, 3]), np.array([[9.0], [4.0]]), first_only=True)
    np.testing.assert_array_equal(sums.means(np.arange(4))[:, 0], [1, 2, 3, 4])


def test_the_range_moves_forward() -> None:
    sums = ScoreSums()
    sums.append(3)
    sums.add(np.array([0, 1, 2]), np.array([[1.0], [2.0], [3.0]]))
    sums.append(2)
    sums.drop_before(2)
    sums.add(np.array([2, 3]), np.array([[5.0], [6.0]]))
    np.testing.assert_array_equal(sums.scored, [True, True, False])
    np.testing.assert_array_equal(sums.means(np.array([2, 3]))[:, 0], [4, 6])
