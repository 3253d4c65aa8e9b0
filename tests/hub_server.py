"""A local Hugging Face Hub, with the part of its API that downloads and uploads of small files use."""

import base64
import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1", COMMIT)
TOKEN = "hf_of_this_test"
NOWHERE = "http://127.0.0.1:9"  # a port without a server


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves the files of `folder` as the repository some/model, and accepts new ones from clients with the token.

    Failures are switched on in the class.
    """

    folder: Path
    gated = False
    cut = False  # transfers of files break off in the middle

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        route = self.path.partition("?")[0]
        file = self.folder / route.rpartition("/")[2]
        if not route.startswith(("/api/models/some/model/", f"/some/model/resolve/{COMMIT}/")):
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif route.startswith("/api/models/some/model/revision/"):
            if route.rpartition("/")[2] in REVISIONS:
                self.answer(200, json.dumps({"id": "some/model", "sha": COMMIT}).encode())
            else:
                self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif route.startswith("/api/models/some/model/tree/"):
            files = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                for file in self.folder.iterdir()
            ]
            self.answer(200, json.dumps(files).encode())
        elif self.gated:
            self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        else:
            content = file.read_bytes()
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            self.answer(200, content, {"X-Repo-Commit": COMMIT, "ETag": etag}, cut=self.cut)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"])) if "Content-Length" in self.headers else b""
        if self.headers["Transfer-Encoding"] == "chunked":
            content = b"".join(iter(self.chunk, b""))
        authorised = self.headers["Authorization"] == f"Bearer {TOKEN}"
        if self.path == "/api/validate-yaml":
            self.answer(200, b'{"warnings": [], "errors": []}')
        elif not authorised:
            self.answer(401, b"", {"X-Error-Message": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            request = json.loads(content)
            assert (request["organization"], request["name"]) == ("some", "model")
            self.answer(200, json.dumps({"url": f"http://{self.headers['Host']}/some/model"}).encode())
        elif self.path == "/api/models/some/model/preupload/main":
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(content)["files"]
            ]
            self.answer(200, json.dumps({"files": modes}).encode())
        elif self.path == "/api/models/some/model/commit/main":
            for line in map(json.loads, content.splitlines()):
                if line["key"] == "file":
                    (self.folder / line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
            where = f"http://{self.headers['Host']}/some/model/commit/{COMMIT}"
            self.answer(200, json.dumps({"commitUrl": where, "commitOid": COMMIT}).encode())
        else:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    def chunk(self) -> bytes:
        """Reads the next chunk of a chunked body; empty after the last."""
        part = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return part

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = cut

    def log_message(self, *arguments: object) -> None:
        pass


def place(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points the Hub client at an address, like HF_ENDPOINT set before huggingface_hub is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def leave(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets an empty cache in a folder, and a Hub at a port without a server."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    place(NOWHERE, monkeypatch)


@contextlib.contextmanager
def serve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """Runs a Hub with the files of a folder."""
    handler = type("ThisHub", (Hub,), {"folder": folder})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        place(f"http://127.0.0.1:{server.server_port}", monkeypatch)
        try:
            yield handler
        finally:
            server.shutdown()
            thread.join()
