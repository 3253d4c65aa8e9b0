"""Applies a trained detector to another data set."""

import dataclasses
import time
from collections.abc import Sequence

from etils import epath
from ml_collections import ConfigDict

from spear_jax import parallel
from spear_jax.config import carry, check_evaluate_override, check_length, differences, flatten, to_json
from spear_jax.data import build_dataset, load_series
from spear_jax.detector import load_detector
from spear_jax.errors import InputError
from spear_jax.evaluation import compose_results, judge_scores, per_series, write_results
from spear_jax.methods import load_method_backbone, score_trained
from spear_jax.model import inspect
from spear_jax.parallel import plain_warnings
from spear_jax.report import results_table, write_report
from spear_jax.storage import read_json, write_whole


def evaluate_detector(
    config: ConfigDict, detector_path: str, workdir: str, command: str, *, overridden: Sequence[str]
) -> None:
    """Applies a trained detector to another data set.

    Quantizer, embedding, prompt, head and backbone come from the detector.

    Args:
      config: a whole config.
      detector_path: a detector or run folder.
      workdir: a new folder.
      command: what gives these results again, for results.json.
      overridden: fields given on the command line.

    Raises:
      InputError: bad input, or an override of what the detector carries; the folder is as it was.
    """
    began = time.monotonic()
    for field in overridden:
        check_evaluate_override(field, reuse_threshold=config.threshold.reuse)
    folder = epath.Path(workdir)
    detector, commit = load_detector(detector_path)
    values = flatten(config)
    carry(detector.config, config)
    config.update_from_flattened_dict({field: values[field] for field in overridden})
    if config.data.window:
        config.data.stride = min(config.data.stride, config.data.window)
    _check_new(config, folder)
    loaded = load_series(config)
    dataset = build_dataset(config, loaded, quantizer=detector.quantizer, typical_width=detector.typical_width)
    backbone = load_method_backbone(config, parallel.make_mesh())
    dataset = dataclasses.replace(dataset, warnings=(*dataset.warnings, *detector.remarks(backbone)))
    check_length(config, dataset.window, backbone.max_positions)
    model = detector.assemble(backbone).with_batch_size(config.score.batch_size)
    reuse = config.threshold.reuse
    with plain_warnings():
        scored = score_trained(config, model, dataset, start=model)
        carried = (detector.threshold, detector.alarm_rule) if reuse else (None, None)
        evaluated = judge_scores(config, dataset, scored, threshold=carried[0], alarm_rule=carried[1])
    inspection = inspect(model, backbone, dataset)
    content = compose_results(
        config,
        model.description(),
        backbone.description(),
        dataset,
        evaluated,
        command=command,
        threshold_from=detector.trained_on if reuse else dataset.name,
        seconds={"evaluation": time.monotonic() - began},
        training={"detector": str(detector_path), **commit, "trained_on": detector.trained_on},
    )
    if parallel.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "config.json", to_json(config).encode())
        of_series = per_series(evaluated)
        write_report(folder, config, content, dataset, evaluated, of_series, inspection)
        write_results(folder, content, dataset, evaluated, of_series)
    parallel.say(results_table(content))


def _check_new(config: ConfigDict, folder: epath.Path) -> None:
    """Refuses a folder that holds anything but the same evaluation, killed before its end."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--workdir={folder}: is a file; needed is a new folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    begun = (folder / "config.json").exists() and not any(
        (folder / n).exists() for n in ("results.json", "checkpoints")
    )
    if not begun or differences(read_json(folder / "config.json"), config):
        raise InputError(f"--workdir={folder}: is not empty; evaluate writes to a new folder")
