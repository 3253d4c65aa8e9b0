"""Wraps SPEAR in the interface of scikit-learn and PyOD: fit, decision_function, predict."""

import contextlib
import dataclasses
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
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
from spear_jax.backbones import choose_dtype
from spear_jax.config import MINILM, OWN_PAST, VIEW_EMBEDDINGS, flatten, own_data_config, validate
from spear_jax.data import (
    Columns,
    Dataset,
    LoadedSeries,
    Table,
    build_dataset,
    check_order,
    hold_out,
    is_list_of_series,
    name_series,
    name_table,
    read_arrays,
    read_labelled,
    read_table_options,
)
from spear_jax.detector import AlarmTable, Column, Detector, Scorer, Stream
from spear_jax.errors import InputError
from spear_jax.evaluation import RunRecord
from spear_jax.methods import fit, load_method_backbone
from spear_jax.model import PlacedModel
from spear_jax.storage import OwnedFolder

UNLABELLED_EPOCHS = 10
HELD_OUT = 0.25  # share of the series used for validation, unless validation data are given
Scores = Float[np.ndarray, "time"] | list[Float[np.ndarray, "_time"]]
Predictions = Int[np.ndarray, "time"] | list[Int[np.ndarray, "_time"]]
EpochCallback = Callable[[dict[str, Any]], object]


def _parameter(field: str, default: Any) -> Any:
    """Declares a parameter of the detector that sets a config field."""
    return dataclasses.field(default=default, metadata={"field": field})


