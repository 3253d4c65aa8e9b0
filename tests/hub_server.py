"""As much of the Hugging Face Hub as a download needs, on this machine."""

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
NOWHERE = "http://127.0.0.1:9"  # nobody listens there


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves the files of `folder` as the repository some/model; what it is to get wrong is set on the class."""

    folder: Path
    gated = False
    cut = False  # files break off in the middle

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

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = cut

    def log_message(self, *arguments: object) -> None:
        pass


def place(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment variable HF_ENDPOINT does before huggingface_hub is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def leave(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache in a folder, and a Hub at a port where nobody listens."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    place(NOWHERE, monkeypatch)


@contextlib.contextmanager
def serve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A Hub with the files of a folder."""
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
