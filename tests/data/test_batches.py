"""Batches: every window once per epoch, in a reproducible order and few shapes."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.data.batches import (
    MAX_PADDING,
    MAX_SHAPES,
    Examples,
    order_digest,
    padded_lengths,
    scoring_batches,
    training_calls,
)

windows_lengths = st.lists(st.integers(1, 200), min_size=1, max_size=120).map(np.array)


@settings(deadline=None)
@given(lengths=windows_lengths, batch=st.integers(1, 40), per_call=st.integers(1, 9), epoch=st.integers(0, 5))
def test_an_epoch_holds_every_window_once(lengths, batch, per_call, epoch):
    padded = padded_lengths(lengths)
    calls = training_calls(padded, batch, per_call, seed=7, epoch=epoch)
    order = np.concatenate([call.rows for call in calls])
    assert order.shape == (-(-len(lengths) // batch), batch)
    assert sorted(order[order >= 0].tolist()) == list(range(len(lengths)))
    assert [call.first for call in calls] == [0, *itertools.accumulate(len(call.rows) for call in calls[:-1])]
    assert calls[-1].end == len(order)
    for call in calls:
        assert len(call.rows) <= per_call
        assert padded[call.rows[call.rows >= 0]].max() <= call.length  # nothing is cut off
    assert sum((call.rows < 0).any(axis=1).sum() for call in calls) <= 1


@settings(deadline=None)
@given(lengths=windows_lengths, batch=st.integers(1, 40))
def test_scoring_reads_every_window_once(lengths, batch):
    padded = padded_lengths(lengths)
    batches = scoring_batches(padded, batch)
    rows = np.concatenate([part.rows for part in batches])
    assert sorted(rows[rows >= 0].tolist()) == list(range(len(lengths)))
    assert all(padded[part.rows[part.rows >= 0]].max() == part.length for part in batches)


def test_windows_of_one_length_are_one_shuffled_row():
    calls = training_calls(np.full(50, 64), 8, 4, seed=3, epoch=1)
    order = np.concatenate([call.rows for call in calls]).reshape(-1)
    np.testing.assert_array_equal(order[:50], np.random.default_rng((3, 1)).permutation(50))
    assert [len(call.rows) for call in calls] == [4, 3]


def test_the_order_depends_only_on_seed_and_epoch():
    lengths = padded_lengths(np.arange(1, 51))
    orders = [training_calls(lengths, 8, 2, s, e) for s, e in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert order_digest(orders[0]) == order_digest(orders[1])
    assert len({order_digest(order) for order in orders}) == 3


def test_lengths_are_mixed_over_an_epoch():
    lengths = np.repeat([16, 32, 64], 40)
    order = [call.length for call in training_calls(lengths, 4, 2, seed=0, epoch=0)]
    assert sorted(order) == [16] * 5 + [32] * 5 + [64] * 5
    assert order != sorted(order) and order != sorted(order, reverse=True)


@settings(deadline=None)
@given(lengths=windows_lengths)
def test_padded_lengths_need_the_least_padding(lengths):
    padded = padded_lengths(lengths)
    assert (padded >= lengths).all()
    sizes = np.unique(padded)
    assert len(sizes) <= MAX_SHAPES
    rounded = np.unique(np.minimum(-(-lengths // 8) * 8, lengths.max()))
    if 1 < len(sizes) <= 3:  # no other choice of as many lengths pads less

        def total(ends: tuple[int, ...]) -> int:
            ordered = np.array(sorted(ends))
            return int(ordered[np.searchsorted(ordered, lengths)].sum())

        others = itertools.combinations(rounded[:-1], len(sizes) - 1)
        assert padded.sum() == min(total((*chosen, rounded[-1])) for chosen in others)
        fewer = itertools.combinations(rounded[:-1], len(sizes) - 2)
        assert min(1 - lengths.sum() / total((*chosen, rounded[-1])) for chosen in fewer) >= MAX_PADDING


def test_full_windows_need_one_shape():
    assert set(padded_lengths(np.full(1000, 128)).tolist()) == {128}
    assert set(padded_lengths(np.r_[np.full(1000, 128), 5]).tolist()) == {128}  # not worth a compilation


def test_a_missing_row_is_masked_throughout():
    examples = Examples(
        bins=np.full((2, 4), 5, np.int32),
        views=np.full((2, 4, 3), 6, np.int32),
        mask=np.ones((2, 4), bool),
        targets=np.ones((2, 4), np.float32),
        lengths=np.full(2, 3),
    )
    batch = examples.take(np.array([1, -1]), 3)
    assert batch["mask"].tolist() == [[True] * 3, [False] * 3]
    assert batch["targets"][1].tolist() == [0, 0, 0]
