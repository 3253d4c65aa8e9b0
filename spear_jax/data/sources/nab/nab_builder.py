"""The Numenta Anomaly Benchmark as a TFDS data set: downloaded, checked and prepared once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from spear_jax.data.sources.mirrored import MirroredBuilder
from spear_jax.data.sources.nab import nab_parser


class NumentaAnomalyBenchmark(MirroredBuilder):
    """One example per file, in the split 'files', sorted by name."""

    LISTING, SPLIT = "nab", "files"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "58 files of numenta/NAB at ea702d7."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        def tensor(*shape: int | None, dtype: type) -> tfds.features.Tensor:
            return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")

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

    def _generate_examples(self, folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, file in enumerate(nab_parser.parse_nab(folder)):
            yield index, vars(file)
