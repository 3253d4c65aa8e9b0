"""`fetch` against a local server that can cut connections, ignore Range and send wrong bytes."""

import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from spear_jax.data.sources.downloads import fetch, fetch_all
from spear_jax.errors import InputError

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "train/A-1.npy"


class Server(http.server.ThreadingHTTPServer):
    """Serves `contents`; records path, Range and bytes sent of each request."""

    request_queue_size = 64  # the default of 5 makes parallel connections wait a second

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents = {f"/good/{NAME}": CONTENT, f"/wrong/{NAME}": b"?" * len(CONTENT)}
        self.cuts: list[int] = []  # bytes after which the next requests are cut
        self.knows_range = True
        self.requests: list[tuple[str, str | None, int]] = []

    def url(self, mirror: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{mirror}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        content = self.server.contents.get(self.path)
        requested = self.headers.get("Range")
        begin = int(re.findall(r"\d+", requested)[0]) if requested and self.server.knows_range else 0
        if content is None or begin >= len(content):
            self.server.requests.append((self.path, requested, 0))
            return self.send_error(404 if content is None else 416)
        body = content[begin:]
        sent = body[: self.server.cuts.pop(0)] if self.server.cuts else body
        self.server.requests.append((self.path, requested, len(sent)))
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(sent)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def bytes_sent(server: Server) -> int:
    return sum(sent for _, _, sent in server.requests)


def test_fetched_once(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        path = fetch(NAME, [server.url("good")], SHA256, tmp_path)
        assert path == tmp_path / NAME
        assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert [p.name for p in path.parent.iterdir()] == ["A-1.npy"]


def test_existing_file_with_other_content_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / NAME).write_bytes(b"old")
    assert fetch(NAME, [server.url("good")], SHA256, tmp_path).read_bytes() == CONTENT


def test_wrong_checksum_tries_next_mirror(server: Server, tmp_path: Path) -> None:
    mirrors = [server.url("wrong"), server.url("good")]
    assert fetch(NAME, mirrors, SHA256, tmp_path).read_bytes() == CONTENT
    assert bytes_sent(server) == 2 * len(CONTENT)


def test_missing_file_and_dead_host_try_next_mirror(server: Server, tmp_path: Path) -> None:
    mirrors = ["http://127.0.0.1:1", server.url("missing"), server.url("good/")]
    assert fetch(NAME, mirrors, SHA256, tmp_path).read_bytes() == CONTENT


def test_cut_connection_is_continued(server: Server, tmp_path: Path) -> None:
    server.cuts = [3000, 2000]
    assert fetch(NAME, [server.url("good")], SHA256, tmp_path).read_bytes() == CONTENT
    assert [requested for _, requested, _ in server.requests] == [None, "bytes=3000-", "bytes=5000-"]
    assert bytes_sent(server) == len(CONTENT)


def test_cut_for_good_is_continued_by_the_next_run(server: Server, tmp_path: Path) -> None:
    server.cuts = [3000, 0]
    with pytest.raises(InputError, match="connection cut after 0 of 7240 bytes"):
        fetch(NAME, [server.url("good")], SHA256, tmp_path)
    assert (tmp_path / f"{NAME}.part").stat().st_size == 3000
    assert not (tmp_path / NAME).exists()
    fetch(NAME, [server.url("good")], SHA256, tmp_path)
    assert bytes_sent(server) == len(CONTENT)


def test_server_without_range_starts_over(server: Server, tmp_path: Path) -> None:
    server.cuts, server.knows_range = [3000], False
    assert fetch(NAME, [server.url("good")], SHA256, tmp_path).read_bytes() == CONTENT
    assert bytes_sent(server) == 3000 + len(CONTENT)


@pytest.mark.parametrize("part", [b"x" * 20_000, b"x" * 100], ids=["longer", "other beginning"])
def test_useless_part_starts_over(server: Server, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / f"{NAME}.part").write_bytes(part)
    assert fetch(NAME, [server.url("good")], SHA256, tmp_path).read_bytes() == CONTENT


def test_complete_part_needs_no_request(server: Server, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert fetch(NAME, [server.url("good")], SHA256, tmp_path).read_bytes() == CONTENT
    assert not server.requests


def test_wrong_beginning_from_one_mirror_does_not_spoil_the_next(server: Server, tmp_path: Path) -> None:
    server.cuts = [3000, 0]  # the wrong mirror sends 3000 bytes, then nothing
    mirrors = [server.url("wrong"), server.url("good")]
    assert fetch(NAME, mirrors, SHA256, tmp_path).read_bytes() == CONTENT


def test_all_fail(server: Server, tmp_path: Path) -> None:
    mirrors = [server.url("wrong"), server.url("missing"), "http://127.0.0.1:1"]
    with pytest.raises(InputError) as error:
        fetch(NAME, mirrors, SHA256, tmp_path)
    message = str(error.value)
    assert message.startswith(f"{NAME}: ")
    assert f"{mirrors[0]}/{NAME}: sha256 is " in message
    assert f"{mirrors[1]}/{NAME}: HTTP Error 404" in message
    assert "refused" in message.split(mirrors[2])[1]
    assert "data.dir" in message
    assert "\n" not in message
    assert not list(tmp_path.rglob("*.*"))


def test_fetch_all(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checksums = {}
    for i in range(20):
        content = b"%d" % i
        server.contents[f"/good/test/{i} #.npy".replace(" #", "%20%23")] = content
        checksums[f"test/{i} #.npy"] = hashlib.sha256(content).hexdigest()
    fetch_all(checksums, [server.url("good")], tmp_path)
    fetch_all(checksums, [server.url("good")], tmp_path)
    assert {p.read_bytes() for p in tmp_path.glob("test/*.npy")} == {b"%d" % i for i in range(20)}
    assert len(server.requests) == 20
    printed = capsys.readouterr()
    assert "20/20" in printed.err
    assert not printed.out
    with pytest.raises(InputError, match=r"none\.csv: no mirror provided it"):
        fetch_all(checksums | {"none.csv": SHA256}, [server.url("good")], tmp_path)
