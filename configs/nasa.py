"""NASA SMAP and MSL spacecraft telemetry, 81 channels (Hundman et al. 2018).

python -m spear_jax.main --config=configs/nasa.py --workdir=runs/nasa

With :minilm an epoch takes 80 to 120 s on 2 CPU cores, the evaluation with all controls 4 minutes. Expected of :minilm
with --config.train.epochs=3 --config.train.decay_steps=400 on the test part: AUROC .69, AUPR .28 with split `series`
(base rate .10), .83 and .52 with `random` (base rate .12); RESULTS.md has the rest.
"""

from ml_collections import ConfigDict

from spear_jax.config import BACKBONES, choose_backbone, default_config, variants


def get_config(arg: str = "") -> ConfigDict:
    """Arguments: bert (default), minilm, gemma or another of `config.BACKBONES`.

    With debug a few channels, in under a minute; random:tiny unless a backbone is named.
    """
    words = variants(arg, (*BACKBONES, "debug"))
    config = default_config()
    config.data.name = "nasa"
    # Values beyond the range of a channel's past get bins of their own, up to a quarter of it on either side.
    config.quantizer.margin = 0.25
    # The frozen kind that measured best on validation (RESULTS.md): rows of the strings "0" to "99".
    config.embedding.kind = "numbers"
    # Training starts where the head alone ends; from a random head it takes many epochs to get there.
    config.head.init = "fitted"
    config.train.head_learning_rate = 1e-3
    choose_backbone(config, words)
    if "debug" in words:
        config.data.limit_series = 8
        config.train.epochs = 2
    return config
