"""Declares the fields that describe data: sources, labels, windows and bins."""

from spear_jax.config.field import Field, Limits, section
from spear_jax.config.methods import METHODS

_SERIES = {
    "name": Field("nasa", "data set; each file in configs/ sets it", ("nasa", "nab", "mimic_iv", "files", "synthetic")),
    "dir": Field(
        "",
        "local or gs:// copy; `''`: `$SPEAR_DATA_DIR/<name>` if it exists, else a download",
        affects="nothing",
    ),
    "limit_series": Field(0, "number of series to read; 0: all", Limits(0)),
    "window": Field(128, "time steps per window; 0: one window per series", Limits(0, 2**20), carried=True),
    "stride": Field(128, "time steps between the starts of consecutive windows", Limits(1)),
    "split": Field(
        "series",
        "`series` holds out whole series, `time` the end of each series, `random` single windows, which leaks",
        ("series", "time", "random"),
    ),
    "fractions": Field((0.6, 0.2, 0.2), "shares of train, validation and test"),
    "gap": Field(128, "time steps left out between two splits of the same series (`data.split=time`)", Limits(0)),
    "folds": Field(
        0,
        "folds of whole series, each of which is in the test split of one fold (`data.split=series`): the same for all"
        " seeds and methods, whatever `data.limit_series`; 0: one division, drawn with `seed`",
        Limits(0),
    ),
    "fold": Field(
        0,
        "the fold that is the test split, counted from 0; the others are divided into train and validation by the first"
        " two of `data.fractions`, with `seed`",
        Limits(0),
    ),
    "labels": Field(
        "recorded",
        "`recorded` with the data set; for your files a `column` or a file of `intervals`; or made by context `rules`"
        " or `injected` anomalies",
        ("recorded", "column", "intervals", "rules", "injected"),
    ),
    "timestamp_column": Field("", "your files: column of timestamps; `''`: detected", scoring="always"),
    "value_columns": Field(
        "",
        "your files: columns of values, separated by commas; `''`: all numeric columns but times, indices, ids, labels"
        " and those that never change",
        scoring="always",
    ),
    "label_column": Field("", "your files: column of labels; `''`: detected by its name", scoring="always"),
    "series_column": Field(
        "",
        "your files: column that names the series of each row, in a long table (a row per series and time); `''`: each"
        " column of values is a series",
        scoring="always",
    ),
    "missing_values": Field(
        "",
        "your files: numbers or words that stand for missing values, separated by commas, such as -9999,Bad",
        scoring="always",
    ),
    "decimal_sign": Field(
        "", "your files: decimal sign of numbers in text; `''`: told by the numbers", ("", ".", ","), scoring="always"
    ),
    "intervals": Field("", "your files: CSV with start, end and, for several files, series (`data.labels=intervals`)"),
    "combine": Field(
        "none",
        "your files: one score per row from several columns by `max` or `mean`; `none`: one score per column",
        ("none", "max", "mean"),
        scoring="always",
    ),
}

_RULES = {
    "values": Field("scaled", "whether the context rules read scaled or raw values", ("scaled", "raw")),
    "trend": Field(True, "enables the trend rule"),
    "spike": Field(True, "enables the spike rule"),
    "shift": Field(True, "enables the level-shift rule"),
    "volatility": Field(True, "enables the change-of-variance rule"),
    "slope": Field(0.01, "slope per time step above which the trend rule fires", Limits(0)),
    "deviations": Field(3.0, "standard deviations above which the spike rule fires", Limits(0)),
    "p_value": Field(0.05, "p-value below which the shift and variance rules fire", Limits(0, 1)),
    "correction": Field("none", "correction for testing many windows", ("none", "holm", "benjamini_hochberg")),
}

