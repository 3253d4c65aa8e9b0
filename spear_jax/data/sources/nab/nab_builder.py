"""Prepares the Numenta Anomaly Benchmark as a TFDS data set."""

import numpy as np
import tensorflow_datasets as tfds

from spear_jax.data.sources.mirrored import MirroredBuilder, tensor
from spear_jax.data.sources.nab.nab_parser import parse_nab

_COMMIT = "ea702d75cc2258d9d7dd35ca8e5e2539d71f3140"


class NumentaAnomalyBenchmark(MirroredBuilder):
    """One example per file, in the split 'files', sorted by name."""

    FOLDER, SPLIT, PARSE = "nab", "files", staticmethod(parse_nab)
    MIRRORS = (
        f"https://raw.githubusercontent.com/numenta/NAB/{_COMMIT}",
        f"https://cdn.jsdelivr.net/gh/numenta/NAB@{_COMMIT}",
    )
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "58 files of numenta/NAB at ea702d7."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Real and artificial telemetry with labelled anomaly windows.",
            features=tfds.features.FeaturesDict(
                {
                    "name": tfds.features.Text(),
                    "timestamps": tensor(None, dtype=np.int64),
                    "values": tensor(None, dtype=np.float64),
                    "windows": tensor(None, 2, dtype=np.int64),
                    "points": tensor(None, dtype=np.int64),
                }
            ),
            homepage="https://github.com/numenta/NAB",
            citation="A. Lavin and S. Ahmad, Evaluating Real-time Anomaly Detection Algorithms - the Numenta Anomaly"
            " Benchmark, ICMLA 2015, doi 10.1109/ICMLA.2015.141",
            license="MIT",
            disable_shuffling=True,
        )
