"""The trained artifact: all that scoring needs but the backbone, in two files."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load, save

from spear_jax import hub, parallel
from spear_jax.backbones import Backbone
from spear_jax.config import read_stored, validate
from spear_jax.data import Dataset, Quantizer, ScaleRange
from spear_jax.detector import model_card
from spear_jax.errors import InputError
from spear_jax.evaluation import DecisionRule, Rule, RunRecord, Threshold
from spear_jax.model import (
    ADAPTER_CONFIG,
    Params,
    PlacedModel,
    assemble_model,
    check_exchange,
    read_adapter,
    write_adapter,
)
from spear_jax.storage import read_json, write_whole
from spear_jax.training import read_trainable

SCHEMA = 2


# What is always known of the backbone.
BACKBONE = ("name", "revision", "sha256", "dtype", "pretrained")


REPLACED = "its prompt is that of PEFT's files; head, threshold and numbers are of the prompt that it replaces"


@dataclasses.dataclass(frozen=True)
class Detector:
    """A trained prompt and head and what they were trained with.

    Attributes:
      config: the run's resolved config.
      trainable: see `carried`.
      quantizer: bins and edges.
      typical_width: the scaler's stand-in for the range of a constant reference.
      ranges: where 0 and 1 lie for the series that it was trained on, where more of them is to come.
      threshold: chosen on the validation part of `trained_on`.
      alarm_rule: chosen there too.
      trained_on: name of the data set.
      backbone: name, revision, sha256, dtype, pretrained.
      table_sha256: of the bin embeddings, frozen or trained.
      warnings: what every output has to say about it and the data that it was trained on.
      embedding: where the bins' vectors come from, with the tokens of the vocabulary that they are rows of.
      test: metrics on the test part of `trained_on`, of 'spear' and of each control; empty where nothing was measured.
      versions: of what it was saved with.
    """

    config: ConfigDict
    trainable: Params
    quantizer: Quantizer
    typical_width: float
    ranges: Mapping[str, ScaleRange]
    threshold: Threshold
    alarm_rule: Rule
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
        """Makes a detector of a trained model.

        Args:
          config: of the run.
          dataset: the data it was trained on.
          untrained: the model before training.
          model: the model after training.
          rule: chosen on the validation split.
          record: of the run.
        """
        return cls(
            config=config,
            trainable=carried(untrained, model.trainable),
            quantizer=dataset.quantizer,
            typical_width=dataset.typical_width,
            ranges=dataset.ranges,
            threshold=rule.threshold,
            alarm_rule=rule.alarms,
            trained_on=dataset.name,
            backbone=record.backbone,
            table_sha256=table_sha256(untrained),
            warnings=tuple(record.warnings),
            embedding=untrained.embedding,
        )

    def range_of(self, name: str, column: str) -> tuple[float, float] | None:
        """Where 0 and 1 lie for a series that this detector was trained on.

        It is known by its name, unless that was another column's, or by the column's where only one series that was
        trained on had it; None if not.
        """
        alike = [one for one in self.ranges.values() if one.column == column]
        same = self.ranges.get(name)
        if same and same.column and same.column != column:
            same = None
        known = same or (alike[0] if len(alike) == 1 else None)
        return (known.low, known.high) if known else None

    def save(self, folder: epath.Path, versions: dict[str, str]) -> None:
        """Writes README.md, a model card, detector.safetensors and detector.json, which makes the folder whole."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{part}.{name}": np.ascontiguousarray(array)
            for part, arrays in self.trainable.items()
            for name, array in arrays.items()
        }
        tensors["quantizer.edges"] = np.asarray(self.quantizer.edges, np.float32)
        blob = save(tensors)
        about = {
            "schema": SCHEMA,
            "trained": sorted(self.trainable),
            "trained_on": self.trained_on,
            "threshold": self.threshold._asdict(),
            "alarms": self.alarm_rule._asdict(),
            "typical_width": self.typical_width,
            "ranges": {name: list(one) for name, one in self.ranges.items()},
            "backbone": self.backbone,
            "embedding": self.embedding,
            "table_sha256": self.table_sha256,
            "warnings": list(self.warnings),
            "tensors_sha256": hashlib.sha256(blob).hexdigest(),
            "test": self.test,
            "config": self.config.to_dict(),
            "versions": versions,
        }
        about["sha256"] = content_sha256(about)
        write_whole(folder / "README.md", model_card.text(about).encode())
        write_whole(folder / "detector.safetensors", blob)
        write_whole(folder / "detector.json", json.dumps(about, indent=2).encode())

    @classmethod
    def load(cls, path: epath.Path) -> "Detector":
        """Reads a detector folder, a run folder that holds one, checkpoints/<step> of such a run, or one of the Hub.

        A checkpoint's parameters take the place of the run's best ones; the threshold stays that of the best.

        Args:
          path: a folder; or, where there is none of this name, 'user/name' or 'user/name@revision' of the Hub.

        Raises:
          InputError: it is not there, of another schema, or damaged.
        """
        path = hub.find_folder(str(path))
        if path.parent.name == "checkpoints":
            run = path.parent.parent
            if not (run / "detector" / "detector.json").exists():
                raise InputError(f"--detector={path}: its run {run} has no detector/ yet: the same command finishes it")
            best = cls.load(run)
            return dataclasses.replace(best, trainable={**best.trainable, **read_trainable(path)}, test={})
        folder = path / "detector" if (path / "detector" / "detector.json").exists() else path
        if not (folder / "detector.json").exists():
            if (folder / ADAPTER_CONFIG).exists():
                raise InputError(
                    f"--detector={path}: a prompt of PEFT alone has no head and no threshold; train them with"
                    f" --config.prompt.init={path}"
                )
            raise InputError(f"--detector={path}: no detector.json there nor in its folder detector/")
        about = read_json(folder / "detector.json")
        schema = about.get("schema")
        if schema != SCHEMA:
            raise InputError(f"{folder / 'detector.json'}: schema {schema!r}; this version reads {SCHEMA}")
        if about.get("sha256") != content_sha256(about):
            raise InputError(
                f"{folder / 'detector.json'}: damaged or edited: its content has the sha256 {content_sha256(about)},"
                f" it was saved with {about.get('sha256')}"
            )
        try:
            detector = cls._from(folder, about)
            return detector._with_adapter(folder) if (folder / ADAPTER_CONFIG).exists() else detector
        except InputError:
            raise
        except KeyError as fault:
            raise InputError(f"{folder / 'detector.json'}: damaged: {fault} is missing") from fault
        except (OSError, AttributeError, TypeError, ValueError, SafetensorError) as fault:
            raise InputError(
                f"{folder / 'detector.json'} and detector.safetensors are damaged ({type(fault).__name__}: {fault})"
            ) from fault

    @classmethod
    def _from(cls, folder: epath.Path, about: dict[str, Any]) -> "Detector":
        file = folder / "detector.safetensors"
        blob = file.read_bytes()
        if hashlib.sha256(blob).hexdigest() != about["tensors_sha256"]:
            raise InputError(f"{file}: damaged, or not the file that detector.json describes")
        trainable: Params = {}
        tensors = load(blob)
        for key, array in tensors.items():
            odd = int((~np.isfinite(array)).sum())
            if array.dtype != np.float32 or odd:
                raise InputError(f"{file}: {key} is {array.dtype}, {odd} of {array.size} not finite; needed is float32")
        edges = tensors.pop("quantizer.edges")
        for key, array in tensors.items():
            part, _, name = key.partition(".")
            trainable.setdefault(part, {})[name] = array
        try:
            config = read_stored(about["config"])
            validate(config)
        except InputError as fault:
            raise InputError(f"{folder / 'detector.json'}: {fault}") from fault
        bins = config.quantizer.bins
        if len(edges) != (bins - 1 if config.quantizer.kind == "quantile" else 0):
            raise InputError(f"{file}: {len(edges)} inner edges are not those of {bins} {config.quantizer.kind} bins")
        threshold = Threshold(**about["threshold"])
        ranges = {name: ScaleRange(*one) for name, one in about.get("ranges", {}).items()}
        limits = [(f"ranges of {name!r}", limit) for name, one in ranges.items() for limit in (one.low, one.high)]
        for name, number in (("threshold", threshold.value), ("typical_width", about["typical_width"]), *limits):
            if type(number) not in (int, float) or not math.isfinite(number):
                raise InputError(f"{folder / 'detector.json'}: {name} is {number!r}; needed is a finite number")
        rule = Rule(**about.get("alarms", {}))
        if any(type(number) is not int for number in rule) or rule.merge_gap < 0 or rule.min_length < 1:
            raise InputError(
                f"{folder / 'detector.json'}: alarms is {rule._asdict()}; needed are merge_gap of at least 0"
                " and min_length of at least 1"
            )
        return cls(
            config=config,
            trainable=trainable,
            quantizer=Quantizer(bins, edges),
            typical_width=about["typical_width"],
            ranges=ranges,
            threshold=threshold,
            alarm_rule=rule,
            trained_on=about["trained_on"],
            backbone={key: about["backbone"][key] for key in BACKBONE} | about["backbone"],
            table_sha256=about["table_sha256"],
            warnings=tuple(about.get("warnings", ())),
            embedding=about.get("embedding", {}),
            test=about.get("test", {}),
            versions=about["versions"],
        )

    def _with_adapter(self, folder: epath.Path) -> "Detector":
        """The detector with the prompt of PEFT's files beside it."""
        check_exchange(self.config, str(folder))
        prompt, own = read_adapter(folder, self.backbone["name"]), self.trainable["prompt"]["vectors"]
        if prompt.shape != own.shape:
            raise InputError(f"{folder}: PEFT's prompt has the shape {prompt.shape}; the detector's has {own.shape}")
        if np.array_equal(prompt, own):
            return self
        return dataclasses.replace(
            self,
            trainable={**self.trainable, "prompt": {"vectors": prompt}},
            warnings=(*self.warnings, REPLACED),
            test={},
        )

    def export(self, folder: epath.Path) -> None:
        """Writes the detector with its prompt in PEFT's files beside it.

        Raises:
          InputError: the prompt means nothing to PEFT.
        """
        check_exchange(self.config, "the detector")
        if not self.backbone["pretrained"]:
            raise InputError(f"the detector's backbone {self.backbone['name']} has random weights, which PEFT has not")
        self.save(folder, self.versions)
        vectors = self.trainable["prompt"]["vectors"]
        write_adapter(folder, vectors, self.backbone["name"], self.backbone["revision"])
        card = folder / "README.md"
        write_whole(card, (card.read_text() + model_card.of_peft(self.backbone["name"], len(vectors))).encode())

    def assemble(self, backbone: Backbone) -> PlacedModel:
        """Builds the model with this detector's parameters, on all devices.

        Raises:
          InputError: the backbone's weights, or the rows chosen from them, are not those it was trained with.
        """
        if backbone.sha256 != self.backbone["sha256"]:
            raise InputError(
                f"the detector was trained with {self.backbone['name']} of sha256 {self.backbone['sha256']};"
                f" the weights at hand, {backbone.name}, have {backbone.sha256}"
            )
        whole = self.config.copy_and_resolve_references()
        whole.train.parts = "prompt+head"  # what was trained no longer matters
        whole.prompt.init = "uniform"  # nor where it began, which may be a file of another machine
        model = assemble_model(whole, backbone)
        if "embedding" not in self.trainable and table_sha256(model) != self.table_sha256:
            raise InputError("the bin embeddings made here are not those that the detector was trained with")
        parts = {**model.frozen, **model.trainable}
        needed = {name: parts.get(name, {}) for name in {*model.trainable, *self.trainable}}
        found, wanted = (jax.tree.map(np.shape, tree) for tree in (self.trainable, needed))
        if found != wanted:
            raise InputError(f"the detector's parameters have the shapes {found}; its config gives {wanted}")
        return model.with_parts(self.trainable)

    def remarks(self, backbone: Backbone) -> list[str]:
        """What scores of this detector have to say of it, on a backbone as it was loaded."""
        said = [f"the detector: {warning}" for warning in self.warnings]
        held, here = _numbers(self.backbone), _numbers(vars(backbone))
        if here != held:
            said.append(
                f"the backbone is held in {here}; the detector's threshold was chosen with it in {held}, and scores"
                " differ: --mode=evaluate measures what that changes"
            )
        return said