_SOURCES = {
    "injected.rate": Field(0.1, "share of time steps covered by injected anomalies", Limits(0.001, 0.5)),
    "injected.seed": Field(0, "seed of the injected anomalies", Limits(0)),
    "nasa.spacecraft": Field("both", "spacecraft whose channels are read", ("smap", "msl", "both")),
    "nasa.parts": Field(
        "test",
        "arrays to read as series; `train+test` adds each channel's anomaly-free past",
        ("test", "train+test"),
    ),
    "nasa.column": Field(0, "column of the arrays: 0 is telemetry, the others are commands", Limits(0)),
    "nab.groups": Field("realAWSCloudwatch", "folders of NAB, separated by commas; `''`: all"),
    "nab.files": Field("", "files of NAB, separated by commas; `''`: all files of the groups"),
    "nab.labels": Field("windows", "NAB's windows, or the points that they were made from", ("windows", "points")),
    "nab.unlabelled": Field("normal", "whether files without an anomaly count as normal", ("normal", "drop")),
    "mimic_iv.signals": Field("", "vital signs, separated by commas; `''`: all"),
    "mimic_iv.resample_hours": Field(0.0, "hours per step of an even grid; 0: times as charted", Limits(0, 1000)),
    "mimic_iv.min_steps": Field(2, "length below which a series is left out", Limits(1)),
    "mimic_iv.prepared_dir": Field("", "folder for the prepared data; `''`: next to the data"),
    "synthetic.series": Field(240, "number of generated series", Limits(3, 10**4)),
    "synthetic.length": Field(1024, "time steps of the longest series", Limits(64, 10**8)),
    "synthetic.shortest": Field(0, "time steps of the shortest series; 0: all have the same length", Limits(0)),
    "synthetic.past": Field(1024, "time steps of anomaly-free past available for scaling", Limits(0, 10**8)),
    "synthetic.rate": Field(0.1, "share of anomalous time steps", Limits(0.001, 0.5)),
    "synthetic.seed": Field(0, "seed of the generator", Limits(0)),
}

VIEWS = (
    "value",
    "deviation",
    "spread",
    *(f"{kind}_{width}" for kind in ("reference", "past", "whole") for width in (8, 32, 128)),
)
"""Names of the numbers that a step may have, see `spear_jax.data.views`."""

DISTANCES = VIEWS[3:]
"""Those that measure a distance to what came before."""

VIEW_EMBEDDINGS = ("ordinal", "random", "trained")
"""Kinds of embedding that give each of several views vectors of its own."""

_BACKBONE_METHODS = tuple(name for name, method in METHODS.items() if method.backbone and method.trains)


_QUANTIZER = {
    "bins": Field(100, "N, the number of bins; missing values get one more", Limits(2, 10_000)),
    "kind": Field(
        "equal_width", "bins of equal width, or with equally many training values each", ("equal_width", "quantile")
    ),
    "scale": Field(
        "train",
        "range that values are scaled by: `train`: of a reference stretch; `series`: of the whole series, which"
        " looks ahead; `window`: of each window",
        ("train", "series", "window"),
    ),
    "reference_steps": Field(
        256, "leading time steps that serve as the reference of a series without a past", Limits(1)
    ),
    "margin": Field(0.0, "margin added below and above the range, as a share of it", Limits(0, 100)),
    "patch": Field(
        1,
        "time steps in a position of the backbone (1, 2, 4 or 8), whose vectors are averaged; they get the same score",
        Limits(1, 8),
        methods=_BACKBONE_METHODS,
    ),
    "views": Field(
        "value",
        "numbers per time step, separated by commas: `value`, then any of `deviation`, `spread`, `reference_W`,"
        " `past_W` and `whole_W` with windows of W = 8, 32 or 128 steps; `whole_W` looks ahead",
        methods=tuple(name for name, method in METHODS.items() if method.labels),
    ),
    "missing": Field("bin", "missing values get a `bin` of their own or are masked (`mask`)", ("bin", "mask")),
}

DATA_FIELDS = {
    **section("data", "data", _SERIES),
    **section("data.rules", "data", _RULES),
    **section("data", "data", _SOURCES),
    **section(
        "tsmote",
        "training",
        {
            "enabled": Field(False, "adds synthetic anomalous training windows by T-SMOTE"),
            "max_lead": Field(32, "time steps before an anomaly's end from which windows are drawn", Limits(1)),
            "spy_share": Field(0.15, "share of the normal windows that serve as spies", Limits(0.01, 0.9)),
        },
    ),
    **section("quantizer", "data", _QUANTIZER, carried=True),
}
