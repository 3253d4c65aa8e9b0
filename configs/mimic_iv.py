"""MIMIC-IV: vital signs in intensive care, irregular lengths, labels by context rules.

python -m spear_jax.main --config=configs/mimic_iv.py --config.data.dir=FOLDER --workdir=runs/mimic_iv

FOLDER is a copy of the credentialed release or of the open demo; neither is downloaded.
The demo with :minilm --config.train.epochs=4 --config.train.decay_steps=150 takes about 5 minutes on 2 CPU cores.
Expected on its test split: AUROC .72, AUPR .81 at a base rate of .64.
"""

from ml_collections import ConfigDict

from spear_jax.config import BACKBONES, choose_backbone, default_config, variants


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: bert (default), minilm, gemma or another of `config.BACKBONES`.

    debug uses a few series, and random:tiny unless a backbone is named; it takes under a minute.
    """
    words = variants(arg, (*BACKBONES, "debug"))
    config = default_config()
    config.data.name = "mimic_iv"
    config.data.labels = "rules"
    config.quantizer.reference_steps = 24
    config.quantizer.margin = 0.25
    # Windows are batched by length, longest first: smaller batches mix fewer lengths.
    config.score.batch_size = 32
    config.embedding.kind = "numbers"  # measured best on NASA
    config.head.init = "fitted"
    config.train.head_learning_rate = 1e-3
    choose_backbone(config, words)
    if "debug" in words:
        config.data.limit_series = 60
        config.train.epochs = 2
    return config
