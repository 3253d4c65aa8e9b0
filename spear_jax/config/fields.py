"""Declares every field of a config: default, allowed values, meaning."""

import math

from ml_collections import ConfigDict

from spear_jax.config.methods import METHODS

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
                # '' is the method's own: a file of methods/templates/, and the words that stand for the two answers.
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
    "method": tuple(METHODS),
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


_LEARNING = tuple(name for name, method in METHODS.items() if method.labels)


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


# What may differ when a run goes on: it does not change the steps already done.
EXTENDABLE = ("train.epochs", "train.early_stopping.patience")


IRRELEVANT = (
    *("data.dir", "train.save_seconds", "score.batch_size"),
    *("zero_shot.cache", "zero_shot.requests_per_minute", "zero_shot.parallel"),
    *("zero_shot.price_in", "zero_shot.price_out", "zero_shot.most_cost"),
)


MEANINGS = {
    "seed": "of splits, order, initial parameters and controls",
    "method": "what gives the scores: `spear`, or a baseline on the same data",
    "data.name": "the data set; set by the file in configs/",
    "data.dir": "a local or gs:// copy; `''`: `$SPEAR_DATA_DIR/<name>` if that exists, else a download",
    "data.limit_series": "how many series to read; 0: all",
    "data.window": "time steps in a window; 0: each series whole",
    "data.stride": "steps from one window to the next",
    "data.split": "`series` holds out whole series, `time` the end of each, `random` deals out windows, which leaks",
    "data.fractions": "shares of train, validation and test",
    "data.gap": "steps left out between two splits of one series (`time`)",
    "data.labels": "recorded ones; of own files a `column` or a file of `intervals`; or made by `rules` or `injected`",
    "data.timestamp_column": "of own files; `''`: found by itself",
    "data.value_columns": "of own files, separated by commas; `''`: all columns of numbers",
    "data.label_column": "of own files; `''`: found by its name",
    "data.intervals": "a CSV with start, end and, for several files, series (`data.labels=intervals`)",
    "data.combine": "one score per row of several columns, by `max` or `mean`; `none`: one per column",
    "data.rules.values": "whether the context rules read scaled or raw values",
    "data.rules.trend": "the rule for trends is on",
    "data.rules.spike": "the rule for spikes is on",
    "data.rules.shift": "the rule for level shifts is on",
    "data.rules.volatility": "the rule for changes of variance is on",
    "data.rules.slope": "per step, from which a trend counts",
    "data.rules.deviations": "standard deviations from which a spike counts",
    "data.rules.p_value": "below which a shift or a change of variance counts",
    "data.rules.correction": "for testing many windows",
    "data.injected.rate": "share of the steps that injected anomalies take",
    "data.injected.seed": "of the injected anomalies",
    "data.nasa.spacecraft": "which channels",
    "data.nasa.parts": "which arrays are series; `train+test` takes each channel's anomaly-free past as one too",
    "data.nasa.column": "0 is the telemetry value, the others are commands",
    "data.nab.groups": "folders of NAB, separated by commas; `''`: all",
    "data.nab.files": "files of NAB, separated by commas; `''`: all of the groups",
    "data.nab.labels": "NAB's windows, or the single points that they were made from",
    "data.nab.unlabelled": "what becomes of files without an anomaly",
    "data.mimic_iv.signals": "vital signs, separated by commas; `''`: all",
    "data.mimic_iv.resample_hours": "an evenly spaced grid of so many hours; 0: as charted",
    "data.mimic_iv.min_steps": "shorter series are left out",
    "data.mimic_iv.prepared_dir": "where what is prepared lies; `''`: beside the data",
    "data.synthetic.series": "how many series are generated",
    "data.synthetic.length": "steps of the longest",
    "data.synthetic.shortest": "steps of the shortest; 0: all are equally long",
    "data.synthetic.past": "steps of an anomaly-free past that scaling may look at",
    "data.synthetic.rate": "share of anomalous steps",
    "data.synthetic.kinds": "of anomalies, separated by commas; `''`: all",
    "data.synthetic.seed": "of the generator",
    "tsmote.enabled": "T-SMOTE adds anomalous training windows",
    "tsmote.max_lead": "steps before an anomaly's end from which windows are still taken",
    "tsmote.spy_share": "share of the anomalous windows that serve as spies",
    "quantizer.bins": "N, bins of a value; a missing one has a bin of its own",
    "quantizer.kind": "bins of equal width, or of equally many training values",
    "quantizer.scale": "where 0 and 1 lie: `train`: of a reference stretch of each series; `series`: of the whole"
    " series, which looks ahead; `window`: of each window",
    "quantizer.reference_steps": "first steps of a series without a past that serve as its reference",
    "quantizer.margin": "share of the range that is added below and above it",
    "quantizer.missing": "a missing value has a `bin` of its own, or is masked (`mask`)",
    "embedding.kind": "where the bins' vectors come from: rows of the vocabulary (`numbers`: of the words 0, 1, 2, ...;"
    " `spread` over it; `consecutive` ones), `random` vectors, `ordinal` ones that change smoothly, or `trained` ones",
    "embedding.length_scale": "of `ordinal`, as a share of the range",
    "embedding.first_row": "of `consecutive`",
    "backbone.name": "a Hugging Face id, a local folder, or `random:tiny`",
    "backbone.dtype": "that the backbone computes in",
    "backbone.int8": "frozen kernels as int8, with a scale per output channel or per 32 inputs of it",
    "backbone.attention": "as the model was trained, or causal or bidirectional whatever it was",
    "backbone.matmul_precision": "`jax_default_matmul_precision`",
    "backbone.remat": "activations are computed again in the backward pass: less memory, more time",
    "prompt.length": "m, prompt vectors; 0: none",
    "prompt.init": "`vocabulary` rows drawn at random, the rows of `prompt.words`, `normal` or `uniform` numbers, or a"
    " .npy file, or an adapter of PEFT's prompt tuning: a path with a slash, or USER/NAME of the Hub",
    "prompt.words": "of `prompt.init=words`, repeated to the prompt's length",
    "prompt.position": "[P; E], [CLS; P; E] or [E; P]",
    "head.kind": "a score per `step`, or per `window`",
    "head.pooling": "what a window head reads",
    "head.init": "`normal` numbers, or `fitted`: a logistic regression on the untrained prompt's hidden states",
    "lstm.hidden": "units of the LSTM baseline, per direction",
    "lstm.layers": "of the LSTM baseline",
    "lora.rank": "of the LoRA control",
    "zero_shot.template": "a file of methods/templates/, or a path; `''`: the method's own",
    "zero_shot.normal": "the word for normal; `''`: the method's own",
    "zero_shot.anomalous": "the word for anomalous; `''`: the method's own",
    "zero_shot.model": "as the endpoint knows it; `''`: $OPENAI_MODEL",
    "zero_shot.cache": "folder of answers; `''`: ~/.cache/spear_jax/zero_shot",
    "zero_shot.attempts": "at an answer of the form that was asked for",
    "zero_shot.requests_per_minute": "at most",
    "zero_shot.parallel": "requests under way at once",
    "zero_shot.price_in": "per million tokens; 0: unknown",
    "zero_shot.price_out": "per million tokens; 0: unknown",
    "zero_shot.most_cost": "nothing is asked where the estimate is higher; 0: no limit",
    "train.parts": "what is trained: prompt and head, or the head alone",
    "train.init_from": "a detector or run folder whose prompt and head training starts from",
    "train.shuffled_labels": "a control: labels that belong to other windows",
    "train.labelled_share": "of the labelled intervals, and of the windows without one, that are learned from",
    "train.epochs": "at most",
    "train.batch_size": "windows in a step, over all devices",
    "train.steps_per_call": "optimizer steps in one jitted call",
    "train.prompt_learning_rate": "of the prompt",
    "train.head_learning_rate": "of the head",
    "train.embedding_learning_rate": "of the bins' vectors (`embedding.kind=trained`)",
    "train.network_learning_rate": "of the LSTM baseline",
    "train.backbone_learning_rate": "of fine-tuning and LoRA",
    "train.weight_decay": "AdamW's",
    "train.warmup_steps": "over which the learning rates rise",
    "train.schedule": "of the learning rates after the warm-up",
    "train.decay_steps": "over which they fall, counted from the end of the warm-up",
    "train.decay_to": "share of the learning rate that is left in the end",
    "train.clip_norm": "of the gradient",
    "train.positive_weight": "of anomalous steps in the loss",
    "train.early_stopping.metric": "on validation, that decides which epoch is best",
    "train.early_stopping.patience": "epochs without a better one after which training ends",
    "train.save_seconds": "between two checkpoints within an epoch",
    "score.batch_size": "windows scored at a time; where rows come live, always one of each column",
    "score.stride": "rows from one window to the next in `--mode=score`; 0: a window",
    "score.overlap": "a row in several windows gets the `mean` of their scores or the `first`; `''`: the mean, but the"
    " first where rows come live",
    "score.format": "of the scores that `--mode=score` writes",
    "metrics.point_adjusted_k": "PA%K with this K beside the other numbers; -1: left out",
    "threshold.rule": "chosen on validation: best F1, or finding most at a false-positive rate or at a precision",
    "threshold.false_positive_rate": "of the rule of this name",
    "threshold.precision": "of the rule of this name",
    "threshold.reuse": "`--mode=evaluate` keeps the detector's threshold and alarm rule; else they are chosen anew",
    "alarms.merge_gap": "two alarms with at most so many steps between them are one; -1: chosen on validation",
    "alarms.min_length": "shorter alarms are dropped; 0: chosen on validation",
    "controls.zscore_steps": "of the rolling z-score",
    "controls.head_only": "the control without a prompt is fitted beside each run",
}
