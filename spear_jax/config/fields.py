"""The table of all config fields, and the configs built from its defaults."""

from typing import Any

from ml_collections import ConfigDict

from spear_jax.config.arguments import BERT, MINILM
from spear_jax.config.data_fields import DATA_FIELDS
from spear_jax.config.field import Field, Limits, section
from spear_jax.config.methods import METHODS

_PROMPTED = tuple(name for name, method in METHODS.items() if method.prompt)
_LEARNING = tuple(name for name, method in METHODS.items() if method.labels)
PROMPT_INITS = ("vocabulary", "words", "normal", "uniform")

_EMBEDDING = {
    "kind": Field(
        "ordinal",
        "vectors of the bins: vocabulary rows (`numbers`: those of the words 0, 1, 2, ...; `spread`: evenly spaced;"
        " `consecutive`), `random` vectors, `ordinal` ones that change smoothly from bin to bin, or `trained` ones",
        ("numbers", "spread", "consecutive", "random", "ordinal", "trained"),
    ),
    "length_scale": Field(0.2, "length scale of `ordinal`, as a share of the range", Limits(1e-3, 10)),
    "first_row": Field(1000, "first row of `consecutive`", Limits(0)),
}

_BACKBONE = {
    "name": Field(
        BERT, "Hugging Face id, local folder or .gguf file, `package:NAME`, or `random:tiny`", scoring="always"
    ),
    "dtype": Field(
        "auto",
        "dtype the backbone computes in; `auto`: bfloat16 on TPUs and on NVIDIA's GPUs from Ampere on, else float32,"
        " chosen once, when a run begins",
        ("auto", "float32", "bfloat16"),
        scoring="always",
    ),
    "int8": Field(
        "none",
        "frozen kernels as int8, with a scale per output channel or per 32 of its inputs",
        ("none", "channel", "grouped"),
        scoring="always",
    ),
    "attention": Field(
        "own",
        "attention as pretrained (`own`), or forced to be causal or bidirectional",
        ("own", "causal", "bidirectional"),
    ),
    "matmul_precision": Field("default", "`jax_default_matmul_precision`", ("default", "high", "highest")),
    "remat": Field(False, "recomputes activations in the backward pass: less memory, more time"),
    "shards": Field(
        1,
        "devices over which each frozen weight matrix is divided, to be gathered when it is used; 1: each has all",
        Limits(1, 2**16),
        scoring="always",
        affects="nothing",
    ),
}

_PROMPT = {
    "length": Field(20, "m, the number of prompt vectors; 0: no prompt", Limits(0, 2**16)),
    "init": Field(
        "vocabulary",
        "random rows of the `vocabulary`, the rows of `prompt.words`, `normal` or `uniform` numbers, a .npy file, or an"
        " adapter of PEFT's prompt tuning (a path with a slash, or USER/NAME on the Hub)",
    ),
    "words": Field("normal anomaly", "words of `prompt.init=words`, repeated to the prompt's length"),
    "position": Field("prefix", "[P; E], [CLS; P; E] or [E; P]", ("prefix", "after_cls", "suffix")),
    "members": Field(
        1,
        "prompts, each with a head, that are trained side by side and whose logits are averaged; training and scoring"
        " take as many times as long",
        Limits(1, 100),
        methods=("spear",),
    ),
}

_HEAD = {
    "kind": Field("step", "one score per time `step` or per `window`", ("step", "window")),
    "pooling": Field(
        "mean", "how a window head pools hidden states", ("mean", "last", "cls", "peft_first", "peft_last")
    ),
    "init": Field(
        "normal",
        "`normal` numbers, or `fitted`: a logistic regression on hidden states behind the untrained prompt",
        ("normal", "fitted"),
    ),
}

_ZERO_SHOT = {
    "template": Field("", "file in methods/templates/ or a path; `''`: the method's own"),
    "normal": Field("", "word for normal; `''`: the method's own"),
    "anomalous": Field("", "word for anomalous; `''`: the method's own"),
    "model": Field("", "zero_shot_api: name of the model at the endpoint; `''`: `$OPENAI_MODEL`"),
    "cache": Field(
        "", "zero_shot_api: folder of cached answers; `''`: ~/.cache/spear_jax/zero_shot", affects="nothing"
    ),
    "attempts": Field(3, "zero_shot_api: attempts to get a well-formed answer", Limits(1, 100)),
    "requests_per_minute": Field(60, "zero_shot_api: rate limit", Limits(1), affects="nothing"),
    "parallel": Field(4, "zero_shot_api: concurrent requests", Limits(1, 256), affects="nothing"),
    "price_in": Field(0.0, "zero_shot_api: price per million input tokens; 0: unknown", Limits(0), affects="nothing"),
    "price_out": Field(0.0, "zero_shot_api: price per million output tokens; 0: unknown", Limits(0), affects="nothing"),
    "most_cost": Field(
        0.0, "zero_shot_api: estimated cost above which no request is sent; 0: no limit", Limits(0), affects="nothing"
    ),
}

