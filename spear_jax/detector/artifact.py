"""The trained artifact: everything scoring needs except the backbone."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from spear_jax import hub, parallel
from spear_jax.backbones import Backbone
from spear_jax.config import read_stored, validate
from spear_jax.data import Dataset, Quantizer, Reference, ScaleRange
from spear_jax.detector.model_card import render_card, render_peft_section
from spear_jax.detector.stored import JSON, read_files, seal, write_files
from spear_jax.errors import InputError, plain
from spear_jax.evaluation import AlarmRule, DecisionRule, Readout, RunRecord, Threshold, versions
from spear_jax.model import (
    ADAPTER_CONFIG,
    Params,
    PlacedModel,
    assemble_model,
    check_exchange,
    read_adapter,
    write_adapter,
)
from spear_jax.storage import write_whole
from spear_jax.training import read_trainable

_BACKBONE_KEYS = ("name", "revision", "sha256", "dtype", "pretrained")
_LARGEST = 1e300
_PLACES = ("data.dir", "data.intervals", "data.mimic_iv.prepared_dir", "train.init_from", "zero_shot.cache")
PROMPT_REPLACED = "its prompt comes from PEFT's files; head, threshold and metrics belong to the prompt it replaces"


@dataclasses.dataclass(frozen=True)
class Detector:
    """A trained prompt and head, with the settings that they were trained with.

    Attributes:
      config: the run's resolved config, with the readout that was chosen.
      trainable: see `carried_parts`.
      quantizer: the bins.
      typical_width: see `Scaler`.
      ranges: the values mapped to 0 and 1 for each training series, if more of that series may follow.
      references: the reference of each of these series, if there are views that need it.
      threshold: threshold chosen on the validation split of `trained_on`.
      alarm_rule: alarm rule chosen on the same split.
      trained_on: the name of the data set.
      backbone: see `Backbone.description`.
      table_sha256: the digest of the bin embeddings before training.
      warnings: warnings to show with every output.
      embedding: describes the origin of the bins' vectors.
      test: metrics on the test split of `trained_on`, of 'spear' and of each control; may be empty.
      versions: versions of the packages that it was saved with.
    """

    config: ConfigDict
    trainable: Params
    quantizer: Quantizer
    typical_width: float
    ranges: Mapping[str, ScaleRange]
    references: Mapping[str, Reference]
    threshold: Threshold
    alarm_rule: AlarmRule
    trained_on: str
    backbone: dict[str, Any]
    table_sha256: str
    warnings: tuple[str, ...] = ()
    embedding: dict[str, Any] = dataclasses.field(default_factory=dict)
    test: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def trained(
        cls,
        config: ConfigDict,
        dataset: Dataset,
        untrained: PlacedModel,
        model: PlacedModel,
        rule: DecisionRule,
        record: RunRecord,
    ) -> "Detector":
        """Makes a detector of a trained model."""
        return cls(
            config=config,
            trainable=carried_parts(untrained, model.trainable),
            quantizer=dataset.quantizer,
            typical_width=dataset.typical_width,
            ranges=dataset.ranges,
            references={name: dataset.references[name] for name in dataset.ranges if dataset.references},
            threshold=rule.threshold,
            alarm_rule=rule.alarms,
            trained_on=dataset.name,
            backbone=record.backbone,
            table_sha256=table_sha256(untrained),
            warnings=tuple(record.warnings),
            embedding=untrained.embedding,
        )

    @classmethod
    def load(cls, path: epath.Path) -> "Detector":
        """Reads a detector.

        Args:
          path: a detector folder; a run folder; checkpoints/<step> of one, whose parameters take the place of the best
            ones while the threshold stays; or, if there is no such folder, 'user/name' or 'user/name@revision' of the
            Hugging Face Hub.

        Raises:
          InputError: it does not exist, has another schema, or is damaged.
        """
        path = hub.find_folder(str(path))
        if path.parent.name == "checkpoints":
            run = path.parent.parent
            if not (run / "detector" / JSON).exists():
                raise InputError(f"--detector={path}: its run {run} has no detector/ yet: the same command finishes it")
            best = cls.load(run)
            return dataclasses.replace(best, trainable={**best.trainable, **read_trainable(path)}, test={})
        folder = path / "detector" if (path / "detector" / JSON).exists() else path
        has_adapter = (folder / ADAPTER_CONFIG).exists()
        if not (folder / JSON).exists():
            if has_adapter:
                raise InputError(
                    f"--detector={path}: a prompt of PEFT alone has no head and no threshold; train them with"
                    f" --config.prompt.init={path}"
                )
            raise InputError(f"--detector={path}: no {JSON} there nor in its folder detector/")
        content, tensors = read_files(folder)
        try:
            detector = cls._from_content(content, tensors)
        except KeyError as error:
            raise InputError(f"{folder / JSON}: damaged: {error} is missing") from error
        except InputError as error:
            raise InputError(f"{folder / JSON}: {error}") from error
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise InputError(f"{folder / JSON}: damaged ({type(error).__name__}: {error})") from error
        return detector._with_adapter(folder) if has_adapter else detector

    @classmethod
    def _from_content(cls, content: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> "Detector":
        """Makes a detector from the content of its files.

        Raises:
          InputError: a value is not allowed.
          Exception: KeyError, AttributeError, TypeError or ValueError for content that no version has written.
        """
        config = read_stored(content["config"])
        validate(config)
        trainable: Params = {}
        for key, array in tensors.items():
            part, _, name = key.partition(".")
            trainable.setdefault(part, {})[name] = array
        edges = trainable.pop("quantizer")["edges"]
        kept, described = trainable.pop("reference", {}), content.get("references", {})
        bins, kind = config.quantizer.bins, config.quantizer.kind
        if len(edges) != (bins - 1 if kind == "quantile" else 0):
            raise InputError(f"{len(edges)} inner edges are not those of {bins} {kind} bins")
        return cls(
            config=config,
            trainable=trainable,
            quantizer=Quantizer(bins, edges),
            typical_width=_finite("typical_width", content["typical_width"], low=0),
            ranges={name: _scale_range(name, *fields) for name, fields in content.get("ranges", {}).items()},
            references={name: Reference.stored(kept[name], fields) for name, fields in described.items()},
            threshold=_threshold(content["threshold"]),
            alarm_rule=_alarm_rule(content.get("alarms", {})),
            trained_on=_text("trained_on", content["trained_on"]),
            backbone={key: content["backbone"][key] for key in _BACKBONE_KEYS} | content["backbone"],
            table_sha256=content["table_sha256"],
            warnings=tuple(_text("warnings", warning) for warning in content.get("warnings", ())),
            embedding=content.get("embedding", {}),
            test=content.get("test", {}),
            versions=content["versions"],
        )

    def _with_adapter(self, folder: epath.Path) -> "Detector":
        """Returns the detector with the prompt in PEFT's files, which may have been trained on there."""
        check_exchange(self.config, str(folder))
        prompt, own = read_adapter(folder, self.backbone["name"]), self.trainable["prompt"]["vectors"]
        if prompt.shape != own.shape:
            raise InputError(f"{folder}: PEFT's prompt has the shape {prompt.shape}; the detector's has {own.shape}")
        if np.array_equal(prompt, own):
            return self
        return dataclasses.replace(
            self,
            trainable={**self.trainable, "prompt": {"vectors": prompt}},
            warnings=(*self.warnings, PROMPT_REPLACED),
            test={},
        )

    def save(self, folder: epath.Path) -> None:
        """Writes the detector, with the versions of the software that saves it, and README.md, its model card."""
        self._write(folder, versions(), "")

    def export(self, folder: epath.Path) -> None:
        """Writes the detector, its model card, and its prompt in PEFT's files.

        Raises:
          InputError: PEFT does not support the prompt or the backbone.
        """
        check_exchange(self.config, "the detector")
        name, prompt = self.backbone["name"], self.trainable["prompt"]["vectors"]
        if not self.backbone["pretrained"]:
            raise InputError(f"the detector's backbone {name} has random weights; PEFT needs a pretrained backbone")
        self._write(folder, self.versions, render_peft_section(name, len(prompt)))
        write_adapter(folder, prompt, name, self.backbone["revision"])

    def _write(self, folder: epath.Path, versions: dict[str, str], more_card: str) -> None:
        tensors = {f"{part}.{name}": array for part, arrays in self.trainable.items() for name, array in arrays.items()}
        tensors |= {f"reference.{name}": reference.known() for name, reference in self.references.items()}
        tensors["quantizer.edges"] = np.asarray(self.quantizer.edges, np.float32)
        described = {
            "trained": sorted(self.trainable),
            "trained_on": self.trained_on,
            "threshold": self.threshold._asdict(),
            "alarms": self.alarm_rule._asdict(),
            "typical_width": self.typical_width,
            "ranges": {name: list(limits) for name, limits in self.ranges.items()},
            "references": {name: reference.description() for name, reference in self.references.items()},
            "backbone": self.backbone,
            "embedding": self.embedding,
            "table_sha256": self.table_sha256,
            "warnings": list(self.warnings),
            "test": self.test,
            "config": self._config_to_share().to_dict(),
            "versions": versions,
        }
        content, blob = seal(described, tensors)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "README.md", render_card(content) + more_card)
        write_files(folder, content, blob)

    def _config_to_share(self) -> ConfigDict:
        """Returns the config without what is this machine's own: places of files, and the division over its devices."""
        config = self.config.copy_and_resolve_references()
        config.update_from_flattened_dict({**dict.fromkeys(_PLACES, ""), "backbone.shards": 1})
        return config

    @property
    def readout(self) -> Readout:
        """Returns the way to read out its scores."""
        return Readout.of(self.config)

    def range_of(self, series: str, column: str) -> tuple[float, float] | None:
        """Returns the values mapped to 0 and 1 for a series that the detector was trained on; None for other series."""
        name = self._known(series, column)
        return (self.ranges[name].low, self.ranges[name].high) if name is not None else None

    def reference_of(self, series: str, column: str) -> Reference | None:
        """Returns the reference of a series that the detector was trained on; None for other series."""
        name = self._known(series, column)
        return self.references.get(name) if name is not None else None

    @property
    def trained_columns(self) -> tuple[str, ...]:
        """Returns the columns of each table that it was trained on; none if tables had different ones, or no names."""
        tables: dict[str, list[str]] = {}
        for name, limits in self.ranges.items():
            tables.setdefault(name.removesuffix(f"/{limits.column}"), []).append(limits.column)
        columns, *others = list(tables.values()) or [[]]
        if any(set(other) != set(columns) for other in others) or columns == [str(i) for i in range(len(columns))]:
            return ()
        return tuple(filter(None, columns))

    def _known(self, series: str, column: str) -> str | None:
        """Returns the training series that a series is; None for a new one.

        A series is recognized by its name, unless that belonged to another column, or by its column, if only one
        series had it. Of a column that several had, any series may come.
        """
        limits = self.ranges.get(series)
        if limits and limits.column in ("", column):
            return series
        by_column = [name for name, limits in self.ranges.items() if limits.column == column and limits.alone]
        return by_column[0] if len(by_column) == 1 else None

    def assemble(self, backbone: Backbone) -> PlacedModel:
        """Builds the model with this detector's parameters, on all devices.

        Raises:
          InputError: the backbone's weights, or the bin embeddings made from them, are not those used in training.
        """
        if backbone.sha256 != self.backbone["sha256"]:
            raise InputError(
                f"the detector was trained with {self.backbone['name']} of sha256 {self.backbone['sha256']};"
                f" the weights at hand, {backbone.name}, have {backbone.sha256}"
            )
        config = self.config.copy_and_resolve_references()
        config.train.parts = "prompt+head"  # which parts were trained no longer matters
        config.prompt.init = "uniform"  # the prompt is replaced; its start may have been a file of another machine
        model = assemble_model(config, backbone)
        if "embedding" not in self.trainable and table_sha256(model) != self.table_sha256:
            raise InputError("the bin embeddings made here are not those that the detector was trained with")
        parts = {**model.frozen, **model.trainable}
        needed = {name: parts.get(name, {}) for name in {*model.trainable, *self.trainable}}
        shapes, needed_shapes = (jax.tree.map(np.shape, tree) for tree in (self.trainable, needed))
        if shapes != needed_shapes:
            raise InputError(f"the detector's parameters have the shapes {shapes}; its config gives {needed_shapes}")
        return model.with_parts(self.trainable)

    def remarks(self, backbone: Backbone) -> list[str]:
        """Returns warnings about this detector's scores with a loaded backbone."""
        remarks = [f"the detector: {warning}" for warning in self.warnings]
        then, now = _number_format(self.backbone), _number_format(vars(backbone))
        if now != then:
            remarks.append(
                f"the backbone is held in {now}; the detector's threshold was chosen with it in {then}, and scores"
                " differ: --mode=evaluate measures what that changes"
            )
        return remarks


