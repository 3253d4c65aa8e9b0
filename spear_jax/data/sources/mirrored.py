"""Prepares public data sets with TFDS, from files with known checksums on one of several mirrors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from spear_jax.data.sources import downloads, prepared


def tensor(*shape: int | None, dtype: type) -> tfds.features.Tensor:
    """Declares an array; TFDS stores two unknown dimensions only when encoded as bytes."""
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")


class MirroredBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Downloads and checks the files of a data set, then prepares its only split as ArrayRecord.

    Needs no TensorFlow: `as_data_source` reads what it prepares.
    """

    FOLDER: ClassVar[str]  # the subfolder with checksums.txt
    MIRRORS: ClassVar[tuple[str, ...]]  # base URLs, in the order in which they are tried
    SPLIT: ClassVar[str]
    PARSE: ClassVar[staticmethod]  # returns the records in a folder, whose fields are the features

    def __init__(self, **options: Any) -> None:
        """Passes its options on to TFDS."""
        super().__init__(file_format="array_record", **options)

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        # Not `dl_manager.download`, which neither falls back to another mirror nor resumes.
        folder = Path(dl_manager.download_dir) / self.name
        downloads.fetch_all(prepared.pinned_checksums(self.FOLDER), self.MIRRORS, folder)
        return {self.SPLIT: self._generate_examples(folder)}

    def _generate_examples(self, folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, record in enumerate(self.PARSE(folder)):
            yield index, vars(record)
