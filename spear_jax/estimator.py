"""SPEAR in the habits of scikit-learn and PyOD: fit, decision_function, predict."""

import contextlib
import dataclasses
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from etils import epath
from jaxtyping import Float, Int
from ml_collections import ConfigDict
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from spear_jax import parallel
from spear_jax.config import MINILM, own_data_config, validate
from spear_jax.data import (
    Dataset,
    LoadedSeries,
    Table,
    build_dataset,
    combine_columns,
    hold_out,
    is_list_of_series,
    make_series,
    read_array,
    read_labels,
    stitch,
)
from spear_jax.detector import AlarmTable, Column, Detector, Scorer, Stream, fit_scaler
from spear_jax.errors import InputError
from spear_jax.evaluation import alarm_rule_for, threshold_for, versions
from spear_jax.methods import assemble_method, load_method_backbone
from spear_jax.model import warn
from spear_jax.training import train_model

HELD_OUT = 0.25  # share of the series that decides on epoch and threshold, unless validation data are given


Scores = Float[np.ndarray, "time"] | list[Float[np.ndarray, "time"]]


Flags = Int[np.ndarray, "time"] | list[Int[np.ndarray, "time"]]


class SpearDetector(BaseEstimator):
    """A frozen language model with a trained soft prompt, as a detector of anomalies in series of one's own.

    A series is an array [time] or [time, columns], a list of numbers, or a frame of pandas or polars; several of any
    lengths are a list of them. Each column is scored as a series of its own, and a row gets one score. NaN is missing.
    What `set_params` changes takes effect with the next `fit`.

    Attributes:
      detector_: what was trained: saved, loaded, and used by `python -m spear_jax.main --mode=score` too.
      threshold_: a score of at least this is an anomaly; chosen on validation data.
      decision_scores_: scores of the series that `fit` was given, validation data apart.
      labels_: 0 and 1 for the same rows, at the threshold.
      history_: a dict for each epoch: loss, validation_loss, validation_auroc, validation_aupr, best, ...
      n_features_in_: columns of values in the array or frame that `fit` was given; not there where it was given a
        series [time] or a list.
    """

    def __init__(
        self,
        backbone: str = MINILM,
        *,
        prompt_length: int = 20,
        bins: int = 100,
        window: int = 128,
        stride: int = 0,
        epochs: int = 40,
        batch_size: int = 32,
        prompt_learning_rate: float = 3e-3,
        head_learning_rate: float = 1e-3,
        scale: str = "train",
        embedding: str = "numbers",
        head: str = "step",
        threshold_rule: str = "best_f1",
        combine: str = "max",
        dtype: str = "float32",
        seed: int = 0,
        verbose: bool = True,
    ) -> None:
        """Nothing is loaded or checked yet.

        Args:
          backbone: a Hugging Face id, a local folder, or 'random:tiny' (random weights, for tests).
          prompt_length: m, prompt vectors.
          bins: N, bins that a value is quantized into.
          window: steps that the model reads at once.
          stride: steps from one training window to the next; 0 is half a window.
          epochs: at most; training ends when validation has not improved for 8.
          batch_size: windows in a training step.
          prompt_learning_rate: of the prompt.
          head_learning_rate: of the head, which starts from a logistic regression.
          scale: where 0 and 1 of a series lie: 'train' (its beginning, see `quantizer.scale`), 'window', or 'series',
            which looks ahead.
          embedding: where the bins' vectors come from, see `embedding.kind`; 'trained' trains them too.
          head: 'step' or 'window'.
          threshold_rule: 'best_f1', 'false_positive_rate' or 'precision', on validation data.
          combine: 'max' or 'mean' of the columns' scores.
          dtype: of the backbone, 'float32' or 'bfloat16'.
          seed: of all that is drawn.
          verbose: a line per epoch, and a bar on a terminal.
        """
        self.backbone = backbone
        self.prompt_length = prompt_length
        self.bins = bins
        self.window = window
        self.stride = stride
        self.epochs = epochs
        self.batch_size = batch_size
        self.prompt_learning_rate = prompt_learning_rate
        self.head_learning_rate = head_learning_rate
        self.scale = scale
        self.embedding = embedding
        self.head = head
        self.threshold_rule = threshold_rule
        self.combine = combine
        self.dtype = dtype
        self.seed = seed
        self.verbose = verbose

    def fit(
        self,
        series: Any,
        labels: Any = None,
        validation: tuple[Any, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
    ) -> "SpearDetector":
        """Trains prompt and head. Ctrl-C ends training and keeps the best prompt so far.

        Args:
          series: one or a list, see the class.
          labels: 0 or 1 for each row, or a list of such. None: anomalies are put into copies of the series, and the
            detector learns to find these; a warning says so.
          validation: (series, labels) that decide on epoch and threshold. None: a quarter is held out: whole series
            where both parts then have anomalies, else the end of each.
          callback: is given a line of `history_` after each epoch.

        Returns:
          Itself.

        Raises:
          InputError: a ValueError, for data or an argument that cannot be used.
        """
        config = self._config(labels is not None)
        tables = self._tables(series, "series", check=False)
        recorded = make_series(tables, self._labels(labels, tables, "labels"))
        if validation is None:
            parts = hold_out(recorded, HELD_OUT, gap=0, seed=self.seed)
        elif labels is None and validation[1] is not None:
            raise InputError(
                "labels=None: anomalies are put into validation too, whose labels would not be read; give labels, or"
                " validation=(series, None)"
            )
        else:
            held_out = self._tables(validation[0], "validation series", check=False)
            own = make_series(held_out, self._labels(validation[1], held_out, "validation labels"), "validation ")
            parts = {"train": recorded, "validation": own}
            recorded = [*recorded, *own]
        with contextlib.nullcontext() if self.verbose else parallel.quiet():
            found = build_dataset(config, LoadedSeries("own series", recorded), parts=parts)
            self.history_: list[dict[str, Any]] = []
            self._train(config, found, callback)
        for attribute in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(attribute, None)
        if not is_list_of_series(series) and np.ndim(series) == 2:
            validate_data(self, _features(tables[0]), skip_check_array=True)
        self.threshold_ = self.detector_.threshold.value
        self.decision_scores_ = self.decision_function(series)
        self.labels_ = self._predicted(self.decision_scores_)
        return self

    def decision_function(self, series: Any) -> Scores:
        """P(anomalous) of each row, higher is more anomalous; a list for a list.

        Args:
          series: see the class.

        Raises:
          NotFittedError: neither `fit` nor `load` was called.
          InputError: the series cannot be used.
        """
        check_is_fitted(self, "detector_")
        found = [self._score(table) for table in self._tables(series, "series")]
        return found if is_list_of_series(series) else found[0]

    def predict(self, series: Any) -> Flags:
        """1 for each row whose score is at least the threshold, else 0; a list for a list.

        Args:
          series: see the class.

        Raises:
          NotFittedError: see `decision_function`.
          InputError: see `decision_function`.
        """
        return self._predicted(self.decision_function(series))

    def fit_predict(self, series: Any, labels: Any = None) -> Flags:
        """`fit`, then what `predict` says of the same series."""
        return self.fit(series, labels).labels_

    def intervals(self, series: Any) -> pd.DataFrame:
        """The anomalies in series as intervals, short gaps closed and short alarms dropped as was best on validation.

        Args:
          series: see the class.

        Returns:
          A row each with series (its number in a list), start, end and peak (rows), start_time, end_time and peak_time
          (NaT where rows have no times), steps, and score, that of the peak.
        """
        check_is_fitted(self, "detector_")
        alarms = AlarmTable(self.detector_.alarm_rule)
        for number, table in enumerate(self._tables(series, "series")):
            scores = self._score(table)
            times = table.times.view("datetime64[ns]") if len(table.times) else np.datetime64("NaT", "ns")
            rows = {"series": number, "step": np.arange(len(scores)), "timestamp": times, "score": scores}
            alarms.add(pd.DataFrame({**rows, "predicted": scores >= self.threshold_}))
        return alarms.finish().astype({"series": int})

    def save(self, folder: str) -> None:
        """Writes detector.json and detector.safetensors, all that scoring needs but the backbone.

        Args:
          folder: is made where it is not there.
        """
        check_is_fitted(self, "detector_")
        self.detector_.save(epath.Path(folder), versions())

    @classmethod
    def load(cls, folder: str) -> "SpearDetector":
        """A detector that `save`, or a run of `spear_jax.main`, has written, here or on the Hugging Face Hub.

        Args:
          folder: a detector or run folder; or, where there is none of this name, 'user/name' or 'user/name@revision' of
            the Hub, or of the Hugging Face cache where the Hub cannot be asked.

        Raises:
          InputError: it is not there, cannot be pulled, is of a newer version, or damaged.
        """
        detector = Detector.load(epath.Path(folder))
        for warning in detector.warnings:
            warnings.warn(f"the detector: {warning}", UserWarning, stacklevel=2)
        config = detector.config
        combine = config.data.combine if config.data.combine != "none" else "max"
        given = {name: config[section][field] for name, (section, field) in _FIELDS.items()} | {"combine": combine}
        loaded = cls(**given, seed=config.seed)
        loaded.detector_, loaded.threshold_ = detector, detector.threshold.value
        return loaded

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        # The backbone is loaded again where it is needed.
        return {name: value for name, value in super().__getstate__().items() if name != "_scorer"}

    def _config(self, labelled: bool) -> ConfigDict:
        """The config that the arguments mean, checked."""
        config = own_data_config()
        config.data.labels = "column" if labelled else "injected"
        for name, (section, field) in (*_FIELDS.items(), ("seed", ("", "seed"))):
            value = getattr(self, name)
            try:
                part = config[section] if section else config
                part.update({field: value.item() if isinstance(value, np.generic) else value})
            except TypeError as fault:
                kind = type(part[field]).__name__
                raise InputError(f"{name}={value!r}: is {type(value).__name__}; needed is {kind}") from fault
        if self.combine == "none":
            raise InputError("combine='none': a row gets one score; allowed are max, mean")
        try:
            config.data.stride = config.data.stride or max(1, config.data.window // 2)
            validate(config)
        except InputError as fault:
            said = str(fault)
            for name, (section, field) in _FIELDS.items():
                said = said.replace(f"config.{section}.{field}", name)
            raise InputError(said) from fault
        return config

    def _tables(self, series: Any, what: str, check: bool = True) -> list[Table]:
        """Series as tables; where it is asked for, the columns of a single one must be those of `fit`."""
        if is_list_of_series(series):
            return [read_array(one, f"{what} {number}") for number, one in enumerate(series)]
        table = read_array(series, what)
        if check and np.ndim(series) == 2 and hasattr(self, "n_features_in_"):
            validate_data(self, _features(table), reset=False, skip_check_array=True)
        return [table]

    def _labels(self, labels: Any, tables: list[Table], what: str) -> list[np.ndarray] | None:
        if labels is None:
            return None
        if len(tables) == 1 and not is_list_of_series(labels):
            return [read_labels(labels, len(tables[0].values), what)]
        if len(labels) != len(tables):
            raise InputError(f"{what}: {len(labels)} for {len(tables)} series; needed is one for each")
        return [
            read_labels(one, len(table.values), f"{what} {number}")
            for number, (one, table) in enumerate(zip(labels, tables, strict=True))
        ]

    def _train(self, config: ConfigDict, data: Dataset, callback: Callable[[dict[str, Any]], object] | None) -> None:
        backbone, model = assemble_method(config, data.window, parallel.make_mesh())
        assert backbone is not None  # the method is SPEAR
        data = dataclasses.replace(data, warnings=(*data.warnings, *warn(config, backbone)))
        for warning in data.warnings:
            warnings.warn(warning, UserWarning, stacklevel=3)

        def on_epoch(line: dict[str, Any]) -> None:
            self.history_.append(line)
            if callback:
                callback(line)

        with tempfile.TemporaryDirectory() as folder:
            result = train_model(model, data, config, epath.Path(folder), on_epoch)
        if result.stopped == "signal":
            warnings.warn("training was stopped; the best prompt so far is kept", UserWarning, stacklevel=3)
        scores = result.model.score(data.examples["validation"])
        steps = combine_columns(
            stitch(data.windows["validation"], scores, data.recorded), data.recorded, config.data.combine
        )
        threshold = threshold_for(config, steps.label, steps.score)
        self.detector_ = Detector.trained(
            config,
            model,
            result.model.trainable,
            data,
            backbone=backbone.description(),
            threshold=threshold,
            alarm_rule=alarm_rule_for(config, steps, threshold),
        )
        self.__dict__.pop("_scorer", None)

    def _score(self, table: Table) -> Float[np.ndarray, "time"]:
        """The scores of a table's rows."""
        config = self.detector_.config
        if not hasattr(self, "_scorer"):
            backbone = load_method_backbone(config, parallel.make_mesh())
            self._scorer = Scorer.place(self.detector_, backbone, config.score.batch_size)
        columns = [Column("", name) for name in _trained_as(table, self.detector_)]
        looks_ahead = config.quantizer.scale == "series"
        scaler = fit_scaler(self.detector_, columns, table.values) if looks_ahead else None
        stream = Stream(self._scorer, columns, scaler=scaler)
        scores = np.concatenate([stream.add(table.values, table.times).scores, stream.finish().scores])
        # A detector of the command line's may have kept its columns apart.
        return getattr(scores, "mean" if config.data.combine == "mean" else "max")(axis=1)

    def _predicted(self, scores: Scores) -> Flags:
        if isinstance(scores, list):
            return [(one >= self.threshold_).astype(int) for one in scores]
        return (scores >= self.threshold_).astype(int)


def _features(table: Table) -> Any:
    """The values as scikit-learn counts and names features."""
    return pd.DataFrame(table.values, columns=list(table.columns)) if table.named else table.values


def _trained_as(table: Table, detector: Detector) -> tuple[str, ...]:
    """What each column was called in the table that was trained on.

    Where the one or the other has no names, columns are told by their place, if there are as many; '' is a new one.
    """
    own = tuple(one.column for one in detector.ranges.values())
    unnamed = own == tuple(map(str, range(len(own))))
    if table.named and not unnamed:
        return table.columns
    tables = {name.removesuffix(f"/{one.column}") for name, one in detector.ranges.items()}
    return own if len(tables) == 1 and len(own) == len(table.columns) else ("",) * len(table.columns)


# Arguments of the estimator -> section and name of the config's field.
_FIELDS = {
    "backbone": ("backbone", "name"),
    "prompt_length": ("prompt", "length"),
    "bins": ("quantizer", "bins"),
    "window": ("data", "window"),
    "stride": ("data", "stride"),
    "epochs": ("train", "epochs"),
    "batch_size": ("train", "batch_size"),
    "prompt_learning_rate": ("train", "prompt_learning_rate"),
    "head_learning_rate": ("train", "head_learning_rate"),
    "scale": ("quantizer", "scale"),
    "embedding": ("embedding", "kind"),
    "head": ("head", "kind"),
    "threshold_rule": ("threshold", "rule"),
    "combine": ("data", "combine"),
    "dtype": ("backbone", "dtype"),
}