def carried(model: PlacedModel, trained: Params) -> Params:
    """What a detector carries of a model: all that cannot be made again exactly, on any machine, from the backbone.

    Args:
      model: as it was assembled.
      trained: its trained parameters.

    Returns:
      'head'; 'prompt' where there is one, trained or not; 'embedding' where it was trained, or drawn from random
      numbers and not made of rows of the vocabulary.
    """
    made = ("prompt",) if "tokens" in model.embedding else ("prompt", "embedding")
    return jax.device_get({**{name: part for name, part in model.frozen.items() if name in made}, **trained})


def content_sha256(about: Mapping[str, Any]) -> str:
    """Fingerprint of what detector.json says, however it is laid out; its own entry 'sha256' is left out."""
    content = {key: value for key, value in about.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _numbers(backbone: Mapping[str, Any]) -> str:
    """In which numbers a backbone is held."""
    int8 = backbone.get("int8", "none")
    return str(backbone["dtype"]) + ("" if int8 == "none" else f" and int8 by {int8}")


def table_sha256(model: PlacedModel) -> str:
    """Fingerprint of the bin embeddings that a model starts with."""
    table = (model.trainable.get("embedding") or model.frozen["embedding"])["table"]
    return hashlib.sha256(np.ascontiguousarray(table, np.float32).tobytes()).hexdigest()


def load_detector(detector_path: str) -> tuple[Detector, dict[str, str]]:
    """A detector, and the commit that it was pulled at where it comes from the Hub."""
    found = hub.find_folder(detector_path)
    detector = Detector.load(found)
    if found == epath.Path(detector_path):
        return detector, {}
    parallel.say(f"detector {detector_path}: commit {found.name} of the Hub")
    return detector, {"commit": found.name}
