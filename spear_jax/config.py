"""Every field of a config, its default, and what is allowed in it."""

import ast
import difflib
import importlib.util
import json
import math
import os
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from spear_jax.errors import InputError

BERT = "google-bert/bert-base-uncased"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TINY = "random:tiny"
BACKBONES = {
    "minilm": MINILM,
    "bert": BERT,
    "roberta": "FacebookAI/roberta-base",
    "distilbert": "distilbert/distilbert-base-uncased",
    "modernbert": "answerdotai/ModernBERT-base",
    "gemma": "google/gemma-2b",
    "gemma2-2b": "google/gemma-2-2b",
    "gemma3-270m": "google/gemma-3-270m",
    "gemma3-1b": "google/gemma-3-1b-pt",
    "gemma3-4b": "google/gemma-3-4b-pt",
    "llama3-1b": "meta-llama/Llama-3.2-1B",
    "llama3-3b": "meta-llama/Llama-3.2-3B",
    "llama3-8b": "meta-llama/Llama-3.1-8B",
    "qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B",
    "qwen2.5-1.5b": "Qwen/Qwen2.5-1.5B",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B-Base",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B-Base",
    "deepseek-r1-qwen-1.5b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "deepseek-r1-llama-8b": "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
}
"""Words of a config's argument -> the backbone that they name."""


def default_config() -> ConfigDict:
    """The defaults that every file in configs/ starts from. 0 and '' mean: unset."""
    return ConfigDict(
        {
            "seed": 0,
            "method": "spear",
            "data": {
                "name": "nasa",
                "dir": "",  # '' is $SPEAR_DATA_DIR/<name> where that exists, else a download
                "limit_series": 0,
                "window": 128,
                "stride": 128,
                "split": "series",
                "fractions": (0.6, 0.2, 0.2),
                "gap": 128,
                "labels": "recorded",
                # Of own files (data.name='files'): '' means found by itself, several columns are separated by commas.
                "timestamp_column": "",
                "value_columns": "",
                "label_column": "",
                "intervals": "",
                "combine": "none",
                "rules": {
                    "values": "scaled",
                    "trend": True,
                    "spike": True,
                    "shift": True,
                    "volatility": True,
                    "slope": 0.01,
                    "deviations": 3.0,
                    "p_value": 0.05,
                    "correction": "none",
                },
                "injected": {"rate": 0.1, "seed": 0},
                "nasa": {"spacecraft": "both", "parts": "test", "column": 0},
                # Names are separated by commas; '' means all, of groups, files and signals.
                "nab": {"groups": "realAWSCloudwatch", "files": "", "labels": "windows", "unlabelled": "normal"},
                "mimic_iv": {"signals": "", "resample_hours": 0.0, "min_steps": 2, "prepared_dir": ""},
                "synthetic": {
                    "series": 240,
                    "length": 1024,
                    "shortest": 0,
                    "past": 1024,
                    "rate": 0.1,
                    "kinds": "",
                    "seed": 0,
                },
            },
            "tsmote": {"enabled": False, "max_lead": 32, "spy_share": 0.15},
            "quantizer": {
                "bins": 100,
                "kind": "equal_width",
                "scale": "train",
                "reference_steps": 256,
                "margin": 0.0,
                "missing": "bin",
            },
            "embedding": {"kind": "ordinal", "length_scale": 0.2, "first_row": 1000},
            "backbone": {
                "name": BERT,
                "dtype": "float32",
                "int8": "none",  # the frozen kernels: a scale per output channel, or per 32 inputs of it
                "attention": "own",  # as the model was trained, or causal or bidirectional whatever it was
                "matmul_precision": "default",
                "remat": False,
            },
            "prompt": {
                "length": 20,
                "init": "vocabulary",
                "words": "normal anomaly",
                "position": "prefix",
            },
            "head": {"kind": "step", "pooling": "mean", "init": "normal"},
            "lstm": {"hidden": 64, "layers": 2},
            "lora": {"rank": 8},
            "zero_shot": {
                # '' is the method's own: a file of baselines/templates/, and the words that stand for the two answers.
                "template": "",
                "normal": "",
                "anomalous": "",
                # Of method='zero_shot_api' alone:
                "model": "",  # '' is $OPENAI_MODEL
                "cache": "",  # '' is ~/.cache/spear_jax/zero_shot
                "attempts": 3,  # at an answer of the form that was asked for
                "requests_per_minute": 60,
                "parallel": 4,
                "price_in": 0.0,  # per million tokens; 0 is unknown
                "price_out": 0.0,
                "most_cost": 0.0,  # 0 is no limit
            },
            "train": {
                "parts": "prompt+head",
                "init_from": "",  # a detector or run folder whose prompt and head training starts from
                "shuffled_labels": False,  # a control: what is learned from labels that belong to other windows
                "labelled_share": 1.0,  # of the labelled intervals; windows of the others are left out
                "epochs": 40,
                "batch_size": 16,
                "steps_per_call": 16,
                "prompt_learning_rate": 3e-3,
                "head_learning_rate": 3e-3,
                "embedding_learning_rate": 1e-3,
                "network_learning_rate": 3e-3,  # of the LSTM
                "backbone_learning_rate": 1e-4,  # of fine-tuning and LoRA
                "weight_decay": 0.0,
                "warmup_steps": 50,
                "schedule": "cosine",
                "decay_steps": 1500,  # counted from the end of the warm-up, so that more epochs change no step done
                "decay_to": 0.1,  # of the learning rate, and there it stays
                "clip_norm": 1.0,
                "positive_weight": 1.0,
                "early_stopping": {"metric": "aupr", "patience": 8},
                "save_seconds": 60.0,
            },
            "score": {
                "batch_size": 128,
                # Of --mode=score: rows from one window to the next (0: a window); whether a row in several windows gets
                # the mean of their scores or the first ('': the mean, but the first where rows come live); and what the
                # scores are written as.
                "stride": 0,
                "overlap": "",
                "format": "parquet",
            },
            "metrics": {"point_adjusted_k": -1.0},  # PA%K with this K beside the other numbers; -1 leaves it out
            "threshold": {"rule": "best_f1", "false_positive_rate": 0.01, "precision": 0.9, "reuse": True},
            # How predicted steps become alarms; -1 and 0: chosen on validation.
            "alarms": {"merge_gap": -1, "min_length": 0},
            "controls": {"zscore_steps": 64, "head_only": True},
        }
    )


