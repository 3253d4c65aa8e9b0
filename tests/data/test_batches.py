"""Batches: every window once an epoch, in an order that a resumed run finds again."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.data.batches import Examples, calls, digest, fill, training_order


@settings(deadline=None)
@given(windows=st.integers(1, 300), batch=st.integers(1, 40), epoch=st.integers(0, 5))
def test_an_epoch_holds_every_window_once(windows, batch, epoch):
    order = training_order(windows, batch, seed=7, epoch=epoch)
    assert order.shape == (-(-windows // batch), batch)
    assert sorted(order[order >= 0].tolist()) == list(range(windows))
    assert (order[:-1] >= 0).all()


def test_the_order_depends_on_seed_and_epoch_alone():
    orders = [training_order(50, 8, s, e) for s, e in ((0, 0), (0, 0), (0, 1), (1, 0))]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert len({digest(order) for order in orders}) == 3


def test_a_missing_row_is_masked_throughout():
    examples = Examples(
        bins=np.full((2, 3), 5, np.int32),
        mask=np.ones((2, 3), bool),
        targets=np.ones((2, 3), np.float32),
    )
    batch = examples.take(np.array([1, -1]))
    assert batch["mask"].tolist() == [[True] * 3, [False] * 3]
    assert batch["targets"][1].tolist() == [0, 0, 0]


@settings(deadline=None)
@given(steps=st.integers(1, 60), per_call=st.integers(1, 20), begin=st.integers(0, 59))
def test_calls_cover_the_rest_of_an_epoch(steps, per_call, begin):
    done = [step for first, last in calls(steps, per_call, begin) for step in range(first, last)]
    assert done == list(range(begin, steps))


def test_fill_of_nothing_is_nothing():
    assert fill(np.arange(0), 4).shape == (0, 4)
