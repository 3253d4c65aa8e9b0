"""Owns folders, writes files whole, and reads them with a clear message if they are damaged."""

import contextlib
import datetime
import errno
import hashlib
import io
import json
import math
import os
import re
import secrets
import socket
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from etils import epath
from jaxtyping import Shaped

from spear_jax.errors import InputError, one_line

_LFS = b"version https://git-lfs.github.com/spec/"
LOCK = ".spear_jax.lock"
_MARK = ".spear_jax.began."
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.unfinished")
_JSON_DEPTH = 100
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_FOLDER = (errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


class OwnedFolder:
    """A folder that one process looks at, and then writes to, while no other one does.

    Attributes:
      path: the folder.
      abandoned: whether a process of the same mode began to write here and failed or died.
    """

    def __init__(self, path: epath.Path, mode: str, *, lock: str = LOCK) -> None:
        """Describes a folder that `mode` writes; owners with locks of different names do not exclude each other."""
        self.path, self.abandoned = path, False
        self._lock, self._mark = path / lock, path / f"{_MARK}{mode}"

    @contextlib.contextmanager
    def locked(self) -> Iterator["OwnedFolder"]:
        """Owns the folder within a with block, until the process dies at the latest; a remote one is not locked.

        After `begin`, a mark stays if the block fails or the process dies: the same mode may write these files again.
        Folders that were made for it and are empty at the end are removed.

        Raises:
          InputError: another process owns it, or it cannot be a folder.
        """
        if os.path.abspath(self.path).encode(errors="ignore") != os.fsencode(os.path.abspath(self.path)):  # noqa: PTH100
            raise InputError(f"--workdir={self.path}: the path must be UTF-8, which checkpoints need")
        remote, made = "://" in str(self.path), []
        with contextlib.ExitStack() as stack:
            try:
                if not remote:
                    made = [path for path in (self.path, *self.path.parents) if not path.exists()]
                    self.path.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(self._flock())
                    self._write_owner()
                self.abandoned = self._mark.exists()
            except OSError as error:
                if error.errno in _NO_FOLDER:
                    reason = "is a file" if error.errno == errno.EEXIST else error.strerror
                    raise InputError(f"--workdir={self.path}: {reason}; it must be a folder") from error
                if error.errno not in _READ_ONLY or not self.path.exists():
                    raise
                # What is there can be looked at, and nobody can write.
            try:
                yield self
            except BaseException:
                self._release(made, finished=self.is_new())
                raise
            self._release(made, finished=True)

    def begin(self) -> None:
        """Marks that files are written from now on, and removes those that dead processes left half-written."""
        self.path.mkdir(parents=True, exist_ok=True)
        for mark in self.path.glob(f"{_MARK}*"):
            mark.unlink()
        self._mark.write_bytes(b"")
        for path in (*self.path.glob(".*.unfinished"), *self.path.glob("*/.*.unfinished")):
            if _UNFINISHED.fullmatch(path.name):
                path.unlink()

    def is_new(self) -> bool:
        """Returns whether it contains nothing but the lock, marks and half-written files."""
        return not self.path.exists() or not any(is_content(path) for path in self.path.iterdir())

    @contextlib.contextmanager
    def _flock(self) -> Iterator[None]:
        import filelock  # slow to import

        lock = filelock.FileLock(self._lock, timeout=0.2)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            owner = self._owner()
            raise InputError(
                f"--workdir={self.path}: in use by process {owner.get('pid', '(unknown)')} on"
                f" {owner.get('host', 'this machine')} since {owner.get('since', 'just now')}; wait for its end, or use"
                " another folder"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _owner(self) -> dict[str, Any]:
        try:
            return read_json(self._lock)
        except InputError:  # there is none, or it is being written
            return {}

    def _write_owner(self) -> None:
        since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        self._lock.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))

    def _release(self, made: Sequence[epath.Path], *, finished: bool) -> None:
        with contextlib.suppress(OSError):
            if finished:
                self._mark.unlink(missing_ok=True)
            self._lock.unlink(missing_ok=True)
            for path in made:
                Path(path).rmdir()  # fails if it is not empty


def is_content(path: Path | epath.Path) -> bool:
    """Returns whether a file or folder is more than a lock, a mark or half-written; see `OwnedFolder`."""
    return path.name != LOCK and not path.name.startswith(_MARK) and not _UNFINISHED.fullmatch(path.name)