@dataclasses.dataclass(eq=False, repr=False)
class SpearDetector(BaseEstimator):
    """An anomaly detector for time series: a frozen language model with a trained soft prompt.

    A series is an array [time] or [time, columns], a list of numbers, or a pandas or polars frame; several series, of
    any lengths, are a list of these. Each column is scored as a series of its own, and each row gets one score. NaN is
    a missing value. Parameters changed with `set_params` take effect with the next `fit`.

    After `fit` to one series, what is scored is taken for that series going on, and compared with its past, unless it
    is a frame whose columns have other names. After `fit` to a list of several, it is a series of its own, which its
    first rows stand for, unless its column has a name that a single series of the list had.

    Args:
      backbone: a Hugging Face id, a local folder or .gguf file, 'package:NAME' (an installed package of weights), or
        'random:tiny' (random weights, for tests).
      prompt_length: m, the number of prompt vectors.
      bins: N, the number of bins that values are quantized into.
      window: steps that the model reads at once.
      stride: steps from one training window to the next; 0 is half a window, but at most 128.
      epochs: maximum number of epochs; training stops once validation has not improved for 8, and without labels after
        10, since more training on injected anomalies finds no more real ones.
      batch_size: windows in a training step.
      prompt_learning_rate: learning rate of the prompt.
      head_learning_rate: learning rate of the head, which starts from a logistic regression.
      scale: range that is mapped to [0, 1]: 'train' (of the beginning of each series, see `quantizer.scale`), 'window',
        or 'series', which looks ahead.
      embedding: source of the bins' vectors, see `embedding.kind`; 'trained' trains them too.
      views: numbers per step, see `quantizer.views`; '' are the value and eight that say how unusual a step is for its
        series, or the value alone with an `embedding` that gives all of them the same vectors.
      patch: steps in a position of the backbone, see `quantizer.patch`; 0 is 4 with windows of at least 256 steps that
        can be divided so, else 2 or 1.
      head: 'step' or 'window'.
      threshold_rule: 'best_f1', 'false_positive_rate' or 'precision', on validation data.
      combine: 'max' or 'mean' over the scores of the columns.
      value_columns: columns of frames that are values, separated by commas; '' leaves out times, indices, ids, labels
        and columns that never change, as for files, with a warning.
      series_column: in long frames (a row per series and time), the column that names the series of each row; '' for
        others. Each row still gets one score; rows of `intervals` are those of the series.
      decimal_sign: '.' or ',', of numbers in text; '' lets the numbers tell it.
      missing_values: numbers or words that stand for missing values, separated by commas, such as '-9999,Bad'.
      dtype: dtype of the backbone, 'float32' or 'bfloat16', or 'auto', what suits the machine that trains.
      seed: seed of all random numbers.
      verbose: whether to print a line per epoch, and a progress bar on a terminal.

    Attributes:
      detector_: the trained detector; once saved, `python -m spear_jax.main --mode=score` can apply it too.
      threshold_: rows with at least this score are anomalous; chosen on validation data.
      decision_scores_: scores of the series passed to `fit`, without validation data.
      labels_: 0 or 1 for the same rows, at the threshold.
      history_: a dict for each epoch: loss, validation_loss, validation_auroc, validation_aupr, best, ...
      n_features_in_: value columns of the array or frame passed to `fit`; absent after a series [time] or a list.
    """

    backbone: str = _parameter("backbone.name", MINILM)
    _: dataclasses.KW_ONLY
    prompt_length: int = _parameter("prompt.length", 20)
    bins: int = _parameter("quantizer.bins", 100)
    window: int = _parameter("data.window", 512)
    stride: int = _parameter("data.stride", 0)
    epochs: int = _parameter("train.epochs", 40)
    batch_size: int = _parameter("train.batch_size", 16)
    prompt_learning_rate: float = _parameter("train.prompt_learning_rate", 3e-3)
    head_learning_rate: float = _parameter("train.head_learning_rate", 1e-3)
    scale: str = _parameter("quantizer.scale", "train")
    embedding: str = _parameter("embedding.kind", "ordinal")
    head: str = _parameter("head.kind", "step")
    threshold_rule: str = _parameter("threshold.rule", "best_f1")
    combine: str = _parameter("data.combine", "max")
    views: str = _parameter("quantizer.views", "")
    patch: int = _parameter("quantizer.patch", 0)
    value_columns: str = _parameter("data.value_columns", "")
    series_column: str = _parameter("data.series_column", "")
    decimal_sign: str = _parameter("data.decimal_sign", "")
    missing_values: str = _parameter("data.missing_values", "")
    dtype: str = _parameter("backbone.dtype", "float32")
    seed: int = _parameter("seed", 0)
    verbose: bool = True

    def fit(
        self,
        series: Any,
        labels: Any = None,
        validation: tuple[Any, Any] | None = None,
        callback: EpochCallback | None = None,
    ) -> "SpearDetector":
        """Trains prompt and head. Ctrl-C ends training and keeps the best prompt so far.

        Args:
          series: one or a list, see the class.
          labels: 0 or 1 for each row, or a list of such arrays. None injects anomalies into copies of the series, which
            the detector learns to find, with a warning.
          validation: (series, labels) that decide on epoch and threshold. None holds out a quarter: whole series if
            both parts then have anomalies, else the end of each.
          callback: called with a line of `history_` after each epoch.

        Returns:
          The detector itself.

        Raises:
          InputError: a ValueError, for data or a parameter that cannot be used.
        """
        config = self._config(labels is not None)
        with _parameters_in_errors():
            train = read_labelled(series, labels, read_table_options(config.data))
        _warn(train.remarks)
        recorded = train.series
        if validation is None:
            parts = hold_out(recorded, HELD_OUT, gap=0, seed=self.seed)
        else:
            _check_validation(labels, validation)
            with _parameters_in_errors():
                held_out = read_labelled(
                    *validation, read_table_options(config.data, usual=train.columns), "validation "
                )
            parts = {"train": recorded, "validation": held_out.series}
            recorded = [*recorded, *held_out.series]
        with _parameters_in_errors(), contextlib.nullcontext() if self.verbose else parallel.quiet():
            dataset = build_dataset(config, LoadedSeries("own series", recorded), parts=parts)
            if validation is not None and len(train.tables) == 1:
                # It goes on in what is scored later, whatever the validation series are called.
                ranges = {name: known._replace(alone=True) for name, known in dataset.ranges.items()}
                dataset = dataclasses.replace(dataset, ranges=ranges)
            # Nothing reads scores of the training part: `decision_function` scores whole series.
            dataset = dataclasses.replace(dataset, examples={"validation": dataset.examples["validation"]})
            self.history_: list[dict[str, Any]] = []
            self._train(config, dataset, callback)
        for attribute in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(attribute, None)
        if not is_list_of_series(series) and np.ndim(series) == 2:
            validate_data(self, _features(train.tables[0]), skip_check_array=True)
        self.threshold_ = self.detector_.threshold.value
        scores = [self._score(table) for table in train.tables]
        self.decision_scores_ = scores if is_list_of_series(series) else scores[0]
        self.labels_ = self._predicted(self.decision_scores_)
        return self

    def decision_function(self, series: Any) -> Scores:
        """Returns the score of each row, higher is more anomalous; a list for a list.

        Raises:
          NotFittedError: neither `fit` nor `load` was called.
          InputError: the series cannot be used.
        """
        check_is_fitted(self, "detector_")
        scores = [self._score(table) for table in self._tables(series)]
        return scores if is_list_of_series(series) else scores[0]

    def predict(self, series: Any) -> Predictions:
        """Returns 1 for each row whose score is at least the threshold, else 0; a list for a list.

        Raises:
          NotFittedError: see `decision_function`.
          InputError: see `decision_function`.
        """
        return self._predicted(self.decision_function(series))

    def fit_predict(self, series: Any, labels: Any = None) -> Predictions:
        """Fits to series and returns the predictions for them, see `fit` and `predict`."""
        return self.fit(series, labels).labels_

    def intervals(self, series: Any) -> pd.DataFrame:
        """Returns the anomalies as intervals, with the merging of gaps and the minimum length that validation chose.

        Returns:
          A row per interval: series (its number in a list, or its name in a long frame), start, end and peak (rows),
          start_time, end_time and peak_time (NaT without times), steps, and score, the highest one.

        Raises:
          NotFittedError: see `decision_function`.
          InputError: see `decision_function`.
        """
        check_is_fitted(self, "detector_")
        alarms = AlarmTable(self.detector_.alarm_rule)
        for number, table in enumerate(self._tables(series)):
            all_scores = self._score(table)
            for part, rows in table.parts().items():
                own, scores = table.select(rows), all_scores[rows]
                name = name_table(str(number) if is_list_of_series(series) else "", part) or "0"
                times = own.times.view("datetime64[ns]") if len(own.times) else np.datetime64("NaT", "ns")
                frame = {"series": name, "step": np.arange(len(rows)), "timestamp": times, "score": scores}
                alarms.add(pd.DataFrame({**frame, "predicted": scores >= self.threshold_}))
        return alarms.finish().astype({"series": str if self.detector_.config.data.series_column else int})

    def save(self, folder: str) -> None:
        """Writes detector.json and detector.safetensors, which contain everything scoring needs except the backbone.

        Args:
          folder: created if it does not exist.

        Raises:
          InputError: it is a file, or another process is writing it.
        """
        check_is_fitted(self, "detector_")
        if epath.Path(folder).is_file():
            raise InputError(f"{folder}: is a file; save needs a folder, which may be new")
        with OwnedFolder(epath.Path(folder), "save").locked() as owned:
            owned.begin()
            self.detector_.save(owned.path)

    @classmethod
    def load(cls, folder: str) -> "SpearDetector":
        """Loads a detector written by `save` or by a run of `spear_jax.main`, locally or from the Hugging Face Hub.

        Args:
          folder: a detector or run folder; if there is none of this name, 'user/name' or 'user/name@revision' on the
            Hub, or in the Hugging Face cache when offline.

        Raises:
          InputError: it does not exist, cannot be downloaded, is from a newer version, or is damaged.
        """
        try:
            detector = Detector.load(epath.Path(folder))
        except InputError as error:
            raise InputError(str(error).removeprefix("--detector=")) from error
        for warning in detector.warnings:
            warnings.warn(f"the detector: {warning}", UserWarning, stacklevel=2)
        fields = flatten(detector.config)
        parameters = {name: fields[field] for name, field in _config_fields().items()}
        if parameters["combine"] == "none":
            parameters["combine"] = "max"
        loaded = cls(**parameters)
        loaded.detector_, loaded.threshold_ = detector, detector.threshold.value
        return loaded

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        # The backbone is not pickled, but loaded again when needed.
        return {name: value for name, value in super().__getstate__().items() if name != "_scorer"}

    def _config(self, labelled: bool) -> ConfigDict:
        """Returns the checked config for the parameters."""
        config = own_data_config()
        config.data.labels = "column" if labelled else "injected"
        for name, field in _config_fields().items():
            value = getattr(self, name)
            try:
                config.update_from_flattened_dict({field: value.item() if isinstance(value, np.generic) else value})
            except TypeError as error:
                kind = type(flatten(config)[field]).__name__
                raise InputError(f"{name}={value!r}: is {type(value).__name__}; it must be {kind}") from error
        if self.combine == "none":
            raise InputError("combine='none': each row gets one score; allowed: max, mean")
        if not labelled:
            config.train.epochs = min(config.train.epochs, UNLABELLED_EPOCHS)
        with _parameters_in_errors():
            config.data.stride = config.data.stride or min(max(1, config.data.window // 2), 128)
            if not self.views:
                config.quantizer.views = OWN_PAST if config.embedding.kind in VIEW_EMBEDDINGS else "value"
            if not self.patch:
                config.quantizer.patch = math.gcd(config.data.window, 4) if config.data.window >= 256 else 1
            validate(config)
        config.backbone.dtype = choose_dtype(config.backbone.dtype)
        return config

    def _tables(self, series: Any) -> list[Table]:
        """Reads the series to score; a single frame or array must have the columns seen in `fit`."""
        trained = self.detector_
        features = getattr(self, "feature_names_in_", trained.trained_columns)
        usual = Columns(values=tuple(features))
        with _parameters_in_errors():
            tables = read_arrays(series, "series", read_table_options(trained.config.data, usual=usual, labelled=False))
        _warn([remark for table in tables for remark in table.remarks])
        if not is_list_of_series(series) and np.ndim(series) == 2 and hasattr(self, "n_features_in_"):
            validate_data(self, _features(tables[0]), reset=False, skip_check_array=True)
        return tables

    def _train(self, config: ConfigDict, dataset: Dataset, callback: EpochCallback | None) -> None:
        record = RunRecord()
        record.add_dataset(dataset)

        def on_start(model: PlacedModel | None) -> None:
            for warning in record.warnings:
                # Without labels, the config has data.labels='injected'.
                warnings.warn(
                    warning.replace("data.labels='injected'", "fit without labels"), UserWarning, stacklevel=5
                )

        def on_epoch(line: dict[str, Any]) -> None:
            self.history_.append(line)
            if callback:
                callback(line)

        with tempfile.TemporaryDirectory() as folder:
            path = epath.Path(folder)
            fitted = fit(config, dataset, record, path, on_start=on_start, on_epoch=on_epoch, keep_stopped=True)
        if record.training["stopped"] == "signal":
            warnings.warn("training was stopped; the best prompt so far is kept", UserWarning, stacklevel=3)
        assert fitted and fitted.detector  # since the method is SPEAR
        self.detector_ = fitted.detector
        self.__dict__.pop("_scorer", None)

    def _score(self, table: Table) -> Float[np.ndarray, "time"]:
        """Scores the rows of a table, or of each series of a long one."""
        if table.series is not None:
            scores = np.zeros(len(table.values))
            for part, rows in table.parts().items():
                scores[rows] = self._score_part(table.select(rows), part)
            return scores
        return self._score_part(table, "")

    def _score_part(self, table: Table, part: str) -> Float[np.ndarray, "time"]:
        check_order("series", table.times.view("datetime64[ns]"))
        config = self.detector_.config
        if not hasattr(self, "_scorer"):
            backbone = load_method_backbone(config)
            self._scorer = Scorer.place(self.detector_, backbone, config.score.batch_size)
        names = _training_columns(table, self.detector_)
        series = name_series(part, names) if part else [""] * len(names)
        columns = [Column(*both) for both in zip(series, names, strict=True)]
        stream = Stream(self._scorer, columns)
        scores = np.concatenate([stream.add(table.values, table.times).scores, stream.finish().scores])
        for remark in stream.remarks(ended=True):
            warnings.warn(remark, UserWarning, stacklevel=3)
        # A detector trained on the command line may have config.data.combine='none'.
        return scores.mean(axis=1) if config.data.combine == "mean" else scores.max(axis=1)

    def _predicted(self, scores: Scores) -> Predictions:
        if isinstance(scores, list):
            return [(series_scores >= self.threshold_).astype(int) for series_scores in scores]
        return (scores >= self.threshold_).astype(int)


def _config_fields() -> dict[str, str]:
    """Returns the config field of each parameter that has one, by the parameter's name."""
    parameters = dataclasses.fields(SpearDetector)
    return {parameter.name: parameter.metadata["field"] for parameter in parameters if parameter.metadata}


@contextlib.contextmanager
def _parameters_in_errors() -> Iterator[None]:
    """Names the detector's parameters, in place of config fields, in errors within a with block."""
    try:
        yield
    except InputError as error:
        raise InputError(_with_parameters(str(error))) from error


def _with_parameters(message: str) -> str:
    """Returns a message with the detector's parameters in place of config fields."""
    for name, field in _config_fields().items():
        message = message.replace(f"config.{field}", name)
        if field.startswith("data."):
            message = message.replace(field, name)
    return message


def _check_validation(labels: Any, validation: Any) -> None:
    """Checks that validation data are a pair, with labels exactly if the series have labels."""
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise InputError(f"validation is {type(validation).__name__}; it must be a pair: (series, labels)")
    if labels is None and validation[1] is not None:
        raise InputError(
            "labels=None: anomalies are injected into the validation series too, so their labels would go unread;"
            " give labels, or validation=(series, None)"
        )
    if labels is not None and validation[1] is None:
        raise InputError("validation=(series, None): with labels, validation needs them too: (series, labels)")


def _warn(remarks: Sequence[str]) -> None:
    """Warns about the data that a method of the detector was called with."""
    for remark in dict.fromkeys(remarks):
        warnings.warn(_with_parameters(remark), UserWarning, stacklevel=4)


def _features(table: Table) -> Any:
    """Returns the values in the form that scikit-learn validates features in."""
    return pd.DataFrame(table.values, columns=list(table.columns)) if table.named else table.values


def _training_columns(table: Table, detector: Detector) -> tuple[str, ...]:
    """Returns the name that each column had in the training table, '' for a new column.

    If either table has no column names, columns are matched by position, provided their numbers agree.
    """
    trained = tuple(column_range.column for column_range in detector.ranges.values())
    unnamed = trained == tuple(map(str, range(len(trained))))
    if table.named and not unnamed:
        return table.columns
    tables = {name.removesuffix(f"/{column_range.column}") for name, column_range in detector.ranges.items()}
    return trained if len(tables) == 1 and len(trained) == len(table.columns) else ("",) * len(table.columns)