def own_data_config() -> ConfigDict:
    """The defaults for own series, of files or arrays: what measured best on NASA, on MiniLM."""
    config = default_config()
    config.data.name = "files"
    config.data.labels = "column"
    config.data.stride = 64
    config.quantizer.margin = 0.25
    config.embedding.kind = "numbers"
    config.head.init = "fitted"
    config.train.head_learning_rate = 1e-3
    config.backbone.name = MINILM
    return config


CHOICES: dict[str, tuple[str, ...]] = {
    "method": (
        *("spear", "lstm", "lstm_causal", "fine_tuning", "lora"),
        *("isolation_forest", "nearest_neighbours", "matrix_profile", "sub_pca"),
        *("logistic_regression", "gradient_boosting"),
        *("zero_shot_masked", "zero_shot_yes_no", "zero_shot_surprise", "zero_shot_api"),
    ),
    "data.name": ("nasa", "nab", "mimic_iv", "files", "synthetic"),
    "data.split": ("series", "time", "random"),
    "data.labels": ("recorded", "column", "intervals", "rules", "injected"),
    "data.combine": ("none", "max", "mean"),
    "data.rules.values": ("scaled", "raw"),
    "data.rules.correction": ("none", "holm", "benjamini_hochberg"),
    "data.nasa.spacecraft": ("smap", "msl", "both"),
    "data.nasa.parts": ("test", "train+test"),
    "data.nab.labels": ("windows", "points"),
    "data.nab.unlabelled": ("normal", "drop"),
    "quantizer.kind": ("equal_width", "quantile"),
    "quantizer.scale": ("train", "series", "window"),
    "quantizer.missing": ("bin", "mask"),
    "embedding.kind": ("numbers", "spread", "consecutive", "random", "ordinal", "trained"),
    "backbone.dtype": ("float32", "bfloat16"),
    "backbone.int8": ("none", "channel", "grouped"),
    "backbone.attention": ("own", "causal", "bidirectional"),
    "backbone.matmul_precision": ("default", "high", "highest"),
    "prompt.position": ("prefix", "after_cls", "suffix"),
    "head.kind": ("step", "window"),
    "head.pooling": ("mean", "last", "cls", "peft_first", "peft_last"),
    "head.init": ("normal", "fitted"),
    "train.parts": ("prompt+head", "head"),
    "train.schedule": ("constant", "linear", "cosine"),
    "train.early_stopping.metric": ("aupr", "auroc"),
    "score.overlap": ("", "mean", "first"),
    "score.format": ("parquet", "csv"),
    "threshold.rule": ("best_f1", "false_positive_rate", "precision"),
}
_LEARNING = ("spear", "lstm", "lstm_causal", "fine_tuning", "lora", "logistic_regression", "gradient_boosting")
# Fields that would be passed over in silence by other methods, and said of them in the results.
OF_METHODS = {
    "train.parts": ("spear",),
    "train.init_from": ("spear",),
    "train.shuffled_labels": _LEARNING,
    "train.labelled_share": _LEARNING,
}
PROMPT_INITS = ("vocabulary", "words", "normal", "uniform")

