"""Series of any length: padding changes no real score, whatever length windows are padded to."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from conftest import Spear, check_scores, command, quick, results
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.backbones.pretrained import load_backbone
from spear_jax.config.arguments import TINY
from spear_jax.config.fields import default_config
from spear_jax.data.batches import MAX_SHAPES, Examples, padded_lengths
from spear_jax.data.series import Series
from spear_jax.data.step_scores import stitch
from spear_jax.data.windows import cut_windows
from spear_jax.evaluation.pointwise import point_metrics
from spear_jax.methods.head_only import score_head_only
from spear_jax.model.assemble import assemble_model
from spear_jax.model.placed import PlacedModel
from spear_jax.model.spear import merge

pytestmark = pytest.mark.one_python

T, BINS = 48, 20


def assembled(position: str = "prefix", head: str = "step", pooling: str = "mean") -> PlacedModel:
    config = default_config()
    config.backbone.name, config.quantizer.bins, config.data.window = TINY, BINS, T
    config.prompt.length, config.prompt.position = 4, position
    config.head.kind, config.head.pooling = head, pooling
    model = assemble_model(config, load_backbone(TINY))
    rng = np.random.default_rng(0)  # a head of 0.02 would hide a difference
    kernel = rng.normal(size=(32, 1)).astype(np.float32)
    return model.with_parts({"head": {"kernel": kernel, "bias": np.zeros(1, np.float32)}})


def windows(rows: int = 30, seed: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    real = rng.integers(2, T + 1, rows)
    mask = np.arange(T) < real[:, None]
    return Examples(
        bins=rng.integers(0, BINS, (rows, T)).astype(np.int32),
        views=np.zeros((rows, T, 0), np.int32),
        mask=mask,
        targets=(rng.random((rows, T)) < 0.2) * mask * 1.0,
        lengths=padded_lengths(real),
    )


HEADS = [("step", "mean"), ("window", "mean"), ("window", "last")]


@pytest.mark.parametrize(("head", "pooling"), [HEADS[0], pytest.param(*HEADS[1], marks=pytest.mark.slow), HEADS[2]])
@pytest.mark.parametrize(
    "position", ["prefix", *(pytest.param(position, marks=pytest.mark.slow) for position in ("after_cls", "suffix"))]
)
def test_any_amount_of_padding_changes_no_logit(position: str, head: str, pooling: str) -> None:
    model = assembled(position, head, pooling)
    examples = windows(4)
    parameters = merge(model.trainable, model.frozen)

    def logits(padding: int) -> np.ndarray:
        bins = np.pad(examples.bins, ((0, 0), (0, padding)), constant_values=7)
        mask = np.pad(examples.mask, ((0, 0), (0, padding)))
        return np.asarray(jax.jit(model.module.apply)(parameters, bins, mask))[:, :T][examples.mask]

    plain = logits(0)
    assert np.ptp(plain) > 0.1
    for padding in (1, 7, 64, 300):
        np.testing.assert_allclose(logits(padding), plain, atol=1e-5)


@pytest.mark.parametrize(
    ("head", "pooling"), [HEADS[0], *(pytest.param(*head, marks=pytest.mark.slow) for head in HEADS[1:])]
)
def test_short_windows_are_read_short_and_score_the_same(head: str, pooling: str) -> None:
    model = assembled(head=head, pooling=pooling).with_batch_size(8)
    examples = windows()
    assert len(set(examples.lengths.tolist())) > 2
    full = dataclasses.replace(examples, lengths=np.full(len(examples), T))

    def scores(padded: Examples) -> np.ndarray:
        return model.score(padded)[examples.mask]

    np.testing.assert_allclose(scores(examples), scores(full), atol=1e-5)

    def head_scores(padded: Examples) -> np.ndarray:
        return score_head_only(model, padded, {"test": padded}, positive_weight=1.0, seed=0)["test"][examples.mask]

    np.testing.assert_allclose(head_scores(examples), head_scores(full), atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(lengths=st.lists(st.integers(1, 70), min_size=2, max_size=6), junk=st.floats(-9, 9))
def test_what_stands_in_padding_changes_no_metric(lengths: list[int], junk: float) -> None:
    rng = np.random.default_rng(0)
    series = [Series(f"s{i}", rng.normal(size=n), rng.random(n) < 0.3) for i, n in enumerate(lengths)]
    windows_of_series = cut_windows(series, [member.name for member in series], 32, 32)
    scores = rng.random(windows_of_series.real.shape)

    def metrics(scores: np.ndarray) -> dict:
        steps = stitch(windows_of_series, scores, series)
        assert len(steps.score) == sum(lengths)
        return point_metrics("", steps.label, steps.score, steps.score > 0.5)

    if 0 < sum(member.labels.sum() for member in series) < sum(lengths):
        assert metrics(scores) == metrics(np.where(windows_of_series.real, scores, junk))


@pytest.mark.slow
def test_whole_series_are_windows_of_their_own(spear: Spear, tmp_path) -> None:
    fields = {"data.window": 0, "data.synthetic.length": 300, "data.synthetic.past": 0}
    outcome = spear(*quick(tmp_path / "run", fields))
    assert outcome.code == 0, outcome.err
    content = results(tmp_path / "run")
    assert all(content["splits"][split]["windows"] == content["splits"][split]["series"] for split in ("train", "test"))
    assert "windows of 300" in outcome.out
    check_scores(tmp_path / "run")
    evaluated = tmp_path / "evaluated"
    shorter = {"data.synthetic.series": 6, "data.synthetic.length": 200, "data.fractions": "(0.6, 0.2, 0.2)"}
    outcome = spear(
        *command("quickstart:debug", shorter, mode="evaluate", detector=tmp_path / "run", workdir=evaluated)
    )
    assert outcome.code == 0, outcome.err
    check_scores(evaluated)


def test_whole_series_of_many_lengths_are_read_in_few(spear: Spear, tmp_path) -> None:
    rng = np.random.default_rng(0)
    for i in range(20):
        length = 20 + 5 * i
        lines = [f"{value:.3f},{row % 10 // 8}" for row, value in enumerate(rng.normal(size=length))]
        (tmp_path / f"s{i:02}.csv").write_text("\n".join(["value,label", *lines]))
    shown = spear(
        *command("files:debug", {"data.dir": tmp_path, "data.window": 0, "data.split": "series"}, mode="preview")
    )
    assert shown.code == 0, shown.err
    lengths = {length for match in re.findall(r"windows of ([\d or]+)", shown.out) for length in match.split(" or ")}
    assert 1 < len(lengths) <= MAX_SHAPES


def test_a_whole_series_that_is_too_long_is_refused(spear: Spear, tmp_path) -> None:
    fields = {"data.window": 0, "data.synthetic.length": 600}
    outcome = spear(*quick(tmp_path / "run", fields))
    assert outcome.code == 2
    assert "config.data.window=0 (one window per series, the longest of 600 time steps) must be at most" in outcome.err
    assert not (tmp_path / "run").exists()
