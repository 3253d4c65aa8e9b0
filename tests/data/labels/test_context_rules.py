"""The rules against scipy window by window, and against windows that a reader can judge."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from spear_jax.config.fields import FIELDS
from spear_jax.data.labels import context_rules
from spear_jax.data.labels.context_rules import RULES, apply_rules

T = 64


def windows(kind: str, count: int, seed: int = 0) -> np.ndarray:
    """Noise, random walks, and windows with gaps and padding."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, T))
    if kind == "walks":
        values = np.cumsum(values, axis=1) / 5
    elif kind == "gaps":
        values[rng.random(values.shape) < 0.2] = np.nan
        for i in range(0, count, 3):
            values[i, rng.integers(8, T) :] = np.nan
    elif kind == "discrete":
        values = rng.integers(0, 3, values.shape).astype(float)
    return values


def by_scipy(window: np.ndarray) -> dict[str, bool]:
    """Applies the four rules to one window, with scipy's tests."""
    end = np.flatnonzero(np.isfinite(window))[-1] + 1
    steps = np.arange(end)[np.isfinite(window[:end])]
    known = window[steps]
    first, second = known[steps < end // 2], known[steps >= end // 2]
    line = stats.linregress(steps, known)
    jumps = np.abs(np.diff(window))
    jumps = jumps[np.isfinite(jumps)]
    return {
        "trend": bool(abs(line.slope) > 0.01 and line.pvalue < 0.05),
        "spike": bool((jumps > jumps.mean() + 3 * jumps.std()).any()),
        "shift": bool(stats.ttest_ind(first, second).pvalue < 0.05),
        "volatility": bool(stats.levene(first, second).pvalue < 0.05),
    }


@pytest.mark.parametrize("kind", ["noise", "walks", "gaps", "discrete"])
@pytest.mark.filterwarnings("ignore")
def test_rules_equal_scipy_on_a_thousand_windows(kind: str) -> None:
    values = windows(kind, 1000)
    labels = apply_rules(values)
    expected = [by_scipy(window) for window in values]
    for rule in RULES:
        np.testing.assert_array_equal(labels.fired[rule], [window[rule] for window in expected], err_msg=rule)
        if kind != "discrete":  # where a jump of 2 in 0 to 2 is never an outlier
            assert 0 < labels.fired[rule].sum() < 1000, rule


@pytest.mark.parametrize("kind", ["noise", "walks", "discrete"])
def test_p_values_equal_scipy(kind: str) -> None:
    values = windows(kind, 200)
    first = np.broadcast_to(np.arange(T) < T // 2, values.shape)
    slopes, p = context_rules.trend(values, np.isfinite(values))
    lines = [stats.linregress(np.arange(T), window) for window in values]
    np.testing.assert_allclose(slopes, [line.slope for line in lines], rtol=1e-9)
    np.testing.assert_allclose(p, [line.pvalue for line in lines], rtol=1e-7)
    t_test = stats.ttest_ind(values[:, : T // 2], values[:, T // 2 :], axis=1)
    np.testing.assert_allclose(context_rules.shift(values, first, ~first), t_test.pvalue, rtol=1e-7)
    levene = [stats.levene(window[: T // 2], window[T // 2 :]).pvalue for window in values]
    np.testing.assert_allclose(context_rules.volatility(values, first, ~first)[0], levene, rtol=1e-7)


def flat() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.01, T)


def test_each_rule_points_to_its_steps() -> None:
    step = np.arange(T)
    cases = {
        "trend": (flat() + 0.05 * step, step >= 0),
        "spike": (flat() + (step == 20), (step == 20) | (step == 21)),  # up, and down again
        "shift": (flat() + (step >= T // 2), step >= T // 2),
        "volatility": (flat() * np.where(step < T // 2, 40, 1), step < T // 2),
    }
    for rule, (window, expected) in cases.items():
        labels = apply_rules(window[None], rules=(rule,))
        assert labels.fired[rule].tolist() == [True], rule
        np.testing.assert_array_equal(labels.steps[0], expected, err_msg=rule)
        assert list(labels.fired) == [rule]


@pytest.mark.parametrize("window", [np.zeros(T), np.full(T, np.nan), np.r_[1.0, 2.0, np.full(T - 2, np.nan)]])
def test_windows_that_say_nothing_fire_nothing(window: np.ndarray) -> None:
    labels = apply_rules(window[None])
    assert not any(fired.any() for fired in labels.fired.values())
    assert not labels.steps.any()


@settings(deadline=None, max_examples=30)
@given(padding=st.integers(1, 40), length=st.integers(6, 60), seed=st.integers(0, 99))
def test_padding_changes_nothing(padding: int, length: int, seed: int) -> None:
    values = windows("walks", 5, seed)[:, :length]
    plain, padded = apply_rules(values), apply_rules(np.pad(values, ((0, 0), (0, padding)), constant_values=np.nan))
    for rule in RULES:
        np.testing.assert_array_equal(plain.fired[rule], padded.fired[rule])
    np.testing.assert_array_equal(plain.steps, padded.steps[:, :length])
    assert not padded.steps[:, length:].any()


def test_corrections() -> None:
    corrections = FIELDS["data.rules.correction"].allowed
    noise = windows("noise", 2000)
    count = {name: apply_rules(noise, rules=("shift",), correction=name).fired["shift"].sum() for name in corrections}
    assert 60 < count["none"] < 140  # the level itself: 5 % of what has no shift
    assert count["holm"] <= count["benjamini_hochberg"] <= 3
    shifted = noise + 2.0 * (np.arange(T) >= T // 2)
    for name in corrections:
        assert apply_rules(shifted, rules=("shift",), correction=name).fired["shift"].mean() > 0.9


def test_holm_by_hand() -> None:
    # .01 x 4, .02 x 3, .03 x 2, .04 x 1, never less than the one before
    corrected = context_rules._correct(np.array([0.03, 0.01, np.nan, 0.04, 0.02]), "holm")
    np.testing.assert_allclose(corrected, [0.06, 0.04, np.nan, 0.06, 0.06])


def test_fires_often_on_autocorrelated_data() -> None:
    fired = apply_rules(windows("walks", 500)).fired
    assert fired["shift"].mean() > 0.5  # a random walk has no shift, yet every second half "differs"
