"""Your own CSV or Parquet files, labelled or not.

python -m spear_jax.main --mode=preview --config=configs/files.py --config.data.dir=telemetry.csv
python -m spear_jax.main --config=configs/files.py --config.data.dir=telemetry.csv --workdir=runs/telemetry

A label column of 0 and 1 is found by its name or given as --config.data.label_column; anomaly intervals in a second
CSV as --config.data.labels=intervals --config.data.intervals=FILE. Without either, --config.data.labels=rules or
injected makes labels up, and every output says so.

An epoch of minilm takes 5 to 8 s per 10 000 time steps on 2 CPU cores. What to expect depends on the data: the controls
beside each result tell whether anything was learned.
"""

from ml_collections import ConfigDict

from spear_jax.config import BACKBONES, choose_backbone, own_data_config, variants


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: minilm (default) or another of `config.BACKBONES`; series (hold out whole files, not each one's end).

    With debug a short training of random:tiny, unless a backbone is named.
    """
    words = variants(arg, (*BACKBONES, "series", "debug"))
    config = own_data_config()
    # One file can only be divided in time; its end is the test.
    config.data.split = "series" if "series" in words else "time"
    choose_backbone(config, words)
    if "debug" in words:
        config.train.epochs = 2
    return config
