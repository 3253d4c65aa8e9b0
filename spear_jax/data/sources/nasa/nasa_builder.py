"""Prepares the NASA telemetry as a TFDS data set."""

import numpy as np
import tensorflow_datasets as tfds

from spear_jax.data.sources.mirrored import MirroredBuilder, tensor
from spear_jax.data.sources.nasa.nasa_parser import parse_nasa

# The S3 archive in telemanom's README has answered 403 since late 2024 (khundman/telemanom#85). The mirrors hold its
# arrays and labels at a fixed commit.
_COMMIT = "7ffb98d0c18189cc3d9ab732b4cb0278200a0af0"


class NasaTelemetry(MirroredBuilder):
    """One example per labelled channel, in the split 'channels', sorted by name."""

    FOLDER, SPLIT, PARSE = "nasa", "channels", staticmethod(parse_nasa)
    MIRRORS = (
        f"https://raw.githubusercontent.com/imperial-qore/TranAD/{_COMMIT}/data/SMAP_MSL",
        f"https://cdn.jsdelivr.net/gh/imperial-qore/TranAD@{_COMMIT}/data/SMAP_MSL",
    )
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "81 channels: 54 SMAP, 27 MSL."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="SMAP and MSL telemetry of spacecraft with expert-labelled anomalies.",
            features=tfds.features.FeaturesDict(
                {
                    "name": tfds.features.Text(),
                    "spacecraft": tfds.features.Text(),
                    "train": tensor(None, None, dtype=np.float32),
                    "test": tensor(None, None, dtype=np.float32),
                    "labels": tensor(None, dtype=np.bool_),
                }
            ),
            homepage="https://github.com/khundman/telemanom",
            citation="K. Hundman et al., Detecting Spacecraft Anomalies Using LSTMs and"
            " Nonparametric Dynamic Thresholding, KDD 2018, doi 10.1145/3219819.3219845",
            disable_shuffling=True,
        )
