"""Tests the record of a run."""

import time

from spear_jax.evaluation import RunRecord


def test_the_seconds_of_a_stage_add_up() -> None:
    record = RunRecord()
    for _ in range(2):
        with record.timed("loading"):
            time.sleep(0.02)
    with record.timed("scoring"):
        pass
    assert list(record.seconds) == ["loading", "scoring"]
    assert 0.04 <= record.seconds["loading"] < 2
    assert record.seconds["scoring"] < 0.04
