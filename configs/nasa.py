"""NASA SMAP and MSL: telemetry of two spacecraft, 81 channels (Hundman et al. 2018).

python -m spear_jax.main --config=configs/nasa.py --workdir=runs/nasa

An epoch of :minilm takes 80 to 120 s on 2 CPU cores, the evaluation with all controls 4 minutes. Expected with :minilm
--config.train.epochs=3 --config.train.decay_steps=400 on the test split: AUROC .69, AUPR .28 (base rate .10);
with --config.data.split=random .83 and .52 (base rate .12). docs/results/single_runs.md has the rest.

:nasa81 divides all 81 channels into 4 folds; --config.data.fold=0 to 3 names the one to test on. Each channel is tested
once, by a detector that never saw it. configs/studies/own_past.py:nasa81 runs all folds and pools them.
"""

from ml_collections import ConfigDict

from spear_jax.config import BACKBONES, choose_backbone, default_config, variants


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: bert (default), minilm, gemma or another of `config.BACKBONES`; nasa81 (4 folds of all channels).

    debug uses a few channels, and random:tiny unless a backbone is named; it takes under a minute.
    """
    words = variants(arg, (*BACKBONES, "nasa81", "debug"))
    config = default_config()
    config.data.name = "nasa"
    # Values outside the range of a channel's past get bins of their own, up to a quarter of the range on either side.
    config.quantizer.margin = 0.25
    # The best frozen kind on validation (docs/results/single_runs.md): rows of the strings "0" to "99".
    config.embedding.kind = "numbers"
    # Training starts from the fitted head; from a random head it takes many epochs to get there.
    config.head.init = "fitted"
    config.train.head_learning_rate = 1e-3
    if "nasa81" in words:
        config.data.folds = 4
        # Of about 2,000; all windows with an anomaly are kept. An epoch takes half as long.
        config.train.normal_windows = 600
    choose_backbone(config, words)
    if "debug" in words:
        config.data.limit_series = 12 if "nasa81" in words else 8  # 12 channels leave none of the folds empty
        config.train.epochs = 2
    return config
