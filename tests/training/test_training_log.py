"""The lines that training prints: one per epoch, and warnings."""

import pytest

from spear_jax.training.log import diagnose, epoch_line

LINE = {
    "epoch": 3,
    "loss": 0.25,
    "validation_loss": 0.3,
    "validation_auroc": 0.8,
    "validation_aupr": 0.4,
    "validation_base_rate": 0.1,
    "validation_score_spread": 0.5,
    "prompt_gradient": 1e-2,
    "prompt_update": 1e-3,
    "best": True,
}


def test_a_healthy_epoch_gives_no_warning() -> None:
    assert diagnose(20, LINE) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_update": 0.0}, "the prompt does not move"),
        ({"validation_score_spread": 1e-6}, "all predictions are one class"),
        ({"validation_aupr": None, "validation_auroc": None}, "validation has one class only"),
    ],
)
def test_a_warning_names_the_fault(change: dict, message: str) -> None:
    (warning,) = diagnose(20, LINE | change)
    assert warning.startswith(message)


def test_without_a_prompt_none_can_stand_still() -> None:
    assert diagnose(0, LINE | {"prompt_update": 0.0}) == []


def test_the_line_has_the_numbers_a_speed_and_an_eta() -> None:
    line = epoch_line(LINE, 40, 15.24, 754)
    for part in (
        "epoch   3/40",
        "loss 0.2500",
        "AUROC 0.800",
        "AUPR 0.400",
        "base rate 0.100",
        "15.2 windows/s",
        "ETA 12:34, then scoring",
    ):
        assert part in line
    assert "undefined (one class)" in epoch_line(LINE | {"validation_auroc": None}, 40, 1, 1)
