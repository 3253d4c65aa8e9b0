"""What gives the scores: the prompted language model, a baseline through the same loop, or one that needs no loop."""

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from spear_jax import parallel
from spear_jax.backbones import Backbone, load_backbone
from spear_jax.config import METHODS, check_length
from spear_jax.data import SPLITS, Dataset, MethodScores, scores_by_split, stitch_splits
from spear_jax.detector import Detector
from spear_jax.errors import InputError
from spear_jax.methods.fine_tuning import assemble_fine_tuning
from spear_jax.methods.head_only import head_only
from spear_jax.methods.lstm import assemble_lstm
from spear_jax.methods.supervised import gradient_boosting, logistic_regression
from spear_jax.methods.unsupervised import isolation_forest, matrix_profile, nearest_neighbours, sub_pca
from spear_jax.methods.zero_shot import ZeroShot
from spear_jax.methods.zero_shot_api import zero_shot_api
from spear_jax.model import PlacedModel, assemble_model

TUNED = tuple(name for name, method in METHODS.items() if method.backbone in ("adapted", "trained"))


TRAINED = tuple(name for name, method in METHODS.items() if method.trains)


UNSUPERVISED = {
    "isolation_forest": isolation_forest,
    "nearest_neighbours": nearest_neighbours,
    "matrix_profile": matrix_profile,
    "sub_pca": sub_pca,
}


SUPERVISED = {"logistic_regression": logistic_regression, "gradient_boosting": gradient_boosting}


def load_method_backbone(config: ConfigDict, mesh: Mesh) -> Backbone:
    """The backbone that a config names: on all devices, or in host memory where its own weights are to be trained.

    Raises:
      InputError: see `load_backbone`.
    """
    fields = config.backbone
    return load_backbone(
        fields.name,
        fields.dtype,
        int8=fields.int8,
        attention=fields.attention,
        remat=fields.remat,
        sharding=None if config.method in TUNED else parallel.replicated(mesh),
    )


def assemble_method(config: ConfigDict, window: int, mesh: Mesh) -> tuple[Backbone | None, PlacedModel]:
    """The model of a config's method, and the backbone that it has.

    Args:
      config: a whole config.
      window: steps in the longest window.
      mesh: the devices.

    Raises:
      InputError: the backbone cannot be loaded, or prompt and window do not fit into it.
    """
    if config.method.startswith("lstm"):
        return None, assemble_lstm(config)
    backbone = load_method_backbone(config, mesh)
    check_length(config, window, backbone.max_positions)
    if config.method in TUNED:
        return backbone, assemble_fine_tuning(config, backbone)
    model = assemble_model(config, backbone)
    if config.train.init_from:
        model = _start_from(config, model, backbone)
    return backbone, model


def _start_from(config: ConfigDict, model: PlacedModel, backbone: Backbone) -> PlacedModel:
    """The model with a trained detector's prompt, head and trained embeddings; which are trained on is the config's.

    Where the head alone is, it is a new one. Embeddings that were frozen are the config's own.
    """
    where = f"config.train.init_from={config.train.init_from!r}"
    try:
        detector = Detector.load(epath.Path(config.train.init_from))
    except InputError as fault:
        raise InputError(f"{where}: {str(fault).removeprefix('--detector=')}") from fault
    if detector.backbone["sha256"] != backbone.sha256:
        raise InputError(
            f"{where}: was trained with {detector.backbone['name']} of sha256 {detector.backbone['sha256']}; this"
            f" config's {backbone.name} has {backbone.sha256}"
        )
    parts = {**model.trainable, **model.frozen}
    left = {"head"} if config.train.parts == "head" else set()
    left |= {"embedding"} if detector.config.embedding.kind != "trained" else set()
    carried = {name: part for name, part in detector.trainable.items() if name not in left}
    for name, part in carried.items():
        found, needed = jax.tree.map(np.shape, part), jax.tree.map(np.shape, parts.get(name, {}))
        if found != needed:
            raise InputError(f"{where}: its {name} has the shapes {found}; this config needs {needed or 'none'}")
    return model.with_parts(carried)


def score_trained(config: ConfigDict, model: PlacedModel, dataset: Dataset, start: PlacedModel) -> MethodScores:
    """Scores a data set with a trained model, and with its head alone.

    Args:
      config: a whole config.
      model: trained.
      dataset: what is scored.
      start: the model before training; its head alone is the control, with bin embeddings that nothing has trained.
    """
    scores = {split: model.score(examples, split) for split, examples in dataset.examples.items()}
    controls = {}
    if config.controls.head_only and config.method == "spear":
        head_scores = head_only(
            start,
            dataset.training,
            dataset.examples,
            positive_weight=config.train.positive_weight,
            seed=config.seed,
        )
        controls["head_only"] = stitch_splits(dataset, head_scores)
    windows = {split: scores[split][:, 0] for split in SPLITS} if config.head.kind == "window" else {}
    return MethodScores(stitch_splits(dataset, scores), windows, controls)


def score_untrained(config: ConfigDict, dataset: Dataset, zero_shot: ZeroShot | None, mesh: Mesh) -> MethodScores:
    """The scores of a method that the training loop has no part in.

    Args:
      config: a whole config.
      dataset: what is scored; only supervised methods read labels, those of its training part.
      zero_shot: what a language model is asked, where the method asks one.
      mesh: the devices.
    """
    if zero_shot is not None:
        with jax.default_matmul_precision(config.backbone.matmul_precision):
            scores = zero_shot.score(batch_size=config.score.batch_size, mesh=mesh)
        return MethodScores(stitch_splits(dataset, scores))
    if config.method in UNSUPERVISED:
        detect = UNSUPERVISED[config.method]
        series = tqdm(dataset.recorded, desc=config.method, unit="series", disable=parallel.no_bar(), leave=False)
        return MethodScores(scores_by_split(dataset, np.concatenate([detect(one, seed=config.seed) for one in series])))
    if config.method == "zero_shot_api":
        answered, said = zero_shot_api(config, dataset)
        return MethodScores(stitch_splits(dataset, answered), warnings=tuple(said))
    classify = SUPERVISED[config.method]
    found = classify(dataset.training, dataset.examples, dataset.quantizer.bins, seed=config.seed)
    return MethodScores(stitch_splits(dataset, found))