def load_detector(path: str) -> tuple[Detector, dict[str, str]]:
    """Reads a detector, see `Detector.load`; returns it with {'commit': ...} if it comes from the Hub, else {}."""
    folder = hub.find_folder(path)
    detector = Detector.load(folder)
    if folder == epath.Path(path):
        return detector, {}
    parallel.say(f"detector {path}: commit {folder.name} of the Hub")
    return detector, {"commit": folder.name}


def carried_parts(model: PlacedModel, trained: Params) -> Params:
    """Returns the parameters that a detector carries: those that cannot be rebuilt exactly from the backbone.

    Returns:
      'head'; 'prompt' if there is one, trained or not; 'embedding' if it was trained or drawn from random numbers, and
      is not made of rows of the vocabulary.
    """
    names = ("prompt",) if "tokens" in model.embedding else ("prompt", "embedding")
    return jax.device_get({**{name: part for name, part in model.frozen.items() if name in names}, **trained})


def table_sha256(model: PlacedModel) -> str:
    """Returns the digest of a model's bin embeddings."""
    table = (model.trainable.get("embedding") or model.frozen["embedding"])["table"]
    return hashlib.sha256(np.ascontiguousarray(table, np.float32).tobytes()).hexdigest()


def _number_format(backbone: Mapping[str, Any]) -> str:
    """Returns the number format of a backbone's weights."""
    int8 = backbone.get("int8", "none")
    return str(backbone["dtype"]) + ("" if int8 == "none" else f" and int8 by {int8}")


