"""Downloads files of known SHA-256 despite dead mirrors, dropped connections and changed files.

Neither TFDS nor the Hub's client can do this: TFDS takes one URL per file and starts over after an error, and public
data sets move. Since files are verified by their content, they may come from any mirror, in any number of pieces.
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

from spear_jax.errors import InputError, one_line

_TIMEOUT_SECONDS = 30  # per connection and per read, not per file
_PARALLEL_FILES = 8
_ERRORS = (OSError, http.client.HTTPException)  # URLError, HTTPError and timeouts are OSErrors


def fetch(relative: str, mirrors: Sequence[str], sha256: str, folder: Path) -> Path:
    """Downloads `folder / relative` unless it is there already; returns its path.

    A file that is there and correct costs no request. An interrupted download, kept in `<name>.part`, continues with
    an HTTP Range request. The file appears under its name atomically.

    Args:
      relative: path below each mirror and below `folder`, with '/'.
      mirrors: base URLs, tried in this order.
      sha256: hexadecimal digest of the content.
      folder: local folder; created if missing.

    Raises:
      InputError: no mirror provided the file; lists the reason for each mirror.
    """
    target = folder / relative
    part = target.with_name(target.name + ".part")
    if _digest(target) == sha256:
        return target
    if _digest(part) == sha256:  # interrupted between the last byte and the rename
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
                # The first bytes may have come from another mirror: download all of them from this one.
                part.unlink()
                _download(url, part)
        except _ERRORS as error:
            reasons.append(f"{url}: {one_line(error)}")
            continue
        digest = _digest(part)
        if digest == sha256:
            part.replace(target)
            return target
        part.unlink()
        reasons.append(f"{url}: sha256 is {digest[:12]}.. instead of {sha256[:12]}..")
    raise InputError(f"{relative}: no mirror provided it ({'; '.join(reasons)}); config.data.dir can name a local copy")


def fetch_all(checksums: Mapping[str, str], mirrors: Sequence[str], folder: Path) -> None:
    """Downloads every file (relative path -> SHA-256), several at a time, with a progress bar on stderr; see `fetch`.

    Raises:
      InputError: a file that no mirror provided; files not yet begun are not downloaded.
    """

    def fetch_one(item: tuple[str, str]) -> Path:
        relative, sha256 = item
        return fetch(relative, mirrors, sha256, folder)

    with concurrent.futures.ThreadPoolExecutor(_PARALLEL_FILES) as pool:
        fetched = pool.map(fetch_one, checksums.items())
        for _ in tqdm(fetched, desc=f"fetch to {folder}", total=len(checksums), unit="file"):
            pass


def _digest(path: Path) -> str:
    """Returns the file's SHA-256 in hexadecimal, or '' if there is no file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str, part: Path) -> None:
    """Continues the download in `part`; tries again as long as each attempt makes progress."""
    while True:
        before = _size(part)
        try:
            return _request(url, part, before)
        except _ERRORS:
            if _size(part) <= before:
                raise


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _request(url: str, part: Path, begin: int) -> None:
    """Appends the bytes after the first `begin` ones, with one request."""
    headers = {"User-Agent": "spear_jax"}  # some networks block Python's default
    if begin:
        headers["Range"] = f"bytes={begin}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and begin:
            part.unlink()  # longer than the file, so not its beginning
            return _request(url, part, 0)
        raise
    # A server that ignores Range answers 200 with the complete content: start over.
    continues = response.status == http.HTTPStatus.PARTIAL_CONTENT
    with response, part.open("ab" if continues else "wb") as file:
        begin = file.tell()
        shutil.copyfileobj(response, file)
        received = file.tell() - begin
    # http.client raises nothing when a connection is cut between two reads of a given size.
    expected = response.headers.get("Content-Length")
    if expected is not None and received < int(expected):
        raise ConnectionError(f"connection cut after {received} of {expected} bytes")