# Smallest and largest value; an open end of a half-open range is left out.
RANGES: dict[str, tuple[float, float]] = {
    "data.limit_series": (0, math.inf),
    "data.window": (0, math.inf),
    "data.stride": (1, math.inf),
    "data.gap": (0, math.inf),
    "data.rules.slope": (0, math.inf),
    "data.rules.deviations": (0, math.inf),
    "data.rules.p_value": (0, 1),
    "data.injected.rate": (0.001, 0.5),
    "data.injected.seed": (0, math.inf),
    "tsmote.max_lead": (1, math.inf),
    "tsmote.spy_share": (0.01, 0.9),
    "data.nasa.column": (0, math.inf),
    "data.mimic_iv.resample_hours": (0, 1000),
    "data.mimic_iv.min_steps": (1, math.inf),
    "data.synthetic.series": (3, math.inf),
    "data.synthetic.length": (64, math.inf),
    "data.synthetic.shortest": (0, math.inf),
    "data.synthetic.past": (0, math.inf),
    "data.synthetic.rate": (0.001, 0.5),
    "data.synthetic.seed": (0, math.inf),
    "seed": (0, 2**32 - 1),
    "quantizer.bins": (2, 10_000),
    "quantizer.reference_steps": (1, math.inf),
    "quantizer.margin": (0, 100),
    "embedding.length_scale": (1e-3, 10),
    "embedding.first_row": (0, math.inf),
    "prompt.length": (0, math.inf),
    "metrics.point_adjusted_k": (-1, 100),
    "threshold.false_positive_rate": (0, 1),
    "threshold.precision": (0, 1),
    "train.labelled_share": (1e-6, 1),
    "train.epochs": (1, math.inf),
    "train.batch_size": (1, math.inf),
    "train.steps_per_call": (1, math.inf),
    "train.prompt_learning_rate": (0, 1e3),
    "train.head_learning_rate": (0, 1e3),
    "train.embedding_learning_rate": (0, 1e3),
    "train.network_learning_rate": (0, 1e3),
    "train.backbone_learning_rate": (0, 1e3),
    "train.weight_decay": (0, 1e3),
    "lstm.hidden": (1, math.inf),
    "lstm.layers": (1, math.inf),
    "lora.rank": (1, math.inf),
    "zero_shot.attempts": (1, 100),
    "zero_shot.requests_per_minute": (1, math.inf),
    "zero_shot.parallel": (1, 256),
    "zero_shot.price_in": (0, math.inf),
    "zero_shot.price_out": (0, math.inf),
    "zero_shot.most_cost": (0, math.inf),
    "train.warmup_steps": (0, math.inf),
    "train.decay_steps": (1, math.inf),
    "train.decay_to": (0, 1),
    "train.clip_norm": (1e-9, math.inf),
    "train.positive_weight": (1e-6, 1e6),
    "train.early_stopping.patience": (1, math.inf),
    "train.save_seconds": (0, math.inf),
    "score.batch_size": (1, math.inf),
    "score.stride": (0, math.inf),
    "controls.zscore_steps": (2, math.inf),
    "alarms.merge_gap": (-1, math.inf),
    "alarms.min_length": (0, math.inf),
}


