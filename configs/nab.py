"""The Numenta Anomaly Benchmark; by default its group realAWSCloudwatch, 17 files (the paper's "NAB AWS").

python -m spear_jax.main --config=configs/nab.py --workdir=runs/nab

With :minilm --config.train.epochs=8 --config.train.decay_steps=120 about 6 minutes on 2 CPU cores.
Expected on the three test files: AUROC .46, AUPR .09, which is chance; README says why.
"""

from ml_collections import ConfigDict

from spear_jax import config as defaults


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: bert (default) or minilm; all (58 files); debug (a few files, under a minute; random:tiny)."""
    words = defaults.variants(arg, ("bert", "minilm", "all", "debug"))
    config = defaults.default_config()
    config.data.name = "nab"
    if "all" in words:
        config.data.nab.groups = ""
    config.quantizer.margin = 0.25
    config.embedding.kind = "numbers"  # what measured best on NASA
    config.head.init = "fitted"
    config.train.head_learning_rate = 1e-3
    defaults.choose_backbone(config, words)
    if "debug" in words:
        config.data.limit_series = 6
        config.train.epochs = 2
    return config
