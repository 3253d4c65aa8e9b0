"""Tests SpearDetector: scikit-learn's conventions, all kinds of series, the same scores as the command line."""

import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from conftest import Spear
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from spear_jax import SpearDetector
from spear_jax.config import OWN_PAST
from spear_jax.errors import InputError
from spear_jax.estimator import _check_validation
from spear_jax.training.log import Log

TINY: dict[str, Any] = {"window": 16, "prompt_length": 2, "epochs": 2, "batch_size": 8, "verbose": False}


def tiny(**changed: Any) -> SpearDetector:
    return SpearDetector("random:tiny", **{**TINY, **changed})


def make(rows: int = 300, columns: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns noise with three anomalies that are high in all columns, and the labels."""
    values, labels = np.random.default_rng(seed).normal(size=(rows, columns)), np.zeros(rows, int)
    for begin in (60, 150, 270):
        labels[begin : begin + 15] = 1
    values[labels == 1] += 6
    return values, labels


@pytest.fixture(scope="module")
def fitted(spear: Spear) -> SpearDetector:
    return tiny().fit(*make())


class AnyLabels(SpearDetector):
    """Accepts the labels of scikit-learn's checks: those above the median are anomalous."""

    def fit(self, series: Any, labels: Any = None, *rest: Any) -> "AnyLabels":
        if labels is not None and np.asarray(labels).dtype.kind in "biuf":
            labels = (np.asarray(labels) > np.median(labels)).astype(int)
        super().fit(series, labels, *rest)
        return self


EXPECTED_FAILURES = {
    "check_fit_score_takes_y": "the second argument is called labels, as a series has one for each step",
    "check_dtype_object": "labels other than 0 and 1 are refused with a message of our own, which names the row",
    "check_methods_sample_order_invariance": "the order of a series matters",
    "check_methods_subset_invariance": "the score of a step depends on its surroundings",
    "check_fit1d": "an array of one axis is one series",
    "check_fit2d_predict1d": "a single series can be scored by a detector of many",
}


@pytest.mark.slow
@parametrize_with_checks(
    [AnyLabels("random:tiny", **{**TINY, "epochs": 1})],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
    xfail_strict=True,
)
@pytest.mark.filterwarnings("ignore")
def test_checks_of_scikit_learn(spear: Spear, estimator: SpearDetector, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt()])
def test_an_error_in_a_callback_ends_fit(spear: Spear, capfd: pytest.CaptureFixture[str], error: BaseException) -> None:
    def fail(line: dict[str, Any]) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        tiny().fit(*make(), callback=fail)
    assert raised.value is error
    assert "Traceback" not in capfd.readouterr().err