def variants(arg: str, allowed: Sequence[str]) -> set[str]:
    """The words after a config's colon, e.g. 'minilm,debug'.

    Raises:
      InputError: a word is not one of `allowed`.
    """
    words = {word.strip() for word in (arg or "").split(",") if word.strip()}
    for word in sorted(words - set(allowed)):
        raise InputError(f"config argument {word!r} is unknown; allowed: {', '.join(allowed)}")
    return words


def choose_backbone(config: ConfigDict, words: set[str]) -> None:
    """The backbone that a config's argument names: one of BACKBONES, or random:tiny for debug alone.

    Decoders compute in bfloat16, as they were trained.

    Raises:
      InputError: two are named.
    """
    named = sorted(words & BACKBONES.keys())
    if len(named) > 1:
        raise InputError(f"config argument {','.join(named)!r} names {len(named)} backbones; allowed is one")
    if named:
        config.backbone.name = BACKBONES[named[0]]
        if named[0].startswith(("gemma", "llama", "qwen", "deepseek")):
            config.backbone.dtype = "bfloat16"
    elif "debug" in words:
        config.backbone.name = TINY


def find_file(name: str) -> Path:
    """A config's file, in the current folder or else in the package.

    Raises:
      InputError: it is in neither.
    """
    tried = [Path(name)]
    packaged = importlib.util.find_spec("spear_jax.configs")  # configs/ travels in the wheel under this name
    if packaged and packaged.submodule_search_locations:
        tried.append(Path(packaged.submodule_search_locations[0]) / name.removeprefix("configs/"))
    else:  # a checkout, where configs/ stands beside the package
        tried.append(Path(__file__).parent.parent / name)
    found = next((file for file in tried if file.is_file()), None)
    if found is None:
        raise InputError(f"--config: no file {name!r}; looked in {', '.join(str(t.absolute()) for t in tried)}")
    return found


def load_config(path: str) -> ConfigDict:
    """Reads `file.py` or `file.py:argument`, first from the current folder, then from the package.

    Raises:
      InputError: there is no such file, or it fails.
    """
    name, _, argument = path.partition(":")
    found = find_file(name)
    try:
        config = runpy.run_path(str(found))["get_config"](argument)
    except InputError as fault:
        raise InputError(f"--config={path}: {fault}") from fault
    except (Exception, SystemExit) as fault:
        reason = " ".join(f"{type(fault).__name__}: {fault}".split())
        raise InputError(f"--config={path}: {reason}") from fault
    if not isinstance(config, ConfigDict):
        raise InputError(f"--config={path}: get_config must return a ConfigDict, not {type(config).__name__}")
    return config


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaf fields by dotted name."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def override(config: ConfigDict, field: str, text: str) -> None:
    """Sets one field from the command line.

    Args:
      config: changed in place.
      field: dotted name, e.g. 'train.epochs'.
      text: the value as typed.

    Raises:
      InputError: there is no such field, or the text is not of the field's type.
    """
    fields = flatten(config)
    if field not in fields:
        raise InputError(f"--config.{field}: no such field; {_nearest(field, fields)}")
    *parents, leaf = field.split(".")
    section = config
    for parent in parents:
        section = section[parent]
    section[leaf] = _parse(field, text, fields[field])


