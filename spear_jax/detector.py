"""The trained artifact: all that scoring needs but the backbone, in two files."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from safetensors.numpy import load, save

from spear_jax import alarms
from spear_jax.backbones.backbone import Backbone
from spear_jax.checkpoints import read_trainable
from spear_jax.data.dataset import Dataset
from spear_jax.data.quantizer import Quantizer
from spear_jax.data.series import Range
from spear_jax.errors import InputError
from spear_jax.files import read_json, write_whole
from spear_jax.model import Assembled, Params, assemble
from spear_jax.thresholds import Threshold

SCHEMA = 1
# The parts of a config that a detector carries and that nobody may change under it.
CARRIED = ("quantizer", "embedding", "prompt", "head", "backbone")


@dataclasses.dataclass(frozen=True)
class Detector:
    """A trained prompt and head and what they were trained with.

    Attributes:
      config: the run's resolved config.
      trainable: {'prompt', 'head'} (the prompt also where `train.parts` left it as it was), and 'embedding' where it
        was trained.
      quantizer: bins and edges.
      typical_width: the scaler's stand-in for the range of a constant reference.
      ranges: where 0 and 1 lie for the series that it was trained on, where more of them is to come.
      threshold: chosen on the validation part of `trained_on`.
      alarm_rule: chosen there too.
      trained_on: name of the data set.
      backbone: name, revision, sha256, dtype, pretrained.
      table_sha256: of the bin embeddings, frozen or trained.
      warnings: what every output has to say about the data it was trained on.
    """

    config: ConfigDict
    trainable: Params
    quantizer: Quantizer
    typical_width: float
    ranges: Mapping[str, Range]
    threshold: Threshold
    alarm_rule: alarms.Rule
    trained_on: str
    backbone: dict[str, Any]
    table_sha256: str
    warnings: tuple[str, ...] = ()

    @classmethod
    def trained(
        cls,
        config: ConfigDict,
        model: Assembled,
        trainable: Params,
        dataset: Dataset,
        *,
        backbone: dict[str, Any],
        threshold: Threshold,
        alarm_rule: alarms.Rule,
    ) -> "Detector":
        """What training ends with.

        Args:
          config: of the run.
          model: as it was before training.
          trainable: its trained parameters.
          dataset: that it was trained on.
          backbone: what is said of it, see `evaluation.backbone_about`.
          threshold: chosen on the validation part.
          alarm_rule: likewise.
        """
        fixed = {name: part for name, part in model.frozen.items() if name == "prompt"}
        return cls(
            config=config,
            trainable=jax.device_get({**trainable, **fixed}),
            quantizer=dataset.quantizer,
            typical_width=dataset.typical_width,
            ranges=dataset.ranges,
            threshold=threshold,
            alarm_rule=alarm_rule,
            trained_on=dataset.name,
            backbone=backbone,
            table_sha256=table_sha256(model),
            warnings=dataset.warnings,
        )

    def range_of(self, name: str, column: str) -> tuple[float, float] | None:
        """Where 0 and 1 lie for a series that this detector was trained on.

        It is known by its name, or by the column's where only one series that was trained on had it; None if not.
        """
        alike = [one for one in self.ranges.values() if one.column == column]
        known = self.ranges.get(name) or (alike[0] if len(alike) == 1 else None)
        return (known.low, known.high) if known else None

    def save(self, folder: epath.Path, versions: dict[str, str]) -> None:
        """Writes detector.json and detector.safetensors; the json comes last and makes the folder whole."""
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
            "table_sha256": self.table_sha256,
            "warnings": list(self.warnings),
            "tensors_sha256": hashlib.sha256(blob).hexdigest(),
            "config": self.config.to_dict(),
            "versions": versions,
        }
        write_whole(folder / "detector.safetensors", blob)
        write_whole(folder / "detector.json", json.dumps(about, indent=2).encode())

    @classmethod
    def load(cls, path: epath.Path) -> "Detector":
        """Reads a detector folder, a run folder that holds one, or checkpoints/<step> of such a run.

        A checkpoint's parameters take the place of the run's best ones; the threshold stays that of the best.

        Raises:
          InputError: it is not there, of another schema, or damaged.
        """
        if path.parent.name == "checkpoints":
            run = path.parent.parent
            if not (run / "detector" / "detector.json").exists():
                raise InputError(f"--detector={path}: its run {run} has no detector/ yet: the same command finishes it")
            best = cls.load(run)
            return dataclasses.replace(best, trainable={**best.trainable, **read_trainable(path)})
        folder = path / "detector" if (path / "detector" / "detector.json").exists() else path
        if not (folder / "detector.json").exists():
            raise InputError(f"--detector={path}: no detector.json there nor in its folder detector/")
        about = read_json(folder / "detector.json")
        schema = about.get("schema") if isinstance(about, dict) else None
        if schema != SCHEMA:
            raise InputError(f"{folder / 'detector.json'}: schema {schema!r}; this version reads {SCHEMA}")
        try:
            return cls._from(folder, about)
        except InputError:
            raise
        except (OSError, KeyError, TypeError, ValueError) as fault:
            raise InputError(
                f"{folder / 'detector.json'} and detector.safetensors are damaged ({type(fault).__name__}: {fault})"
            ) from fault

    @classmethod
    def _from(cls, folder: epath.Path, about: dict[str, Any]) -> "Detector":
        blob = (folder / "detector.safetensors").read_bytes()
        if hashlib.sha256(blob).hexdigest() != about["tensors_sha256"]:
            raise InputError(
                f"{folder / 'detector.safetensors'}: damaged, or not the file that detector.json describes"
            )
        trainable: Params = {}
        tensors = load(blob)
        edges = tensors.pop("quantizer.edges")
        for key, array in tensors.items():
            part, _, name = key.partition(".")
            trainable.setdefault(part, {})[name] = array
        config = ConfigDict({part: about["config"][part] for part in CARRIED} | about["config"])
        return cls(
            config=config,
            trainable=trainable,
            quantizer=Quantizer(config.quantizer.bins, edges),
            typical_width=about["typical_width"],
            ranges={name: Range(*one) for name, one in about.get("ranges", {}).items()},
            threshold=Threshold(**about["threshold"]),
            alarm_rule=alarms.Rule(**about.get("alarms", {})),
            trained_on=about["trained_on"],
            backbone=about["backbone"],
            table_sha256=about["table_sha256"],
            warnings=tuple(about.get("warnings", ())),
        )

    def assemble(self, backbone: Backbone) -> Assembled:
        """The model with this detector's parameters.

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
        model = assemble(whole, backbone)
        if "embedding" not in self.trainable and table_sha256(model) != self.table_sha256:
            raise InputError("the bin embeddings made here are not those that the detector was trained with")
        if jax.tree.map(np.shape, self.trainable) != jax.tree.map(np.shape, model.trainable):
            raise InputError("the detector's prompt and head are not of the shapes that its config gives")
        return dataclasses.replace(model, trainable=self.trainable)


def table_sha256(model: Assembled) -> str:
    """Fingerprint of the bin embeddings that a model starts with."""
    table = (model.trainable.get("embedding") or model.frozen["embedding"])["table"]
    return hashlib.sha256(np.ascontiguousarray(table, np.float32).tobytes()).hexdigest()
