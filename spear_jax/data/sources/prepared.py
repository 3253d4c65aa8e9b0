"""Locates data sets: the user's copy, or one that TFDS has downloaded and prepared."""

import dataclasses
import hashlib
import importlib.resources
import json
import os
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import filelock
from etils import epath

from spear_jax.errors import InputError, one_line
from spear_jax.storage import read_sealed, sealed, write_whole

Record = TypeVar("Record")


def local_copy(directory: str, name: str) -> epath.Path | None:
    """Returns the copy to read, or None if the data set has to be prepared.

    Returns:
      `directory`, else `$SPEAR_DATA_DIR/<name>` if that exists, else None.
    """
    if directory:
        return epath.Path(directory).expanduser()
    root = os.environ.get("SPEAR_DATA_DIR")
    copy = epath.Path(root).expanduser() / name if root else None
    return copy if copy and copy.exists() else None


@dataclasses.dataclass(frozen=True)
class PublicDataset(Generic[Record]):
    """A data set of which the user has a copy, or which TFDS downloads and prepares.

    Attributes:
      name: see `local_copy`.
      record: the type of a record; its fields are the features of a prepared example.
      parse: reads all records of a local copy.
      make_builder: see `prepare_with_tfds`.
    """

    name: str
    record: Callable[..., Record]
    parse: Callable[[epath.Path], list[Record]]
    make_builder: Callable[[], Any]

    def read(self, directory: str) -> list[Record]:
        """Reads all records from `directory`, see `local_copy`."""
        if local := local_copy(directory, self.name):
            return self.parse(local)
        builder = prepare_with_tfds(self.make_builder)
        return [self.record(**example) for example in read_prepared(builder, builder.SPLIT)]

    def prepare(self, directory: str) -> epath.Path:
        """Downloads and prepares what `read` reads, or checks the local copy; returns the folder."""
        local = local_copy(directory, self.name)
        if not local:
            return epath.Path(prepare_with_tfds(self.make_builder).data_dir)
        self.parse(local)
        return local


def pinned_checksums(name: str) -> dict[str, str]:
    """Reads the SHA-256 of every file of a data set, by its path below the mirrors."""
    listing = importlib.resources.files("spear_jax.data") / "sources" / name / "checksums.txt"
    pairs = (line.split(maxsplit=1) for line in listing.read_text().splitlines())
    return {path: sha256 for sha256, path in pairs}


def prepare_with_tfds(make_builder: Callable[[], Any]) -> Any:
    """Downloads and prepares a data set; returns its TFDS builder.

    Args:
      make_builder: imports TFDS and makes the builder. TFDS is slow to import and a local copy does not need it.

    Raises:
      InputError: the data folder is unusable, or no mirror provided a file.
    """
    # Without TensorFlow, TFDS reads ArrayRecord from local folders only.
    root = os.environ.get("TFDS_DATA_DIR", "")
    if "://" in root:
        raise InputError(f"TFDS_DATA_DIR={root!r} must be a local folder (data.dir can name a copy anywhere)")
    builder = make_builder()
    folder = builder.data_dir_root
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Several processes on one machine may start at once: one prepares, the others wait.
        with filelock.FileLock(folder / f"{builder.name}.lock"):
            builder = make_builder()  # a builder looks for prepared data once, when it is made
            builder.download_and_prepare()
            if not (listing := epath.Path(builder.data_dir) / _DIGESTS).exists():
                write_whole(listing, json.dumps(sealed(_digests(listing.parent))))
    except OSError as error:  # not writable, or full
        raise InputError(
            f"{folder}: cannot store the prepared data ({one_line(error)}); set TFDS_DATA_DIR to another folder"
        ) from error
    return builder


_DIGESTS = "spear_jax.sha256.json"


def _digests(folder: epath.Path) -> dict[str, str]:
    """Returns the SHA-256 of each file of prepared data."""
    digests = {}
    for path in folder.iterdir():
        if path.name != _DIGESTS and path.is_file():
            with path.open("rb") as file:
                digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def read_prepared(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """Yields the examples of a prepared data set, in order.

    Raises:
      InputError: they are unreadable, or not what was prepared.
    """
    folder = epath.Path(builder.data_dir)
    if (folder / _DIGESTS).exists():  # earlier versions kept none
        kept = read_sealed(folder / _DIGESTS)
        damaged = [name for name, digest in _digests(folder).items() if kept.get(name) != digest]
        if damaged:
            raise InputError(f"{folder / damaged[0]}: damaged; delete the folder to prepare the data again")
    try:
        for example in builder.as_data_source(split=split):
            yield {name: value.decode() if isinstance(value, bytes) else value for name, value in example.items()}
    except (AssertionError, KeyError, OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{builder.data_dir}: the prepared data cannot be read ({one_line(error)}); delete the folder to prepare"
            " it again"
        ) from error