def test_validation_labels_without_labels_are_refused() -> None:
    values, labels = make()
    with pytest.raises(InputError, match=r"labels=None: .* give labels, or validation=\(series, None\)"):
        tiny().fit(values, None, validation=(values, labels))


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (np.zeros(300), r"validation is ndarray; it must be a pair: \(series, labels\)"),
        ((np.zeros(300), None), r"validation=\(series, None\): with labels, validation needs them too"),
    ],
)
def test_validation_data_are_a_pair_with_labels(validation: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _check_validation(np.zeros(300), validation)


def test_text_in_a_frame_is_read_as_in_a_file(spear: Spear) -> None:
    values, labels = make(columns=1)
    times = pd.date_range("2025-01-01", periods=300, freq="min")
    frame = pd.DataFrame({"when": times.astype(str), "x": values[:, 0], "place": "pump"})
    with pytest.warns(UserWarning, match="left out: place .text, such as 'pump'."):
        detector = tiny(epochs=1).fit(frame, labels)
    assert detector.feature_names_in_.tolist() == ["x"]
    with pytest.warns(UserWarning, match="left out: place"):
        intervals = detector.intervals(frame)
    assert set(intervals["start_time"]) <= set(times)


def test_a_column_of_labels_is_no_value(spear: Spear) -> None:
    values, labels = make(columns=1)
    frame = pd.DataFrame({"x": values[:, 0], "is_anomaly": labels})
    with pytest.warns(UserWarning, match="left out: is_anomaly"):
        detector = tiny(epochs=1).fit(frame, labels)
    assert detector.n_features_in_ == 1
    with pytest.warns(UserWarning, match="left out: is_anomaly"):
        scores = detector.decision_function(frame)
    np.testing.assert_array_equal(scores, detector.decision_function(frame[["x"]]))
    with pytest.raises(InputError, match=r"no column of values; is_anomaly .*; value_columns can name them"):
        tiny().fit(frame[["is_anomaly"]], labels)


def test_times_outside_the_range_of_nanoseconds_are_refused(fitted: SpearDetector) -> None:
    times = pd.date_range("3000-01-01", periods=300, freq="min", unit="s")
    with pytest.raises(InputError, match="row 1, column 'index': 3000-01-01 00:00:00 is not a time"):
        fitted.intervals(pd.DataFrame(make()[0], index=times))


def test_every_row_has_a_score_and_anomalies_have_higher_ones(fitted: SpearDetector) -> None:
    values, labels = make(seed=1)
    scores = fitted.decision_function(values)
    assert scores.shape == (300,) and ((scores >= 0) & (scores <= 1)).all()
    assert scores[labels == 1].mean() > scores[labels == 0].mean()
    np.testing.assert_array_equal(fitted.predict(values), (scores >= fitted.threshold_).astype(int))
    assert fitted.decision_scores_.shape == fitted.labels_.shape == (300,)
    np.testing.assert_array_equal(fitted.labels_, fitted.predict(make()[0]))
    assert [line["epoch"] for line in fitted.history_] == [1, 2]


@pytest.mark.parametrize(
    "frame",
    [
        lambda values: pd.DataFrame(values),
        lambda values: pl.DataFrame(values, schema=["0", "1"]),
        lambda values: pd.DataFrame(values, index=pd.date_range("2025-01-01", periods=len(values), freq="h")),
        lambda values: np.asfortranarray(values.astype(np.float32)),
    ],
    ids=["pandas", "polars", "times", "float32"],
)
@pytest.mark.filterwarnings("ignore:X has feature names")
def test_all_containers_give_the_same_scores(fitted: SpearDetector, frame: Callable[[np.ndarray], Any]) -> None:
    values = make(seed=1)[0].round(3)
    scores = fitted.decision_function(frame(values))
    np.testing.assert_allclose(scores, fitted.decision_function(values), atol=1e-3)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_columns_without_names_are_those_of_fit(spear: Spear) -> None:
    values, labels = make()
    frame = pd.DataFrame(values, columns=["level", "flow"])
    detector = tiny().fit(frame, labels)
    new = frame.iloc[40:] + 3  # a scale fitted to its own first rows would hide the shift
    expected = detector.decision_function(new)
    np.testing.assert_allclose(detector.decision_function(new.to_numpy()), expected, atol=1e-6)
    np.testing.assert_allclose(detector.decision_function([new])[0], expected, atol=1e-6)
    level_detector = tiny().fit(frame[["level"]], labels)
    expected = level_detector.decision_function(new[["level"]])
    for level in (new["level"], new["level"].tolist(), new["level"].to_numpy()):
        np.testing.assert_allclose(level_detector.decision_function(level), expected, atol=1e-6)
    named, unnamed = (level_detector.decision_function(flow) for flow in (new["flow"], new["flow"].to_numpy()))
    assert np.abs(named - unnamed).max() > 1e-3


def test_a_new_fit_replaces_the_columns_and_a_failed_one_changes_nothing(spear: Spear) -> None:
    values, labels = make()
    frame = pd.DataFrame(values, columns=["level", "flow"])
    frame.insert(0, "time", pd.date_range("2025-01-01", periods=len(frame), freq="h"))
    detector = tiny().fit(frame, labels)
    assert detector.n_features_in_ == 2 and detector.feature_names_in_.tolist() == ["level", "flow"]
    expected = detector.decision_function(frame)
    np.testing.assert_array_equal(detector.decision_function(frame.set_index("time")), expected)
    with pytest.raises(InputError, match="expected a label for each of the 300 rows"):
        detector.fit(frame.rename(columns={"flow": "other"}), labels[:-1])
    np.testing.assert_array_equal(detector.decision_function(frame), expected)
    detector.fit(values[:, 0], labels)
    assert not hasattr(detector, "n_features_in_")
    assert detector.decision_function(values[:, :1]).shape == (300,)


def test_parameters_set_after_fit_take_effect_with_the_next(fitted: SpearDetector) -> None:
    values = make(seed=1)[0]
    expected = fitted.decision_function(values)
    later = pickle.loads(pickle.dumps(fitted)).set_params(combine="mean", scale="window", backbone="nowhere")
    np.testing.assert_array_equal(later.decision_function(values), expected)


@pytest.mark.parametrize(("label", "problem"), [(0, "has no anomalous step"), (1, "has no normal step")])
def test_labels_of_one_class_are_warned_about(spear: Spear, label: int, problem: str) -> None:
    values, _ = make()
    with pytest.warns(UserWarning, match=f"the training part {problem}: there is nothing to tell apart"):
        tiny().fit(values, np.full(len(values), label))


def test_series_of_any_lengths(spear: Spear) -> None:
    several = [make(rows=200 + 40 * seed, columns=1, seed=seed) for seed in range(4)]
    values, labels = [pair[0][:, 0] for pair in several], [pair[1] for pair in several]
    detector = tiny().fit(values, labels)
    assert not hasattr(detector, "n_features_in_")
    scores = detector.decision_function([*values, values[0][:5]])
    assert [len(array) for array in scores] == [200, 240, 280, 320, 5]
    np.testing.assert_allclose(scores[1], detector.decision_function(values[1].tolist()), atol=1e-6)
    assert [len(flags) for flags in detector.predict(values)] == [200, 240, 280, 320]
    frames = [pd.DataFrame({"time": pd.date_range("2025-01-01", periods=200, freq="s"), "x": values[0]}), values[1]]
    intervals = detector.intervals(frames)
    assert list(intervals.columns[:4]) == ["series", "start", "end", "peak"]
    for row in intervals.itertuples():
        assert (detector.predict(values[row.series])[[row.start, row.end, row.peak]] == 1).all()
        assert row.score == scores[row.series][row.start : row.end + 1].max()
    first = intervals[intervals["series"] == 0]
    assert (first["start_time"] == frames[0]["time"][first["start"]].to_numpy()).all()
    assert intervals[intervals["series"] == 1]["start_time"].isna().all()


def test_a_new_series_is_none_of_several_that_were_trained_on(spear: Spear) -> None:
    """Not even if only one of them was trained on, since validation holds the other."""
    (first, labels), (second, _), (new, _) = (make(columns=1, seed=seed) for seed in range(3))

    def scale_counts(detector: SpearDetector) -> bool:
        return not np.allclose(detector.decision_function(5 + 3 * new), detector.decision_function(new), atol=1e-3)

    assert not scale_counts(tiny(epochs=1).fit([first, second], [labels, labels]))
    # A series that goes on keeps its scale.
    assert scale_counts(tiny(epochs=1).fit(first, labels))
    assert scale_counts(tiny(epochs=1).fit(first, labels, (second, labels)))


def test_fit_without_labels_injects_anomalies_and_warns(spear: Spear) -> None:
    values = np.sin(np.arange(600) / 5)
    message = "^fit without labels: the labels of train, validation are of injected anomalies, not recorded$"
    with pytest.warns(UserWarning, match=message):
        detector = tiny().fit(values)
    assert detector.decision_scores_.shape == (600,)
    assert any("injected" in warning for warning in detector.detector_.warnings)


def test_validation_data_determine_the_threshold(spear: Spear) -> None:
    values, labels = make(columns=1)
    validation = make(columns=1, seed=5)
    epochs: list[int] = []
    detector = tiny().fit(values, labels, validation=validation, callback=lambda line: epochs.append(line["epoch"]))
    assert epochs == [1, 2]
    assert detector.history_[0]["validation_base_rate"] == pytest.approx(validation[1].mean())
    scores = detector.decision_function(validation[0])
    predicted = scores >= detector.threshold_ - 1e-6
    best = max(
        2 * (validation[1] & (scores >= threshold)).sum() / (validation[1].sum() + (scores >= threshold).sum())
        for threshold in np.unique(scores)
    )
    own = 2 * (validation[1] & predicted).sum() / (validation[1].sum() + predicted.sum())
    assert own > 0.9 * best  # windows overlap in validation and lie side by side when it scores


def test_the_readout_is_chosen_on_validation_data_and_saved(spear: Spear, tmp_path: Path) -> None:
    values, labels = make(columns=1)
    values += 6 * np.random.default_rng(1).normal(size=values.shape)  # single steps say little
    detector = tiny().fit(values, labels)
    smoothing = detector.detector_.readout.smoothing
    assert smoothing > 1 and detector.detector_.config.score.smoothing == smoothing
    detector.save(str(tmp_path / "saved"))
    loaded = SpearDetector.load(str(tmp_path / "saved"))
    np.testing.assert_array_equal(loaded.decision_function(values), detector.decision_scores_)
    assert np.abs(np.diff(detector.decision_scores_)).max() < np.ptp(detector.decision_scores_) / 4


def test_control_c_keeps_the_best_prompt_so_far(spear: Spear) -> None:
    def interrupt(line: dict[str, Any]) -> None:
        if line["epoch"] == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.warns(UserWarning, match="the best prompt so far is kept"):
        detector = tiny(epochs=50).fit(*make(), callback=interrupt)
    assert len(detector.history_) == 2
    shorter = tiny(epochs=2).fit(*make())
    np.testing.assert_allclose(detector.decision_scores_, shorter.decision_scores_, atol=1e-6)


def test_control_c_before_the_first_evaluation_keeps_the_prompt_so_far(
    spear: Spear, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Log.write

    def interrupt(log: Log, line: dict[str, Any]) -> None:
        write(log, line)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Log, "write", interrupt)
    with pytest.warns(UserWarning, match="the best prompt so far is kept"):
        detector = tiny(batch_size=1).fit(*make())
    assert detector.history_ == []
    assert detector.decision_scores_.shape == (300,)


def test_saved_pickled_and_cloned(spear: Spear, tmp_path: Path) -> None:
    fitted = tiny().fit(pd.DataFrame(make()[0], columns=["a", "b"]), make()[1])
    values = pd.DataFrame(make(seed=2)[0].round(3), columns=["a", "b"])
    expected = fitted.decision_function(values)
    fitted.save(str(tmp_path / "detector"))
    loaded = SpearDetector.load(str(tmp_path / "detector"))
    assert loaded.get_params() == {**fitted.get_params(), "stride": 8, "views": OWN_PAST, "patch": 1, "verbose": True}
    np.testing.assert_array_equal(loaded.decision_function(values), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).decision_function(values), expected)
    assert loaded.threshold_ == fitted.threshold_
    with pytest.raises(NotFittedError):
        clone(fitted).predict(values)
    values.to_csv(tmp_path / "values.csv", index=False)
    outcome = spear(
        "--mode=score",
        f"--detector={tmp_path / 'detector'}",
        f"--input={tmp_path / 'values.csv'}",
        f"--workdir={tmp_path / 'scored'}",
        "--config.data.combine=max",
    )
    assert outcome.code == 0, outcome.err
    assert "scaled as in training: values/a values/b" in outcome.out
    scored = pd.read_parquet(tmp_path / "scored" / "scores.parquet")
    np.testing.assert_allclose(scored["score"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "series", "labels", "message"),
    [
        ({"epochs": 0}, None, None, "epochs=0 must be at least 1"),
        ({"scale": "all"}, None, None, "scale='all' must be one of train, series, window"),
        ({"combine": "none"}, None, None, "combine='none': .* allowed: max, mean"),
        ({"combine": "std"}, None, None, "combine='std' must be one of"),
        ({"window": "32"}, None, None, "window='32': is str; it must be int"),
        ({"seed": 0.5}, None, None, "seed=0.5: is float; it must be int"),
        ({"window": 601}, None, None, "^window=601 must be at most .* has 512 positions, of which the prompt takes 2"),
        ({}, None, np.full(300, 2), "labels: row 0 is 2; allowed: 0 and 1"),
        ({}, None, np.zeros(299), r"labels: their shape is \(299,\); expected a label for each of the 300 rows"),
        ({}, np.full((300, 2), np.inf), None, "series: row 0 is infinite"),
        ({}, np.zeros((3, 3, 3)), None, "dim 3"),
        ({}, np.array(["a", "b"]), None, "could not convert string"),
        ({}, [np.zeros(50), np.zeros(50)], [np.zeros(50)], "labels: 1 for 2 series; expected one for each"),
        (
            {},
            pd.DataFrame({"t": pd.to_datetime(["2025-01-01", None]), "x": [1, 2]}),
            [0, 1],
            "row 2, column 't': NaT is not a time",
        ),
    ],
)
def test_bad_input_is_named(changed: dict[str, Any], series: Any, labels: Any, message: str) -> None:
    values, flags = make()
    with pytest.raises(ValueError, match=message):
        tiny().set_params(**changed).fit(values if series is None else series, flags if labels is None else labels)


def test_columns_must_be_those_of_fit(fitted: SpearDetector) -> None:
    with pytest.raises(ValueError, match="X has 3 features, but SpearDetector is expecting 2"):
        fitted.decision_function(np.zeros((50, 3)))
    assert len(fitted.decision_function([np.zeros((50, 3))])) == 1  # each of several series is scored by itself


def test_not_fitted(fitted: SpearDetector, tmp_path: Path) -> None:
    for use in (tiny().predict, tiny().intervals):
        with pytest.raises(NotFittedError):
            use(np.zeros(10))
    with pytest.raises(NotFittedError):
        tiny().save(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^/.*file: is a file; save needs a folder"):
        fitted.save(str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"^/.*: no detector\.json"):
        SpearDetector.load(str(tmp_path))
