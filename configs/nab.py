"""Numenta Anomaly Benchmark: the 17 files of realAWSCloudwatch (the paper's "NAB AWS").

python -m spear_jax.main --config=configs/nab.py --workdir=runs/nab

:minilm --config.train.epochs=8 --config.train.decay_steps=120 takes about 6 minutes on 2 CPU cores.
Expected on the three test files: AUROC .46, AUPR .09, which is chance; docs/results/single_runs.md explains why.

:nab58 divides all 58 files, 52 of which have an anomaly window, into 4 folds; --config.data.fold=0 to 3 names the one
to test on. configs/studies/own_past.py:nab58 runs all folds and pools them.
"""

from ml_collections import ConfigDict

from spear_jax.config import BACKBONES, choose_backbone, default_config, variants


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: bert (default), minilm, gemma or another of `config.BACKBONES`; all (58 files); nab58
    (the same in 4 folds).

    debug uses a few files, and random:tiny unless a backbone is named; it takes under a minute.
    """
    words = variants(arg, (*BACKBONES, "all", "nab58", "debug"))
    config = default_config()
    config.data.name = "nab"
    if words & {"all", "nab58"}:
        config.data.nab.groups = ""
    if "nab58" in words:
        config.data.folds = 4
        config.train.normal_windows = 600  # of about 1,400; all windows with an anomaly are kept
    config.quantizer.margin = 0.25
    config.embedding.kind = "numbers"  # measured best on NASA
    config.head.init = "fitted"
    config.train.head_learning_rate = 1e-3
    choose_backbone(config, words)
    if "debug" in words:
        config.data.limit_series = 12 if "nab58" in words else 6  # 12 files leave none of the folds empty
        config.train.epochs = 2
    return config
