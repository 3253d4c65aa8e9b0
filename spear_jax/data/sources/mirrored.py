"""What the TFDS builders of public data sets share: files of known checksums, from whichever mirror gives them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from spear_jax.data.sources import download, prepared


class MirroredBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Downloads and checks the files of a data set, then prepares one split of it as ArrayRecord.

    Needs no TensorFlow: what it prepares is read by `as_data_source`.
    """

    LISTING: ClassVar[str]  # folder beside this file that holds checksums.txt
    SPLIT: ClassVar[str]

    def __init__(self, *, mirrors: Sequence[str], checksums: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        """Mirrors and checksums (None: the pinned ones) as `fetch_all`; the rest as TFDS."""
        self._mirrors = mirrors
        self._checksums = prepared.pinned_checksums(self.LISTING) if checksums is None else checksums
        super().__init__(file_format="array_record", **kwargs)

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        # Not `dl_manager.download`: it knows neither mirrors nor resuming.
        folder = Path(dl_manager.download_dir) / self.name
        download.fetch_all(self._checksums, self._mirrors, folder)
        return {self.SPLIT: self._generate_examples(folder)}
