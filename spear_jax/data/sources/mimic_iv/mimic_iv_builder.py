"""Prepares MIMIC-IV vital signs as a TFDS data set, from a local copy: the release is never downloaded."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from spear_jax.data.sources.mimic_iv.mimic_iv_parser import AGREEMENT, DEMO, is_demo, parse_mimic_iv
from spear_jax.data.sources.mirrored import tensor


class MimicIvVitalSigns(tfds.core.GeneratorBasedBuilder):
    """One example per intensive care stay, in the split 'stays', in order of stay number."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Ten vital signs of MIMIC-IV's chartevents."}  # noqa: RUF012

    def __init__(self, *, source: epath.PathLike, **options: Any) -> None:
        """Takes the folder of a release; passes the other options on to TFDS."""
        self._source = epath.Path(source)
        super().__init__(file_format="array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
        demo = is_demo(self._source)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Vital signs of intensive care stays, {DEMO if demo else AGREEMENT}.",
            features=tfds.features.FeaturesDict(
                {
                    "subject": np.int64,
                    "stay": np.int64,
                    "signal": tensor(None, dtype=np.int64),
                    "time": tensor(None, dtype=np.int64),
                    "value": tensor(None, dtype=np.float32),
                }
            ),
            homepage="https://physionet.org/content/mimiciv/",
            citation="A. Johnson et al., MIMIC-IV, a freely accessible electronic health record dataset, Scientific"
            " Data 10, 1 (2023), doi 10.1038/s41597-022-01899-x",
            license="ODbL 1.0" if demo else "PhysioNet Credentialed Health Data License 1.5.0",
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {"stays": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, stay in enumerate(parse_mimic_iv(self._source)):
            yield index, vars(stay)
