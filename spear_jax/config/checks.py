"""Checks a config before anything is read or written."""

import os
from collections.abc import Iterator, Mapping

from ml_collections import ConfigDict

from spear_jax.config.data_fields import DISTANCES, VIEW_EMBEDDINGS, VIEWS
from spear_jax.config.fields import FIELDS, PROMPT_INITS
from spear_jax.config.methods import METHODS
from spear_jax.config.reading import flatten, load_config, missing_values, override, suggest, view_names
from spear_jax.config.reuse import RETIRED, check_retired
from spear_jax.errors import InputError


def validate(config: ConfigDict) -> None:
    """Checks every field by itself, then the fields that depend on each other.

    Raises:
      InputError: names the first field that cannot be used, its value, and what is allowed.
    """
    values = flatten(config)
    for name in values:
        if name not in FIELDS:
            raise InputError(f"config.{name} does not exist; {suggest(name, FIELDS)}")
    for name, field in FIELDS.items():
        if name not in values:
            raise InputError(f"config.{name} is missing")
        problem = field.problem(values[name])
        if problem:
            raise InputError(f"config.{name}={values[name]!r} {problem}")
    for name in ("data.dir", "data.intervals"):
        check_scheme(f"config.{name}", values[name])
    for conflicts in (
        _window_conflicts,
        _view_conflicts,
        _fold_conflicts,
        _label_conflicts,
        _method_conflicts,
        _readout_conflicts,
        _prompt_conflicts,
    ):
        for message in conflicts(config):
            raise InputError(message)


def load_valid_config(path: str, overrides: Mapping[str, str]) -> ConfigDict:
    """Loads `file.py` or `file.py:argument`, overrides fields (name -> value as typed) and checks the result.

    A field of an earlier version may be set to the value that this version always uses. What the file sets for other
    methods than the chosen one is left out, so that a file serves them all; an override of that kind is refused.
    """
    config = load_config(path)
    for name, text in overrides.items():
        if name in RETIRED:
            check_retired(name, text)
        else:
            override(config, name, text)
    for name, field in FIELDS.items():
        if field.methods and config.get("method") not in (None, *field.methods) and name not in overrides:
            config.update_from_flattened_dict({name: field.default})
    validate(config)
    if config.method == "zero_shot_api" and not config.zero_shot.model:  # scores depend on it, so it is recorded
        config.zero_shot.model = os.environ.get("OPENAI_MODEL", "").strip()
    return config


def check_scheme(name: str, path: str) -> None:
    """Checks that a path is local or on Google Cloud Storage; whether it exists is checked when it is read."""
    scheme, separator, _ = path.partition("://")
    if separator and scheme != "gs":
        raise InputError(f"{name}={path} must be a local path or begin with gs://")


def _window_conflicts(config: ConfigDict) -> Iterator[str]:
    window, stride, fractions = config.data.window, config.data.stride, config.data.fractions
    if window == 1:
        yield "config.data.window=1 must be at least 2, or 0 for one window per series"
    if window and stride > window:
        yield (
            f"config.data.stride={stride} must be at most config.data.window={window}, so that every time step lies in"
            " a window"
        )
    series, length, past = (config.data.synthetic[name] for name in ("series", "length", "past"))
    if series * (length + past) > 2**26:
        yield (
            f"config.data.synthetic.series={series}, length={length} and past={past} are"
            f" {series * (length + past):,} steps; allowed: at most {2**26:,}"
        )
    if config.quantizer.patch not in (1, 2, 4, 8):
        yield f"config.quantizer.patch={config.quantizer.patch} must be 1, 2, 4 or 8"
    if window % config.quantizer.patch:
        yield (
            f"config.data.window={window} must be a multiple of config.quantizer.patch={config.quantizer.patch}, so"
            " that every position of the backbone is filled"
        )
    shares = all(isinstance(share, int | float) and 0 < share < 1 for share in fractions)
    if len(fractions) != 3 or not shares or abs(sum(fractions) - 1) > 1e-6:
        yield (
            f"config.data.fractions={tuple(fractions)} must be three shares (train, validation, test) between 0 and 1"
            " that sum to 1"
        )


def _view_conflicts(config: ConfigDict) -> Iterator[str]:
    names, given = view_names(config), f"config.quantizer.views={config.quantizer.views!r}"
    unknown = [name for name in names if name not in VIEWS]
    if unknown:
        yield f"{given}: there is no view {unknown[0]!r}; {suggest(unknown[0], VIEWS)}"
    if names[0] != "value" or len(set(names)) != len(names):
        yield f"{given} must begin with value and name each view once"
    if names == ("value",):
        return
    if config.embedding.kind not in VIEW_EMBEDDINGS:
        yield (
            f"config.embedding.kind={config.embedding.kind!r} must be ordinal, random or trained with {given}: each"
            " view needs vectors of its own"
        )
    if config.quantizer.kind != "equal_width":
        yield f"config.quantizer.kind={config.quantizer.kind!r} must be equal_width with {given}"
    if config.tsmote.enabled:
        yield f"config.tsmote.enabled=True must be False with {given}: a synthesized window has no past"
    method = METHODS[config.method]
    if method.trains and not method.backbone and not config.score.distance_weight:
        yield (
            f"{given} has no effect with config.method={config.method!r}, which reads values alone, unless"
            " config.score.distance_weight adds their distance"
        )