def unfinished(path: Path | epath.Path) -> Path | epath.Path:
    """Returns a name beside a path for its content until that is complete; `OwnedFolder.begin` removes leftovers."""
    return path.parent / f".{path.name}.{secrets.token_hex(4)}.unfinished"


def write_whole(path: Path | epath.Path, content: bytes | str) -> None:
    """Writes a file atomically: its previous content stays until the new one is complete.

    Text is written as UTF-8, with what cannot be (a part of a file's name) escaped. If several processes write the same
    file at the same time, the last one wins.
    """
    temporary = unfinished(path)
    try:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_ordinary(path: Path | epath.Path) -> None:
    """Checks that what exists is no pipe, which might be waited for, and no pointer of Git LFS.

    A clone without Git LFS has such pointers in the place of files.
    """
    try:
        _check_no_pipe(path)
        with path.open("rb") as file:
            start = file.read(len(_LFS))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from error
    if start == _LFS:
        raise InputError(f"{path}: is a Git LFS pointer, not the file: git lfs pull")


def _check_no_pipe(path: Path | epath.Path) -> None:
    """Checks that a path is no pipe or device, from which reading might never end."""
    if "://" not in str(path) and (local := Path(path)).exists() and not (local.is_file() or local.is_dir()):
        raise OSError("a pipe or a device, and no file")


def read_json(path: Path | epath.Path) -> dict[str, Any]:
    """Reads the object in a JSON file.

    Raises:
      InputError: it cannot be read, is not JSON or contains something other than an object.
    """
    try:
        _check_no_pipe(path)
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {one_line(error)}") from error
    return parse_json(text, path)


def parse_json(text: str | bytes, path: Any) -> dict[str, Any]:
    """Parses the object in JSON that comes from `path`; see `read_json`."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must contain a JSON object, not {type(content).__name__}")
    level: list[Any] = [content]
    for _ in range(_JSON_DEPTH):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return content
    raise InputError(f"{path} cannot be read as JSON: nested more than {_JSON_DEPTH} deep")


def read_npy(content: bytes, where: str) -> Shaped[np.ndarray, "..."]:
    """Returns the array in a .npy file; takes no memory but for what is there.

    Raises:
      InputError: it is damaged, or contains Python objects.
    """
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read_header(stream)
        if dtype.hasobject or any(size < 0 for size in shape):
            raise ValueError(f"shape {shape} and type {dtype}")
        if (needed := math.prod(shape) * dtype.itemsize) != len(content) - stream.tell():
            raise ValueError(f"shape {shape} needs {needed} bytes, there are {len(content) - stream.tell()}")
        array = np.frombuffer(content, dtype, offset=stream.tell())
        return array.reshape(shape, order="F" if is_fortran else "C").copy()
    except (
        ValueError,
        TypeError,
        SyntaxError,
        OverflowError,
        MemoryError,
        RecursionError,
        tokenize.TokenError,
    ) as error:
        raise InputError(f"{where}: not a complete .npy file ({one_line(error)})") from error


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of a JSON file with its digest, by which `read_sealed` sees damage."""
    return {**content, "sha256": content_sha256(content)}


def read_sealed(path: Path | epath.Path) -> dict[str, Any]:
    """Reads a JSON file; files of earlier versions may lack a digest.

    Raises:
      InputError: see `read_json`; or its content is not what was saved.
    """
    content = read_json(path)
    digest = content_sha256(content)
    if content.get("sha256", digest) != digest:
        raise InputError(
            f"{path}: damaged or edited: its content has the sha256 {digest}, it was saved with {content['sha256']}"
        )
    return content


def content_sha256(content: Mapping[str, Any]) -> str:
    """Returns the digest of the content of a JSON file, without its own entry 'sha256', in any layout."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_parquet(path: Path | epath.Path, frame: pd.DataFrame, **metadata: Any) -> str:
    """Writes a table atomically, with metadata as JSON, such as warnings about its numbers; returns its digest."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    texts = {key: json.dumps(value) for key, value in metadata.items()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **texts})
    buffer = io.BytesIO()
    pa.parquet.write_table(table, buffer)
    write_whole(path, buffer.getvalue())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()
