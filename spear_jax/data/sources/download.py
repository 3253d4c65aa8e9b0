"""Downloads that survive a dead mirror, a cut connection and a changed file.

TFDS downloads from one address per file and starts over after a fault; public data sets move. Here
a file is known by its SHA-256, so that it does not matter which mirror it came from, nor in how
many pieces.
"""

import concurrent.futures
import hashlib
import http.client
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from spear_jax.errors import InputError

_TIMEOUT_SECONDS = 30  # Per connection and per read, not per file.


_PARALLEL_FILES = 8


_FAULTS = (OSError, http.client.HTTPException)  # URLError, HTTPError and timeouts are OSErrors.


def fetch(relative: str, mirrors: Sequence[str], sha256: str, folder: Path) -> Path:
    """Makes sure that `folder / relative` is there and is the file with this SHA-256.

    A file that is already right costs no request. What an interrupted download left in
    `<name>.part` is continued by an HTTP Range request. The file appears under its name in one
    step.

    Args:
      relative: path below each mirror and below `folder`, with '/'.
      mirrors: base URLs, tried in this order.
      sha256: hexadecimal digest of the content.
      folder: local folder; made where missing.

    Returns:
      The file's path.

    Raises:
      InputError: no mirror gave the file; says why for each of them.
    """
    target = folder / relative
    part = target.with_name(target.name + ".part")
    if _digest(target) == sha256:
        return target
    if _digest(part) == sha256:  # Stopped between the last byte and the rename.
        part.replace(target)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)

    reasons = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{urllib.parse.quote(relative)}"
        try:
            continued = part.exists()
            _download(url, part)
            if continued and _digest(part) != sha256:
                # The beginning may have come from another mirror: judge this one by its own bytes.
                part.unlink()
                _download(url, part)
        except _FAULTS as fault:
            reasons.append(f"{url}: {fault}")
            continue
        found = _digest(part)
        if found == sha256:
            part.replace(target)
            return target
        part.unlink()
        reasons.append(f"{url}: sha256 is {found[:12]}.. instead of {sha256[:12]}..")
    message = f"{relative}: no mirror gave it ({'; '.join(reasons)})"
    raise InputError(" ".join(f"{message}; a local copy can be given by data.dir".split()))


def fetch_all(checksums: Mapping[str, str], mirrors: Sequence[str], folder: Path) -> None:
    """Fetches every file, several at a time, with a progress bar on stderr.

    Args:
      checksums: relative path to SHA-256, as `fetch` takes them.
      mirrors: base URLs, tried in this order for each file.
      folder: local folder; made where missing.

    Raises:
      InputError: the first file that no mirror gave; files not yet begun are left alone.
    """

    def fetch_one(item: tuple[str, str]) -> Path:
        relative, sha256 = item
        return fetch(relative, mirrors, sha256, folder)

    with concurrent.futures.ThreadPoolExecutor(_PARALLEL_FILES) as pool:
        fetched = pool.map(fetch_one, checksums.items())
        for _ in tqdm(fetched, desc=f"fetch to {folder}", total=len(checksums), unit="file"):
            pass


def _digest(path: Path) -> str:
    """The file's SHA-256 in hexadecimal, or '' where there is no file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str, part: Path) -> None:
    """Downloads into `part`, continuing it; asks again while each try brings it further."""
    while True:
        before = _size(part)
        try:
            return _request(url, part, before)
        except _FAULTS:
            if _size(part) <= before:
                raise


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _request(url: str, part: Path, begin: int) -> None:
    """One request for what follows the first `begin` bytes."""
    headers = {"User-Agent": "spear_jax"}  # Some networks refuse Python's own.
    if begin:
        headers["Range"] = f"bytes={begin}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as fault:
        if fault.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and begin:
            part.unlink()  # Longer than the content, so not a beginning of it.
            return _request(url, part, 0)
        raise
    # A server that ignores Range answers 200 with the whole content: start over.
    continues = response.status == http.HTTPStatus.PARTIAL_CONTENT
    with response, part.open("ab" if continues else "wb") as file:
        begin = file.tell()
        shutil.copyfileobj(response, file)
        received = file.tell() - begin
    # http.client ends quietly when a connection is cut between two reads of given size.
    expected = response.headers.get("Content-Length")
    if expected is not None and received < int(expected):
        raise ConnectionError(f"connection cut after {received} of {expected} bytes")
