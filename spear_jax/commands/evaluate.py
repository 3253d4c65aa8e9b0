"""Applies a trained detector to another data set."""

import time
from collections.abc import Sequence

from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.commands.run_folder import check_evaluation_folder, describe_folder, open_folder, settle_dtype, write_run
from spear_jax.config import carry, check_evaluate_override, check_length, flatten
from spear_jax.data import build_dataset, load_series
from spear_jax.detector import load_detector
from spear_jax.errors import InputError
from spear_jax.evaluation import DecisionRule, RunRecord, choose_rule, judge_scores, read_out
from spear_jax.methods import load_method_backbone, score_model
from spear_jax.model import inspect_prompt
from spear_jax.parallel import plain_warnings
from spear_jax.storage import OwnedFolder


def evaluate_detector(
    config: ConfigDict, detector_path: str, owned: OwnedFolder, command: str, *, overridden: Sequence[str]
) -> None:
    """Applies a trained detector to another data set.

    Quantizer, embedding, prompt, head, readout and backbone come from the detector.

    Raises:
      InputError: bad input, or an override of a field that the detector carries; the folder is unchanged.
    """
    for field in overridden:
        check_evaluate_override(field, reuse_threshold=config.threshold.reuse)
    began = time.monotonic()
    record = RunRecord(command)
    with record.timed("evaluation"), plain_warnings():
        detector, commit = load_detector(detector_path)
        values = flatten(config)
        carry(detector.config, config)
        config.update_from_flattened_dict({field: values[field] for field in overridden})
        if config.data.window:
            _fit_stride(config, overridden)
        settle_dtype(config, owned.path)
        check_evaluation_folder(config, owned)
        loaded = load_series(config)
        dataset = build_dataset(config, loaded, quantizer=detector.quantizer, typical_width=detector.typical_width)
        backbone = load_method_backbone(config)
        check_length(config, dataset.window, backbone.max_positions)
        model = detector.assemble(backbone).with_batch_size(config.score.batch_size)
        record.add_dataset(dataset)
        record.warnings += detector.remarks(backbone)
        record.backbone, record.model = backbone.description(), model.description()
        record.training = {"detector": str(detector_path), **commit, "trained_on": detector.trained_on}

        model_scores = score_model(config, model, dataset, untrained=model)
        _, scores, record.notes["readout"] = read_out(config, dataset, model_scores)
        if config.threshold.reuse:
            rule = DecisionRule(detector.threshold, detector.alarm_rule, detector.trained_on)
        else:
            rule = choose_rule(config, dataset, scores.steps["validation"])
        with parallel.announced("metrics of the detector and all controls computed"):
            evaluation = judge_scores(config, dataset, scores, rule)
        inspection = inspect_prompt(model, backbone, dataset)
    open_folder(owned, config, loaded)
    write_run(owned.path, config, dataset, evaluation, record, inspection)
    parallel.say(describe_folder(owned.path, began))


def _fit_stride(config: ConfigDict, overridden: Sequence[str]) -> None:
    """Lowers the stride of a config to the detector's window, so that every step lies in one.

    Raises:
      InputError: the stride was set on the command line.
    """
    stride, window = config.data.stride, config.data.window
    if stride > window and "data.stride" in overridden:
        raise InputError(
            f"--config.data.stride={stride} must be at most {window}, the steps in the detector's window, so that every"
            " time step lies in one"
        )
    config.data.stride = min(stride, window)