_RATE = Limits(0, 1e3)

_TRAIN = {
    "parts": Field(
        "prompt+head", "trained parts: prompt and head, or the head alone", ("prompt+head", "head"), methods=_PROMPTED
    ),
    "init_from": Field("", "detector or run folder whose prompt and head training starts from", methods=_PROMPTED),
    "shuffled_labels": Field(False, "control: every window gets the labels of another one", methods=_LEARNING),
    "labelled_share": Field(
        1.0,
        "share of the labelled intervals, and of the windows without one, to learn from",
        Limits(1e-6, 1),
        methods=_LEARNING,
    ),
    # Baselines that read no labels ignore it, so that all rows of a study can share a config.
    "normal_windows": Field(
        0,
        "training windows without an anomaly to learn from, a random sample drawn once with `seed`, spread evenly over"
        " the series; 0: all",
        Limits(0),
    ),
    "epochs": Field(40, "maximum number of epochs", Limits(1), affects="duration"),
    "batch_size": Field(16, "windows per step, over all devices", Limits(1, 2**16)),
    "steps_per_call": Field(16, "optimizer steps per jitted call", Limits(1, 2**12)),
    "prompt_learning_rate": Field(3e-3, "learning rate of the prompt", _RATE),
    "head_learning_rate": Field(3e-3, "learning rate of the head", _RATE),
    "embedding_learning_rate": Field(1e-3, "learning rate of the bins' vectors (`embedding.kind=trained`)", _RATE),
    "network_learning_rate": Field(3e-3, "learning rate of the LSTM baseline", _RATE),
    "backbone_learning_rate": Field(1e-4, "learning rate of fine-tuning and LoRA", _RATE),
    "weight_decay": Field(0.0, "weight decay of AdamW", _RATE),
    "warmup_steps": Field(50, "steps over which the learning rates rise", Limits(0)),
    "schedule": Field("cosine", "learning rates after the warm-up", ("constant", "linear", "cosine")),
    # Independent of the number of epochs, so that more epochs change no step already done.
    "decay_steps": Field(
        1500, "steps over which the learning rates fall to a tenth, counted from the end of the warm-up", Limits(1)
    ),
    "clip_norm": Field(1.0, "maximum norm of the gradient", Limits(1e-9)),
    "positive_weight": Field(1.0, "weight of anomalous time steps in the loss", Limits(1e-6, 1e6)),
    "early_stopping.metric": Field("aupr", "validation metric that decides which epoch is best", ("aupr", "auroc")),
    "early_stopping.patience": Field(
        8, "epochs without improvement after which training stops", Limits(1), affects="duration"
    ),
    "save_seconds": Field(60.0, "seconds between checkpoints within an epoch", Limits(0), affects="nothing"),
}

_SCORE = {
    "batch_size": Field(
        128,
        "windows scored at a time; for live rows always one per column",
        Limits(1, 2**16),
        scoring="files",
        affects="nothing",
    ),
    "stride": Field(
        0, "`--mode=score`: rows between the starts of consecutive windows; 0: a window", Limits(0), scoring="always"
    ),
    "overlap": Field(
        "",
        "`--mode=score`: a row in several windows gets the `mean` of their scores or the `first` one; `''`: `mean` for"
        " files, `first` for live rows",
        ("", "mean", "first"),
        scoring="always",
    ),
    "smoothing": Field(
        1,
        "steps of a moving average of the scores' logits, centred and within a stretch; 1: none; 0: chosen on"
        " validation among 1, 16, 32, 64 and 128, or 16 if it has fewer than 10 anomalies or labels are made; a live"
        " row's score is final half as many rows later",
        Limits(0, 1e5),
        carried=True,
    ),
    "distance_weight": Field(
        0.0,
        "w in (logit + w * distance) / (1 + w), with the distance by `reference_W`, `past_W` and `whole_W` in"
        " `quantizer.views`, at the W where it is largest; 0: the score of the model alone; -1: chosen on validation"
        " among 0, 0.5, 1, 2 and 4, or 16 if it has fewer than 10 anomalies or labels are made (`data.labels`), which"
        " overrate the model",
        Limits(-1, 1e3),
        carried=True,
        methods=_LEARNING,
    ),
    "level": Field(
        0.0,
        "l in (x - l * level) / (1 + l), where x is the smoothed logit and the level its median over the series so far,"
        " before each block of 256 steps; 0: none; -1: chosen on validation among 0, 0.5 and 1, or 0 if it has fewer"
        " than 10 anomalies or labels are made; the first 256 live rows wait for each other",
        Limits(-1, 1),
        carried=True,
        methods=_LEARNING,
    ),
    "format": Field("parquet", "`--mode=score`: format of the scores", ("parquet", "csv"), scoring="files"),
}