def _nearest(field: str, fields: Mapping[str, Any]) -> str:
    inside = [name for name in fields if name.startswith(field + ".")]
    if inside:
        return f"it is a section with {', '.join(inside)}"
    close = difflib.get_close_matches(field, fields, n=3, cutoff=0.5)
    section = field.rpartition(".")[0]
    close = close or [name for name in fields if name.rpartition(".")[0] == section] or list(fields)
    return f"did you mean {', '.join(close)}?"


def _parse(field: str, text: str, default: Any) -> Any:
    kind = type(default)
    wrong = InputError(f"--config.{field}={text}: needed is {_KINDS.get(kind, kind.__name__)}, like {default!r}")
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise wrong
        return text.lower() == "true"
    try:
        # Plain words such as nan and inf are numbers to float() alone; `validate` refuses them by name.
        value = float(text) if kind is float else ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as fault:
        raise wrong from fault
    if kind is tuple and isinstance(value, tuple | list):
        return tuple(value)
    if type(value) is not kind:
        raise wrong
    return value


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a list of numbers",
}


def take_environment(config: ConfigDict) -> None:
    """Puts into the config what the environment says and the results depend on: which model is asked."""
    if config.method == "zero_shot_api" and not config.zero_shot.model:
        config.zero_shot.model = os.environ.get("OPENAI_MODEL", "").strip()


