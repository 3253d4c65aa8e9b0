"""Runs of equal steps, against a loop over the steps."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spear_jax.data.runs import find_equal_runs, find_runs


def runs_by_loop(rows: list) -> list[tuple[object, int, int]]:
    runs, start = [], 0
    for value, group in itertools.groupby(rows):
        end = start + len(list(group))
        runs.append((value, start, end))
        start = end
    return runs


@given(flags=st.lists(st.booleans(), max_size=30))
def test_runs_of_true(flags):
    starts, ends = find_runs(np.array(flags, bool))
    expected = [(start, end) for value, start, end in runs_by_loop(flags) if value]
    assert list(zip(starts.tolist(), ends.tolist(), strict=True)) == expected


@given(rows=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), max_size=30))
def test_runs_of_equal_rows(rows):
    first, second = np.array(rows, int).reshape(-1, 2).T
    starts, ends = find_equal_runs(first, second)
    expected = [(start, end) for _, start, end in runs_by_loop(rows)]
    assert list(zip(starts.tolist(), ends.tolist(), strict=True)) == expected