_THRESHOLD = {
    "rule": Field(
        "best_f1",
        "chosen on validation: the best F1, or the highest recall at a false-positive rate or at a precision",
        ("best_f1", "false_positive_rate", "precision"),
    ),
    "false_positive_rate": Field(0.01, "highest rate allowed by `threshold.rule=false_positive_rate`", Limits(0, 1)),
    "precision": Field(0.9, "lowest precision allowed by `threshold.rule=precision`", Limits(0, 1)),
}

_ALARMS = {
    "merge_gap": Field(
        -1,
        "largest gap, in time steps, across which two alarms are merged; -1: chosen on validation",
        Limits(-1),
        scoring="files",
    ),
    "min_length": Field(
        0, "time steps of the shortest alarm to keep; 0: chosen on validation", Limits(0), scoring="files"
    ),
}

FIELDS: dict[str, Field] = {
    "seed": Field(
        0, "seed of splits, order, initial parameters and controls", Limits(0, 2**32 - 1), "training", carried=True
    ),
    "method": Field("spear", "scoring method: `spear` or a baseline", tuple(METHODS), "training"),
    **DATA_FIELDS,
    **section("embedding", "model", _EMBEDDING, carried=True),
    **section("backbone", "model", _BACKBONE, carried=True),
    **section("prompt", "model", _PROMPT, carried=True),
    **section("head", "model", _HEAD, carried=True),
    "lstm.hidden": Field(64, "units of the LSTM baseline, per direction", Limits(1, 2**13), "training"),
    "lstm.layers": Field(2, "layers of the LSTM baseline", Limits(1, 64), "training"),
    "lora.rank": Field(8, "rank of LoRA", Limits(1, 2**12), "training"),
    **section("zero_shot", "training", _ZERO_SHOT),
    **section("train", "training", _TRAIN),
    **section("score", "scoring", _SCORE),
    "metrics.point_adjusted_k": Field(-1.0, "adds the metric PA%K with this K; -1: off", Limits(-1, 100), "evaluation"),
    **section("threshold", "threshold", _THRESHOLD),
    "threshold.reuse": Field(
        True,
        "`--mode=evaluate` uses the detector's threshold and alarm rule; else both are chosen on the new data",
        stage="evaluation",
    ),
    **section("alarms", "threshold", _ALARMS),
    "controls.head_only": Field(True, "also fits a control without a prompt", stage="evaluation"),
}
"""Every config field by dotted name."""


def default_config() -> ConfigDict:
    """Returns a new config of defaults, from which every file in configs/ starts."""
    nested: dict[str, Any] = {}
    for name, field in FIELDS.items():
        *parents, leaf = name.split(".")
        section_of_field = nested
        for parent in parents:
            section_of_field = section_of_field.setdefault(parent, {})
        section_of_field[leaf] = field.default
    return ConfigDict(nested)


OWN_PAST = "value,deviation,spread,reference_8,reference_32,reference_128,past_8,past_32,past_128"
"""The views that a series has of its own past, as a stream has them too."""


def own_data_config() -> ConfigDict:
    """Returns the defaults for the user's own series: what scored best on NASA (docs/results/own_past.md).

    Only the level is not taken off: it makes series comparable, and live rows wait for it.
    """
    config = default_config()
    config.data.name = "files"
    config.data.labels = "column"
    config.data.window = 512
    config.data.stride = 128
    config.quantizer.margin = 0.25
    config.quantizer.patch = 4
    config.quantizer.views = OWN_PAST
    config.score.smoothing = 0
    config.score.distance_weight = -1.0
    config.embedding.kind = "ordinal"
    config.head.init = "fitted"
    config.train.head_learning_rate = 1e-3
    config.backbone.name = MINILM
    return config
