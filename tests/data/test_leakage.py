"""Nothing of validation or test reaches training, for every kind of split and data set."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_jax.config import default_config, load_config
from spear_jax.data import VIEWS, dataset, sources
from spear_jax.data.series import LoadedSeries, Series
from spear_jax.data.windows import Windows

REAL = os.environ.get("SPEAR_DATA_DIR", "")
NAMES = ("nasa", "nab", "mimic_iv", "files", "synthetic")


def load(name: str, tmp_path: Path) -> LoadedSeries:
    """Loads a small data set of each source: a real one, or files written here."""
    config = load_config(f"configs/{'quickstart' if name == 'synthetic' else name}.py:debug")
    config.data.limit_series = 12
    if name == "synthetic":
        config.data.synthetic.length = 400
    elif name == "files":
        step = np.arange(1500)
        rows = "\n".join(f"{np.sin(i / 9):.4f},{np.cos(i / 5):.4f},{int(i % 90 > 80)}" for i in step)
        for i in range(3):
            (tmp_path / f"{i}.csv").write_text(f"a,b,label\n{rows}\n")
        config.data.dir = str(tmp_path)
    elif not REAL:
        pytest.skip(f"{name} is not in $SPEAR_DATA_DIR")
    if name == "mimic_iv":
        config.data.dir, config.data.mimic_iv.prepared_dir = f"{REAL}/mimic_iv_demo", str(tmp_path)
        config.data.mimic_iv.min_steps, config.data.limit_series = 100, 30
    return sources.load_series(config)


def build(loaded: LoadedSeries, split: str, **fields: object) -> dataset.Dataset:
    config = default_config()
    config.data.window, config.data.stride, config.data.gap, config.data.split = 32, 16, 8, split
    if not all(series.labelled for series in loaded.series):
        config.data.labels = "rules"
    config.update_from_flattened_dict(fields)
    return dataset.build_dataset(config, loaded)


def steps(part: Windows) -> set[tuple[int, int]]:
    """Returns (series, step) of every real step in the windows."""
    return {
        (int(series), int(begin) + int(t))
        for series, begin, real in zip(part.series, part.start, part.real, strict=True)
        for t in np.flatnonzero(real)
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["series", "time"])
def test_no_step_of_validation_or_test_is_in_a_training_window(name: str, split: str, tmp_path: Path) -> None:
    made = build(load(name, tmp_path), split)
    parts = {key: steps(part) for key, part in made.windows.items()}
    assert not parts["train"] & parts["validation"]
    assert not parts["train"] & parts["test"]
    assert not parts["validation"] & parts["test"]
    assert not any("windows of one series are in several splits" in warning for warning in made.warnings)
    groups = {
        key: {made.recorded[i].group or made.recorded[i].name for i in set(part.series.tolist())}
        for key, part in made.windows.items()
    }
    if split == "series":  # neither a series, nor a patient, nor a file
        assert not groups["train"] & (groups["validation"] | groups["test"])
    else:  # and the gap is left out on both sides
        for before, after in (("train", "validation"), ("validation", "test")):
            ends = dict(sorted(parts[before]))  # the last step of each series
            begins = dict(sorted(parts[after], reverse=True))  # the first
            assert all(begins[series] - ends[series] > 8 for series in ends.keys() & begins.keys())


@pytest.mark.parametrize("name", NAMES)
def test_random_windows_leak_and_every_output_says_so(name: str, tmp_path: Path) -> None:
    made = build(load(name, tmp_path), "random")
    parts = {key: steps(part) for key, part in made.windows.items()}
    assert parts["train"] & parts["test"]  # windows overlap by half
    assert set(made.windows["train"].series.tolist()) & set(made.windows["test"].series.tolist())
    assert any("windows of one series are in several splits" in warning for warning in made.warnings)


def change_test(loaded: LoadedSeries, made: dataset.Dataset) -> LoadedSeries:
    """Changes the values of all steps that are in no train or validation window."""
    rng = np.random.default_rng(1)
    used = steps(made.windows["train"]) | steps(made.windows["validation"])
    changed = []
    for i, series in enumerate(loaded.series):
        in_use = np.array([(i, t) in used for t in range(len(series))], bool)
        values = np.where(in_use, series.values, 100 * rng.normal(size=len(series))).astype(series.values.dtype)
        changed.append(dataclasses.replace(series, values=values))
    return loaded._replace(series=changed)


@pytest.mark.parametrize("labels", ["recorded", "rules", "injected"])
@pytest.mark.parametrize("split", ["series", "time"])
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 1000))
def test_training_does_not_change_with_the_test(split: str, labels: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    series = [
        Series(f"s{i}", np.cumsum(rng.normal(size=n)), rng.random(n) < 0.1)
        for i, n in enumerate(rng.integers(150, 400, 8))
    ]
    loaded = LoadedSeries("made", series)
    fields = {"data.labels": labels, "seed": seed, "quantizer.kind": "quantile", "tsmote.enabled": True}
    made = build(loaded, split, **fields)
    other = build(change_test(loaded, made), split, **fields)
    for part in ("train", "validation"):
        np.testing.assert_array_equal(made.examples[part].bins, other.examples[part].bins)
        np.testing.assert_array_equal(made.examples[part].targets, other.examples[part].targets)
    np.testing.assert_array_equal(made.training.bins, other.training.bins)
    np.testing.assert_array_equal(made.training.targets, other.training.targets)
    assert not np.array_equal(made.examples["test"].bins, other.examples["test"].bins)


@pytest.mark.parametrize("scale", ["train", "window"])
def test_own_series_keep_their_reference_however_they_are_scaled(scale: str) -> None:
    values = np.random.default_rng(3).normal(size=400)
    loaded = LoadedSeries("made", [Series("s", values, np.arange(400) % 40 < 4)])
    fields = {"data.name": "files", "data.labels": "column", "quantizer.views": "value,past_8"}
    made = build(loaded, "time", **fields, **{"quantizer.scale": scale})
    train = values[: max(t for _, t in steps(made.windows["train"])) + 1]
    assert made.references["s"].unit == pytest.approx(train.std())
    assert made.ranges["s"][1:3] == (train.min(), train.max())  # a detector keeps the references of these series


@pytest.mark.parametrize("scale", ["train", "window"])
@pytest.mark.parametrize("labels", ["recorded", "injected"])
@pytest.mark.parametrize("split", ["series", "time"])
def test_views_read_neither_the_test_nor_a_label(split: str, labels: str, scale: str) -> None:
    rng = np.random.default_rng(3)
    series = [
        Series(f"s{i}", np.cumsum(rng.normal(size=n)), rng.random(n) < 0.1)
        for i, n in enumerate(rng.integers(250, 400, 8))
    ]
    series[0].values[:245] = 1.0  # its reference is constant, so that the range of the others replaces its own
    loaded = LoadedSeries("made", series)
    views = ",".join(name for name in VIEWS if name.partition("_")[2] in ("", "8", "32"))
    fields = {
        "data.labels": labels,
        "quantizer.views": views,
        "quantizer.reference_steps": 80,
        "quantizer.scale": scale,
    }
    made = build(loaded, split, **fields)
    other = build(change_test(loaded, made), split, **fields)
    for part in ("train", "validation"):
        assert np.isfinite(made.views[part]).any(axis=(0, 1)).all()
        np.testing.assert_array_equal(made.views[part], other.views[part])
        np.testing.assert_array_equal(made.examples[part].views, other.examples[part].views)
    assert not np.array_equal(made.examples["test"].views, other.examples["test"].views)
    if labels == "recorded":  # in a split by series, labels decide which series is where
        unlabelled = loaded._replace(series=[dataclasses.replace(s, labels=~s.labels) for s in series])
        relabelled = build(unlabelled, split, **fields)
        by_series = dict(_first_windows(made))
        for name, numbers in _first_windows(relabelled):
            if split == "series":
                np.testing.assert_array_equal(numbers, by_series[name])


def _first_windows(made: dataset.Dataset) -> list[tuple[int, np.ndarray]]:
    """Returns the views of the first window of each series, with the series' number."""
    return [
        (int(series), views)
        for part, windows in made.windows.items()
        for series, start, views in zip(windows.series, windows.start, made.views[part], strict=True)
        if start == 0
    ]