def _readout_conflicts(config: ConfigDict) -> Iterator[str]:
    weight, views = config.score.distance_weight, config.quantizer.views
    for name in ("distance_weight", "level"):
        if -1 < config.score[name] < 0:
            yield f"config.score.{name}={config.score[name]:g} must be at least 0, or -1 to be chosen on validation"
    if weight > 0 and not set(DISTANCES) & set(view_names(config)):
        yield (
            f"config.score.distance_weight={weight:g} needs a distance in config.quantizer.views={views!r}: any of"
            f" {', '.join(DISTANCES)}"
        )


def _fold_conflicts(config: ConfigDict) -> Iterator[str]:
    folds, fold, split = config.data.folds, config.data.fold, config.data.split
    if folds == 1:
        yield "config.data.folds=1 must be at least 2, or 0 for one division into train, validation and test"
    if folds and split != "series":
        yield f"config.data.folds={folds} must be 0 with config.data.split={split!r}: folds consist of whole series"
    if fold and fold >= folds:
        allowed = f"0 to {folds - 1} with config.data.folds={folds}" if folds else "0 without config.data.folds"
        yield f"config.data.fold={fold} must be {allowed}"


def _label_conflicts(config: ConfigDict) -> Iterator[str]:
    data, own = config.data, config.data.name == "files"
    missing_values(data)
    if own and data.labels == "recorded":
        yield (
            "config.data.labels='recorded' must be one of column, intervals, rules, injected with"
            " config.data.name='files'"
        )
    if not own and data.labels in ("column", "intervals"):
        yield (
            f"config.data.labels={data.labels!r} only applies to config.data.name='files'; with {data.name!r} it must"
            " be one of recorded, rules, injected"
        )
    if not own and data.combine != "none":
        yield f"config.data.combine={data.combine!r} only applies to config.data.name='files'"
    if config.tsmote.enabled and config.train.labelled_share < 1:
        yield (
            f"config.train.labelled_share={config.train.labelled_share:g} must be 1 with config.tsmote.enabled=True:"
            " T-SMOTE needs all labels"
        )


def _method_conflicts(config: ConfigDict) -> Iterator[str]:
    method, zero_shot = METHODS[config.method], config.zero_shot
    for name, value in flatten(config).items():
        field = FIELDS[name]
        if field.methods and config.method not in field.methods and value != field.default:
            yield (
                f"config.{name}={value!r} has no effect with config.method={config.method!r}"
                f" (only {', '.join(field.methods)})"
            )
    if config.head.kind not in method.heads:
        yield (
            f"config.head.kind={config.head.kind!r} must be {' or '.join(method.heads)} with"
            f" config.method={config.method!r}"
        )
    if method.backbone == "trained" and config.backbone.int8 != "none":
        yield (
            f"config.backbone.int8={config.backbone.int8!r} must be none with config.method={config.method!r}: int8"
            " weights cannot be trained; config.method=lora accepts it"
        )
    if zero_shot.most_cost and not (zero_shot.price_in and zero_shot.price_out):
        yield (
            f"config.zero_shot.most_cost={zero_shot.most_cost:g} needs config.zero_shot.price_in and price_out, per"
            " million tokens"
        )


def _prompt_conflicts(config: ConfigDict) -> Iterator[str]:
    prompt, head = config.prompt, config.head
    if prompt.members > 1 and prompt.init not in ("vocabulary", "normal", "uniform"):
        yield (
            f"config.prompt.members={prompt.members} must be 1 with config.prompt.init={prompt.init!r}: all members"
            " would start, and end, with the same prompt; allowed: vocabulary, normal, uniform"
        )
    if prompt.members > 1 and not prompt.length and head.init == "fitted":
        yield (
            f"config.prompt.members={prompt.members} must be 1 with config.prompt.length=0 and"
            " config.head.init='fitted': all members would start, and end, with the same head"
        )
    adapter = prompt.init not in PROMPT_INITS and not prompt.init.endswith(".npy")
    if adapter and "/" not in prompt.init:
        yield (
            f"config.prompt.init={prompt.init!r} must be one of {', '.join(PROMPT_INITS)}, a .npy file, or an adapter"
            " of PEFT's prompt tuning: a path with a slash (./adapter), or USER/NAME on the Hub"
        )
    if adapter and prompt.position != "prefix":
        yield (
            f"config.prompt.position={prompt.position!r} must be prefix with config.prompt.init={prompt.init!r}: PEFT"
            " puts its prompts first"
        )
    if head.kind == "window" and head.pooling == "cls" and prompt.position != "after_cls":
        yield (
            "config.head.pooling='cls' needs config.prompt.position='after_cls', the only one with a [CLS]; it is"
            f" {prompt.position!r}"
        )


def check_length(config: ConfigDict, window: int, max_positions: int) -> None:
    """Checks that prompt and window fit into the backbone.

    Args:
      config: a valid config.
      window: time steps in the longest window, a multiple of `quantizer.patch`.
      max_positions: positions of the backbone.

    Raises:
      InputError: names the field that is too long.
    """
    cls = 1 if config.prompt.position == "after_cls" else 0
    backbone = f"the backbone {config.backbone.name} has {max_positions} positions"
    available = max_positions - config.prompt.length - cls
    patch = config.quantizer.patch
    if available < 2:
        raise InputError(
            f"config.prompt.length={config.prompt.length} must be at most {max_positions - cls - 2}: {backbone}, and a"
            " window needs 2"
        )
    if window > available * patch:
        longest = "" if config.data.window else f" (one window per series, the longest of {window} time steps)"
        raise InputError(
            f"config.data.window={config.data.window}{longest} must be at most {available * patch}: {backbone}, of"
            f" which the prompt takes {config.prompt.length + cls}" + (f", at {patch} steps each" if patch > 1 else "")
        )
