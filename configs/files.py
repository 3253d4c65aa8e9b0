"""Your own CSV or Parquet files, labelled or not.

python -m spear_jax.main --mode=preview --config=configs/files.py --config.data.dir=telemetry.csv
python -m spear_jax.main --config=configs/files.py --config.data.dir=telemetry.csv --workdir=runs/telemetry

Labels come from a column of 0 and 1, which is detected by its name or set as --config.data.label_column, or from a
second CSV with anomaly intervals: --config.data.labels=intervals --config.data.intervals=FILE. Without either,
--config.data.labels=rules or injected generates labels, and every output says so.

The model reads windows of 512 steps, 4 to a position, and eight views of what is usual for the series; its score is
combined with the distance to the series' past, with a weight chosen on validation data (docs/method.md). An epoch of
MiniLM takes 5 to 8 s per 10 000 time steps on 2 CPU cores. The result depends on the data; the controls next to it show
whether anything was learned.
"""

from ml_collections import ConfigDict

from spear_jax.config import BACKBONES, choose_backbone, own_data_config, variants


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: minilm (default) or another of `config.BACKBONES`; series (holds out whole files, not each one's end).

    debug trains random:tiny, unless a backbone is named, for two epochs.
    """
    words = variants(arg, (*BACKBONES, "series", "debug"))
    config = own_data_config()
    # A single file can only be split in time: its end is the test split.
    config.data.split = "series" if "series" in words else "time"
    choose_backbone(config, words)
    if "debug" in words:
        config.train.epochs = 2
    return config