def validate(config: ConfigDict) -> None:
    """Checks every field against the defaults' names and types, and against CHOICES and RANGES.

    Raises:
      InputError: naming the first field that cannot be used, its value, and what is allowed.
    """
    fields, defaults = flatten(config), flatten(default_config())
    for field in fields:
        if field not in defaults:
            raise InputError(f"config.{field}: no such field; {_nearest(field, defaults)}")
    for field, default in defaults.items():
        if field not in fields:
            raise InputError(f"config.{field}: missing")
        value = fields[field]
        if type(default) is float and type(value) is int:
            value = float(value)
        if type(value) is not type(default):
            needed = _KINDS.get(type(default), type(default).__name__)
            raise InputError(f"config.{field}={value!r}: needed is {needed}, like {default!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"config.{field}={value}: needed is a finite number")
        if field in CHOICES and value not in CHOICES[field]:
            raise InputError(f"config.{field}={value!r}: allowed are {', '.join(CHOICES[field])}")
        if field in RANGES:
            low, high = RANGES[field]
            if not low <= value <= high:
                limits = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
                raise InputError(f"config.{field}={value}: allowed is {limits}")
    _validate_together(config)


def _validate_together(config: ConfigDict) -> None:
    fractions = config.data.fractions
    if config.data.window == 1:
        raise InputError("config.data.window=1: allowed is at least 2, or 0 for each series whole")
    if config.data.window and config.data.stride > config.data.window:
        raise InputError(
            f"config.data.stride={config.data.stride}: allowed is at most config.data.window={config.data.window}, so"
            " that every step lies in a window"
        )
    if (
        len(fractions) != 3
        or not all(isinstance(f, int | float) and 0 < f < 1 for f in fractions)
        or abs(sum(fractions) - 1) > 1e-6
    ):
        raise InputError(
            f"config.data.fractions={tuple(fractions)}: needed are three shares (train, validation, test) between 0"
            " and 1 that sum to 1"
        )
    of_files = ("column", "intervals")
    if config.data.name == "files" and config.data.labels == "recorded":
        raise InputError("config.data.labels='recorded': for own files allowed are column, intervals, rules, injected")
    if config.data.name != "files" and config.data.labels in of_files:
        raise InputError(
            f"config.data.labels={config.data.labels!r}: is of own files (config.data.name='files'); for"
            f" {config.data.name} allowed are recorded, rules, injected"
        )
    if config.data.combine != "none" and config.data.name != "files":
        raise InputError(
            f"config.data.combine={config.data.combine!r}: is of the columns of own files (config.data.name='files')"
        )
    for field, methods in OF_METHODS.items():
        value = flatten(config)[field]
        if value != flatten(default_config())[field] and config.method not in methods:
            raise InputError(
                f"config.{field}={value!r}: is not of config.method={config.method!r}; it is of {', '.join(methods)}"
            )
    if config.tsmote.enabled and config.train.labelled_share < 1:
        raise InputError(
            f"config.train.labelled_share={config.train.labelled_share:g}: T-SMOTE reads all labels; allowed is 1, or"
            " config.tsmote.enabled=False"
        )
    if config.method.startswith("lstm") and config.head.kind != "step":
        raise InputError(f"config.head.kind={config.head.kind!r}: the LSTM has a score per step; allowed is step")
    if config.method == "fine_tuning" and config.backbone.int8 != "none":
        raise InputError(
            f"config.backbone.int8={config.backbone.int8!r}: weights that are fine-tuned cannot be int8; allowed is"
            " none, or config.method=lora"
        )
    zero_shot = config.zero_shot
    if zero_shot.most_cost and not (zero_shot.price_in and zero_shot.price_out):
        raise InputError(
            f"config.zero_shot.most_cost={zero_shot.most_cost:g}: needs config.zero_shot.price_in and price_out, per"
            " million tokens"
        )
    init = config.prompt.init
    if init not in PROMPT_INITS and not init.endswith(".npy") and "/" not in init:
        raise InputError(
            f"config.prompt.init={init!r}: allowed are {', '.join(PROMPT_INITS)}, a .npy file, or an adapter of PEFT's"
            " prompt tuning: a path with a slash (./adapter), or user/name of the Hub"
        )
    if init not in PROMPT_INITS and not init.endswith(".npy") and config.prompt.position != "prefix":
        raise InputError(
            f"config.prompt.position={config.prompt.position!r}: PEFT puts its prompts in front, so with"
            f" config.prompt.init={init!r} allowed is prefix"
        )
    if config.head.kind == "window" and config.head.pooling == "cls" and config.prompt.position != "after_cls":
        raise InputError(
            f"config.head.pooling='cls' with config.prompt.position={config.prompt.position!r}: only 'after_cls' puts a"
            " [CLS] into the sequence"
        )


def check_length(config: ConfigDict, window: int, max_positions: int) -> None:
    """Checks that prompt and window fit into the backbone.

    Args:
      config: a whole config.
      window: steps in the longest window.
      max_positions: of the backbone.

    Raises:
      InputError: naming the field that is too long.
    """
    extra = 1 if config.prompt.position == "after_cls" else 0
    left = max_positions - config.prompt.length - extra
    if left < 2:
        raise InputError(
            f"config.prompt.length={config.prompt.length}: the backbone {config.backbone.name} has {max_positions}"
            f" positions, so at most {max_positions - extra - 2} can be prompt"
        )
    if window > left:
        longest = "" if config.data.window else f" (each series whole, the longest of {window} steps)"
        raise InputError(
            f"config.data.window={config.data.window}{longest}: the backbone {config.backbone.name} has {max_positions}"
            f" positions and {config.prompt.length + extra} are prompt, so a window has at most {left} steps"
        )


# What may differ when a run goes on: it does not change the steps already done.
EXTENDABLE = ("train.epochs", "train.early_stopping.patience")
IRRELEVANT = (
    *("data.dir", "train.save_seconds", "score.batch_size"),
    *("zero_shot.cache", "zero_shot.requests_per_minute", "zero_shot.parallel"),
    *("zero_shot.price_in", "zero_shot.price_out", "zero_shot.most_cost"),
)


def differences(before: Mapping[str, Any], now: ConfigDict) -> list[str]:
    """Fields in which a run folder's config differs from the one at hand, in what shaped the steps already done."""
    old, new = flatten(before), flatten(json.loads(to_json(now)))
    free = set(IRRELEVANT) | set(EXTENDABLE)
    return [
        f"{field} ({old.get(field, 'absent')!r} there, {new.get(field, 'absent')!r} here)"
        for field in sorted(old.keys() | new.keys())
        if field not in free and old.get(field) != new.get(field)
    ]


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)
