"""Vital signs of MIMIC-IV's intensive care stays: irregular lengths, labels by the four context rules.

python -m spear_jax.main --config=configs/mimic_iv.py --config.data.dir=FOLDER --workdir=runs/mimic_iv

FOLDER is a copy of the credentialed release or of the open demo, which is never downloaded.
On the demo :minilm --config.train.epochs=4 --config.train.decay_steps=150 takes about 5 minutes on 2 CPU cores.
Expected on its test part: AUROC .72, AUPR .81 where .64 of the steps are labelled anomalous.
"""

from ml_collections import ConfigDict

from spear_jax.config import BACKBONES, choose_backbone, default_config, variants


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: bert (default), minilm, gemma or another of `config.BACKBONES`.

    With debug a few series, in under a minute; random:tiny unless a backbone is named.
    """
    words = variants(arg, (*BACKBONES, "debug"))
    config = default_config()
    config.data.name = "mimic_iv"
    config.data.labels = "rules"
    config.quantizer.reference_steps = 24
    config.quantizer.margin = 0.25
    # Windows of several lengths are dealt out longest first: smaller batches mix fewer lengths.
    config.score.batch_size = 32
    config.embedding.kind = "numbers"  # what measured best on NASA
    config.head.init = "fitted"
    config.train.head_learning_rate = 1e-3
    choose_backbone(config, words)
    if "debug" in words:
        config.data.limit_series = 60
        config.train.epochs = 2
    return config
