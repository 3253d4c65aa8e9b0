"""What every field of a config means; `python -m spear_jax.config_reference` prints it as docs/config.md."""

import math

from spear_jax import config as configs

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
    "zero_shot.template": "a file of baselines/templates/, or a path; `''`: the method's own",
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


def allowed(field: str, default: object) -> str:
    """What a field may be, in a few words."""
    if field in configs.CHOICES:
        return ", ".join(f"`{choice}`" if choice else "`''`" for choice in configs.CHOICES[field])
    if field in configs.RANGES:
        low, high = configs.RANGES[field]
        return f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
    return {bool: "true, false", str: "text", tuple: "three shares that sum to 1"}.get(type(default), "a number")


def page() -> str:
    """The reference in Markdown, a table for each section."""
    lines = [
        "# Every field of a config",
        "",
        "Set on the command line as `--config.FIELD=VALUE`. A file in configs/ changes some of these defaults. Made by"
        " `python -m spear_jax.config_reference`.",
    ]
    section, defaults = None, configs.flatten(configs.default_config())
    for field, meaning in MEANINGS.items():
        default = defaults[field]
        if field.partition(".")[0] != section:
            section = field.partition(".")[0]
            lines += ["", f"## {section}", "", "| field | default | allowed | meaning |", "|---|---|---|---|"]
        shown = f"`{default!r}`" if isinstance(default, str | tuple) else f"`{str(default).lower()}`"
        lines.append(f"| `{field}` | {shown} | {allowed(field, default)} | {meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