def _finite(name: str, number: object, low: float = -_LARGEST) -> float:
    if type(number) not in (int, float) or not low <= number <= _LARGEST:  # type: ignore[operator]
        raise InputError(f"{name} is {number!r}; expected a finite number, at least {low:g}")
    return number  # type: ignore[return-value]


def _text(name: str, value: object) -> str:
    """Returns a text of a detector's file, which may come from anywhere, as it can be shown."""
    if not isinstance(value, str):
        raise InputError(f"{name} is {value!r}; expected text")
    return plain(value)


def _scale_range(name: str, column: object, low: object, high: object, alone: object = True) -> ScaleRange:
    first = _finite(f"ranges of {name!r}", low)
    if not isinstance(column, str):
        raise InputError(f"ranges of {name!r}: the column is {column!r}; expected text")
    if not isinstance(alone, bool):
        raise InputError(f"ranges of {name!r}: {alone!r} must be true or false")
    return ScaleRange(column, first, _finite(f"ranges of {name!r}", high, low=first), alone)


def _threshold(fields: Mapping[str, Any]) -> Threshold:
    threshold = Threshold(**fields)
    _finite("threshold", threshold.value)
    return threshold._replace(rule=_text("the rule of the threshold", threshold.rule))


def _alarm_rule(fields: Mapping[str, Any]) -> AlarmRule:
    rule = AlarmRule(**fields)
    if any(type(number) is not int for number in rule) or rule.merge_gap < 0 or rule.min_length < 1:
        raise InputError(f"alarms is {rule._asdict()}; expected merge_gap of at least 0 and min_length of at least 1")
    return rule
