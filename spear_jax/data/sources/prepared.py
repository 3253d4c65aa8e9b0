"""Where a data set lies: a copy that the user has, or one that TFDS downloaded and prepared once."""

import importlib.resources
import os
from collections.abc import Callable, Iterator
from typing import Any

import filelock
from etils import epath

from spear_jax.errors import InputError, one_line


def local_copy(directory: str, name: str) -> epath.Path | None:
    """The copy to read.

    Args:
      directory: `data.dir`: a local or gs:// path, or ''.
      name: of the data set, and of its folder in `$SPEAR_DATA_DIR`.

    Returns:
      `directory`, else `$SPEAR_DATA_DIR/<name>` if that exists, else None: then the data set is to be prepared.
    """
    if directory:
        return epath.Path(directory).expanduser()
    root = os.environ.get("SPEAR_DATA_DIR")
    copy = epath.Path(root).expanduser() / name if root else None
    return copy if copy and copy.exists() else None


def pinned_checksums(name: str) -> dict[str, str]:
    """SHA-256 of every file at a data set's mirrors, by its path below them."""
    listing = importlib.resources.files("spear_jax.data") / "sources" / name / "checksums.txt"
    pairs = (line.split(maxsplit=1) for line in listing.read_text().splitlines())
    return {path: sha256 for sha256, path in pairs}


def prepare_with_tfds(make_builder: Callable[[], Any]) -> Any:
    """A TFDS builder, downloaded and prepared.

    Args:
      make_builder: makes it; called here because TFDS is slow to import and not needed for a local copy.

    Raises:
      InputError: its folder cannot be used, or no mirror gave a file.
    """
    # Without TensorFlow, TFDS reads ArrayRecord from local folders only.
    root = os.environ.get("TFDS_DATA_DIR", "")
    if "://" in root:
        raise InputError(
            f"TFDS_DATA_DIR is {root!r}; allowed: a local folder (a copy anywhere can be given by data.dir)"
        )
    builder = make_builder()
    folder = builder.data_dir_root
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Several processes of one machine may start at once: one prepares, the others wait for it.
        with filelock.FileLock(folder / f"{builder.name}.lock"):
            builder = make_builder()  # anew: a builder knows what was prepared when it was made, not after
            builder.download_and_prepare()
    except OSError as fault:  # not writeable, or full
        raise InputError(
            f"{folder}: cannot hold the prepared data ({one_line(fault)}); TFDS_DATA_DIR can name another folder"
        ) from fault
    return builder


def read_prepared(builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """The examples of a prepared data set, in order.

    Raises:
      InputError: they cannot be read.
    """
    try:
        yield from builder.as_data_source(split=split)
    except (AssertionError, KeyError, OSError, RuntimeError, ValueError) as fault:
        raise InputError(
            f"{builder.data_dir}: the prepared data cannot be read ({one_line(fault)}); delete the"
            " folder to have them prepared again"
        ) from fault