@pytest.mark.parametrize("split", ["series", "time"])
def test_synthesized_windows_come_only_from_training(split: str) -> None:
    rng = np.random.default_rng(0)
    series = []
    for i in range(10):
        labels = np.arange(600) % 300 >= 280  # rare enough for several mixed windows each
        series.append(Series(f"s{i}", rng.normal(0, 0.1, 600) + 3 * labels, labels))
    loaded = LoadedSeries("made", series)
    made = build(loaded, split, **{"tsmote.enabled": True, "tsmote.max_lead": 4})
    report = made.notes["tsmote"]
    train = made.windows["train"]
    assert report["synthesized"] > 0
    assert report["drawn"] == report["normal_windows"] == int((~train.labels.any(axis=1)).sum())
    assert len(made.training) == 2 * report["drawn"]  # the normal windows, and as many positive ones
    other = build(change_test(loaded, made), split, **{"tsmote.enabled": True, "tsmote.max_lead": 4})
    np.testing.assert_array_equal(made.training.bins, other.training.bins)
    np.testing.assert_array_equal(made.training.targets, other.training.targets)
    assert other.notes["tsmote"] == report
    plain = build(loaded, split)
    for part in ("train", "validation", "test"):  # what is evaluated is what was recorded
        np.testing.assert_array_equal(made.examples[part].bins, plain.examples[part].bins)
        np.testing.assert_array_equal(made.examples[part].targets, plain.examples[part].targets)


def test_scaling_by_the_series_looks_ahead_and_says_so() -> None:
    rng = np.random.default_rng(0)
    series = [Series(f"s{i}", np.cumsum(rng.normal(size=300)), rng.random(300) < 0.1) for i in range(6)]
    loaded = LoadedSeries("made", series)
    made = build(loaded, "time", **{"quantizer.scale": "series"})
    other = build(change_test(loaded, made), "time", **{"quantizer.scale": "series"})
    assert not np.array_equal(made.examples["train"].bins, other.examples["train"].bins)
    assert any("future included" in warning for warning in made.warnings)
