"""Labels made by rules or injection: where they go, where recorded ones stay, and that every output says so."""

import numpy as np
import pyarrow.parquet
import pytest
from conftest import Spear, check_scores, quick, results
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.config import default_config
from spear_jax.data import dataset
from spear_jax.data.labels.injection import MEAN_STEPS, inject
from spear_jax.data.series import LoadedSeries, Series
from spear_jax.errors import InputError


def make(labelled: bool, count: int = 6, length: int = 400) -> list[Series]:
    rng = np.random.default_rng(0)
    step = np.arange(length)
    return [
        Series(
            f"s{i}",
            (np.sin(step / 5) + rng.normal(0, 0.1, length)).astype(np.float32),
            (step % 100 < 7) if labelled else np.zeros(length, bool),
            labelled=labelled,
        )
        for i in range(count)
    ]


def build(labels: str, labelled: bool, **fields: object) -> dataset.Dataset:
    config = default_config()
    config.data.window = config.data.stride = 32
    config.data.labels, config.data.gap = labels, 32
    with config.unlocked():
        config.update_from_flattened_dict(fields)
    return dataset.build_dataset(config, LoadedSeries("made", make(labelled)))


@pytest.mark.parametrize("split", ["series", "time", "random"])
@pytest.mark.parametrize("labels", ["rules", "injected"])
def test_the_test_split_keeps_recorded_labels(labels: str, split: str) -> None:
    made = build(labels, labelled=True, **{"data.split": split})
    recorded = {series.name: series for series in make(True)}
    test = made.windows["test"]
    for number, start, labels_now, values in zip(test.series, test.start, test.labels, test.values, strict=True):
        original = recorded[f"s{number}"].stretch(start, start + 32)
        np.testing.assert_array_equal(labels_now, original.labels)
        np.testing.assert_array_equal(values, original.values)
    train = made.windows["train"]
    original = np.stack([recorded[f"s{s}"].labels[b : b + 32] for s, b in zip(train.series, train.start, strict=True)])
    assert (train.labels != original).any()
    assert made.warnings[0].startswith(f"data.labels='{labels}': the labels of train, validation are")


@pytest.mark.parametrize("labels", ["rules", "injected"])
def test_all_splits_of_unlabelled_series_get_labels(labels: str) -> None:
    made = build(labels, labelled=False)
    assert all(part.labels.any() for part in made.windows.values())
    assert "labels of train, validation, test are" in made.warnings[0]
    for split, part in made.windows.items():  # windows and series agree
        for number, begin, row in zip(part.series, part.start, part.labels, strict=True):
            np.testing.assert_array_equal(made.recorded[number].labels[begin : begin + 32], row, err_msg=split)


def test_missing_labels_are_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match=r"made has no recorded labels; allowed: rules .* and injected"):
        build("recorded", labelled=False)


def test_how_often_each_rule_fires_is_reported() -> None:
    fired = build("rules", labelled=False, **{"data.rules.spike": False}).notes["labels"]["fired"]
    assert set(fired) == {"train", "validation", "test"}
    assert set(fired["train"]) == {"trend", "shift", "volatility", "windows"}
    assert 0 < fired["train"]["windows"] <= 1


def test_tsmote_ignores_anomalies_with_gaps() -> None:
    series = make(True)
    for item in series:
        item.values[::50] = np.nan
    config = default_config()
    config.data.window = config.data.stride = 32
    config.tsmote.enabled = True
    made = dataset.build_dataset(config, LoadedSeries("made", series))
    assert "tsmote" in made.notes
    assert np.isfinite(made.training.targets).all()


def test_correction_makes_rules_fire_less() -> None:
    shares = [
        build("rules", labelled=False, **{"data.rules.correction": name}).notes["labels"]["fired"]["train"]["windows"]
        for name in ("none", "benjamini_hochberg", "holm")
    ]
    assert shares[0] >= shares[1] >= shares[2]
    assert shares[0] > shares[2]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 50), rate=st.floats(0.02, 0.3))
def test_injection_changes_only_labelled_steps_and_is_repeatable(seed: int, rate: float) -> None:
    originals = make(False, count=2, length=1000)
    first, again = inject(originals, rate, seed), inject(originals, rate, seed)
    for original, changed, repeated in zip(originals, first, again, strict=True):
        np.testing.assert_array_equal(changed.values, repeated.values)
        np.testing.assert_array_equal(changed.labels, repeated.labels)
        np.testing.assert_allclose(changed.values[~changed.labels], original.values[~changed.labels], atol=1e-6)
        assert original.values.min() - 1e-6 <= changed.values.min()
        assert changed.values.max() <= original.values.max() + 1e-6


def test_injection_hits_its_rate() -> None:
    injected = inject(make(False, count=40, length=2000), 0.1, 0)
    assert np.mean([series.labels.mean() for series in injected]) == pytest.approx(0.1, abs=0.02)
    assert len(MEAN_STEPS) == 5


def test_injection_copes_with_constant_and_missing_values() -> None:
    values = np.full(500, 7.0)
    gaps = np.where(np.arange(500) % 3 == 0, np.nan, values)
    for original in (Series("a", values, np.zeros(500, bool)), Series("b", gaps, np.zeros(500, bool))):
        (changed,) = inject([original], 0.1, 0)
        assert changed.labels.any()
        assert (np.isnan(changed.values) == np.isnan(original.values)).mean() > 0.95
    empty = Series("c", np.full(50, np.nan), np.zeros(50, bool))
    assert not inject([empty], 0.1, 0)[0].labels.any()


@pytest.mark.parametrize("labels", ["rules", "injected"])
def test_every_output_says_how_labels_were_made(spear: Spear, tmp_path, labels: str) -> None:
    outcome = spear(*quick(tmp_path / "run", {"data.labels": labels, "tsmote.enabled": "true"}))
    assert outcome.code == 0, outcome.err
    assert f"WARNING: data.labels='{labels}': the labels of train, validation are" in outcome.out
    content = results(tmp_path / "run")
    assert content["labels"]["kind"] == labels
    assert any("not recorded" in warning for warning in content["warnings"])
    assert "tsmote" in content and "T-SMOTE: " in outcome.out
    check_scores(tmp_path / "run")

    table = tmp_path / "t.csv"
    table.write_text("a\n" + "\n".join(map(str, range(90))) + "\n")
    arguments = (
        "--mode=score",
        f"--detector={tmp_path / 'run'}",
        f"--input={table}",
        f"--workdir={tmp_path / 'scored'}",
    )
    outcome = spear(*arguments)
    assert outcome.code == 0, outcome.err
    assert f"WARNING: the detector: data.labels='{labels}'" in outcome.out
    metadata = pyarrow.parquet.read_schema(tmp_path / "scored" / "scores.parquet").metadata
    assert b"not recorded" in metadata[b"warnings"]
