"""Checks what the training loop keeps on the devices."""

import jax
import numpy as np

from spear_jax.estimator import SpearDetector

PROMPT, BINS = 7, 13


def live(rows: int) -> int:
    """Returns the number of buffers with so many rows and columns as the backbone is wide."""
    arrays = [array for array in jax.live_arrays() if array.shape == (rows, 32)]
    return len({array.unsafe_buffer_pointer() for array in arrays})  # several arrays may refer to one buffer


def test_the_first_parameters_leave_the_devices_once_there_are_better_ones() -> None:
    counts = []
    values = np.random.default_rng(0).normal(size=400)
    labels = (np.arange(400) % 50 > 44).astype(int)
    detector = SpearDetector(
        "random:tiny",
        prompt_length=PROMPT,
        bins=BINS,
        window=32,
        epochs=3,
        embedding="trained",
        views="value",
        verbose=False,
    )
    detector.fit(values, labels, callback=lambda line: counts.append((live(PROMPT), live(BINS + 1))))
    # The current and the best ones, and Adam's two moments.
    assert counts == [(4, 4)] * 3
    assert detector.history_[-1]["prompt_moved"] and min(detector.history_[-1]["prompt_moved"]) > 0
