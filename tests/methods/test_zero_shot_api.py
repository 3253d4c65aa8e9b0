"""A chat model behind an endpoint as a detector, against a server that speaks the protocol and fails as told."""

import contextlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pytest
from conftest import SPLITS, Spear, check_refusal, check_scores, quick, refuse_untouched, results

from spear_jax import main
from spear_jax.config import reading
from spear_jax.data import sources
from spear_jax.data.dataset import build_dataset
from spear_jax.data.series import LoadedSeries
from spear_jax.data.sources import mimic_iv_source as mimic_source
from spear_jax.data.sources import synthetic
from spear_jax.data.step_scores import stitch_splits
from spear_jax.methods import zero_shot_api
from spear_jax.methods.zero_shot_api import Anomaly, parse_answer

pytestmark = pytest.mark.one_python

KEY = "sk-never-to-be-seen-0123456789"
MODEL = "test-model"
OTHER_MODEL = "other-model"
CALLED = "test-model-2026-01-01"
HOLE = "?"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers chat completions as the OpenAI API does, or fails as the endpoint is told."""

    protocol_version = "HTTP/1.1"
    server: "Endpoint"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((time.monotonic(), body["messages"][0]["content"]))
            act = self.server.faults.pop(0) if self.server.faults else None
        assert self.path == "/v1/chat/completions"
        assert self.headers["Authorization"] == f"Bearer {KEY}"
        assert body["model"] in (MODEL, OTHER_MODEL)
        assert body["temperature"] == 0
        assert body["response_format"] == {"type": "json_object"}
        (message,) = body["messages"]
        assert message["role"] == "user"
        if act is None:
            self.complete(self.server.answer(message["content"]))
        else:
            act(self, message["content"])

    def complete(self, content: str | None) -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": CALLED, "choices": [choice]}
        self.send(200, json.dumps(whole))

    def send(self, status: int, text: str, headers: Mapping[str, str] | None = None, missing: int = 0) -> None:
        blob = text.encode()
        self.send_response(status)
        said = {"Content-Type": "application/json", "Content-Length": str(len(blob) + missing), **(headers or {})}
        for name, value in said.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(blob)

    def log_message(self, *args: object) -> None:
        pass


Act: TypeAlias = Callable[[Handler, str], None]


def values_of(text: str) -> list[str]:
    """The bins in a question."""
    (line,) = re.findall(r"^[\d?,]+$", text, re.MULTILINE)
    return line.split(",")


def largest(text: str) -> str:
    """Flags the first of the highest bins, and the step before it with less confidence."""
    bins = [-1 if value == HOLE else int(value) for value in values_of(text)]
    at = int(np.argmax(bins))
    confidence = max(bins) / 200
    found = [{"start": at, "end": at, "confidence": confidence}]
    return json.dumps({"anomalies": [*found, {"start": max(at - 1, 0), "end": at, "confidence": confidence / 2}]})


class Endpoint(http.server.ThreadingHTTPServer):
    """What was asked and when, and how it is answered: by `faults` as long as there are some."""

    daemon_threads = True

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: list[tuple[float, str]] = []
        self.faults: list[Act] = []
        self.answer: Callable[[str], str] = largest
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that did not wait any longer is no fault here; a wrong request shows in what it got."""


@contextlib.contextmanager
def serving() -> Iterator[Endpoint]:
    with Endpoint() as endpoint:
        thread = threading.Thread(target=endpoint.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield endpoint
        endpoint.shutdown()
        thread.join()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    for name in os.environ:
        if name.startswith("OPENAI_"):
            monkeypatch.delenv(name)
    with serving() as one:
        monkeypatch.setenv("OPENAI_BASE_URL", one.address)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_MODEL", MODEL)
        yield one


def asking(tmp_path: Path, fields: Mapping[str, object] | None = None, name: str = "run") -> tuple[str, ...]:
    """The command of a run that asks about `WINDOWS` windows of 32 steps."""
    own = {"method": "zero_shot_api", "zero_shot.cache": tmp_path / "cache", "zero_shot.requests_per_minute": 60_000}
    own["data.synthetic.seed"] = 1  # whose windows all differ
    return quick(tmp_path / name, {**own, **(fields or {})})


WINDOWS = 48


def check_expected(arguments: tuple[str, ...]) -> None:
    """The scores are those of `largest` for each window."""
    flags = main.parse_flags(arguments)
    config = reading.load_config(flags.config)
    for field, text in flags.overrides.items():
        reading.override(config, field, text)
    dataset = build_dataset(config, sources.load_series(config))
    expected = {}
    for split, examples in dataset.examples.items():
        expected[split] = np.zeros(examples.bins.shape)
        for row, bins in enumerate(np.where(examples.bins == dataset.quantizer.bins, -1, examples.bins)):
            at = bins.argmax()
            expected[split][row, max(at - 1, 0)] = bins[at] / 400
            expected[split][row, at] = bins[at] / 200
    for split, steps in stitch_splits(dataset, expected).items():
        found = pd.read_parquet(Path(flags.workdir) / "scores" / f"{split}.parquet")
        np.testing.assert_allclose(found["score"], steps.score, rtol=1e-6)


# --- What comes of it ----------------------------------------------------


def test_a_run_and_another_that_asks_nothing(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    outcome = spear(*asking(tmp_path))
    assert outcome.code == 0, outcome.err
    assert len(endpoint.asked) == WINDOWS
    check_expected(asking(tmp_path))
    check_scores(tmp_path / "run")
    content = results(tmp_path / "run")
    assert content["method"] == "zero_shot_api"
    assert content["backbone"] == {}
    (said,) = [line for line in content["warnings"] if "zero_shot_api" in line]
    for part in (MODEL, CALLED, "127.0.0.1", "not the paper's", "GPT-4"):
        assert part in said
    assert f"WARNING: {said}" in outcome.out
    assert f"{WINDOWS} windows, {WINDOWS} different questions, 0 of them cached; {WINDOWS} to ask" in outcome.out
    assert "estimate" in outcome.out
    assert "cost unknown" in outcome.out

    again = spear(*asking(tmp_path, name="again"))
    assert again.code == 0, again.err
    assert len(endpoint.asked) == WINDOWS
    assert f"{WINDOWS} of them cached; 0 to ask" in again.out
    assert results(tmp_path / "again")["test"] == content["test"]
    assert "this run is done" in spear(*asking(tmp_path, {"zero_shot.requests_per_minute": 7})).out


def test_what_the_question_says(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    assert spear(*asking(tmp_path)).code == 0
    for _, text in endpoint.asked:
        values = values_of(text)
        assert len(values) == 32
        assert all(value == HOLE or 0 <= int(value) <= 99 for value in values)
        assert "at 32 steps" in text
        assert "to 99 (highest)" in text
        assert '{"anomalies": [{"start": 3, "end": 5, "confidence": 0.8}]}' in text


def test_missing_values_and_padding(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for i in range(9):
        frame = pd.DataFrame({"x": rng.normal(size=20 + i), "label": rng.random(20 + i) < 0.3})
        frame.loc[3, "x"] = np.nan
        frame.to_csv(tmp_path / "data" / f"s{i}.csv", index=False)
    fields = {"data.name": "files", "data.dir": tmp_path / "data", "data.labels": "column", "data.window": 32}
    outcome = spear(*asking(tmp_path, {**fields, "data.stride": 32, "quantizer.reference_steps": 8}))
    assert outcome.code == 0, outcome.err
    asked = [values_of(text) for _, text in endpoint.asked]
    assert sorted(map(len, asked)) == list(range(20, 29))
    assert all(values[3] == HOLE and values.count(HOLE) == 1 for values in asked)


def test_equal_windows_are_asked_for_once(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    standing = {"data.synthetic.seed": 0}  # with a sensor that stands still for longer than a window
    outcome = spear(*asking(tmp_path, standing))
    assert outcome.code == 0, outcome.err
    assert len({text for _, text in endpoint.asked}) == len(endpoint.asked) < WINDOWS
    assert f"{WINDOWS} windows, {len(endpoint.asked)} different questions" in outcome.out
    check_expected(asking(tmp_path, standing))


def test_the_key_is_nowhere(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    outcome = spear(*asking(tmp_path, {"zero_shot.price_in": 1.0}))
    assert outcome.code == 0
    assert KEY not in outcome.out + outcome.err
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > WINDOWS
    for file in files:
        assert KEY.encode() not in file.read_bytes(), file


def test_own_template(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text('Anything odd, {"of JSON": {}}? {steps} steps, 0 to {last_bin}:\n{values}\n')
    assert spear(*asking(tmp_path, {"zero_shot.template": own})).code == 0
    assert all(text.startswith('Anything odd, {"of JSON": {}}? 32 steps, 0 to 99:') for _, text in endpoint.asked)
    said = " ".join(results(tmp_path / "run")["warnings"])
    assert str(own) in said
    own.write_text(own.read_text() + "Please.")  # another question
    assert spear(*asking(tmp_path, {"zero_shot.template": own}, "other")).code == 0
    assert len(endpoint.asked) == 2 * WINDOWS


def test_the_cache_has_a_place_of_its_own(
    endpoint: Endpoint, spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert spear(*asking(tmp_path, {"zero_shot.cache": ""})).code == 0
    cache = tmp_path / "home" / ".cache" / "spear_jax" / "zero_shot"
    assert len(list(cache.glob("*.json"))) == WINDOWS
    assert cache.stat().st_mode & 0o077 == 0


def test_another_model_or_endpoint_is_another_question(
    endpoint: Endpoint, spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spear(*asking(tmp_path)).code == 0
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.address.replace("127.0.0.1", "localhost"))
    assert spear(*asking(tmp_path, name="second")).code == 0
    assert len(endpoint.asked) == 2 * WINDOWS
    monkeypatch.setenv("OPENAI_MODEL", OTHER_MODEL)
    check_refusal(spear(*asking(tmp_path)), "zero_shot.model", "'other-model' here")  # not the first one's numbers
    assert spear(*asking(tmp_path, name="third")).code == 0
    assert len(endpoint.asked) == 3 * WINDOWS


# --- Faults --------------------------------------------------------------


def say(content: str | None) -> Act:
    return lambda handler, text: handler.complete(content)


def status(code: int, **headers: str) -> Act:
    """An error as the API words it; the server quotes the key that it got."""
    error = {"error": {"message": f"no, {KEY}, because of {code}", "type": "x", "param": None, "code": None}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, text: handler.send(code, json.dumps(error), named)


def sleep(handler: Handler, text: str) -> None:
    time.sleep(2.5)
    with contextlib.suppress(OSError):
        handler.complete(largest(text))


def drop(handler: Handler, text: str) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def cut(handler: Handler, text: str) -> None:
    handler.send(200, '{"id": "chatcmpl-1", "choices": [', missing=100)
    drop(handler, text)


def raw(body: str, **headers: str) -> Act:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, text: handler.send(200, body, named)


SURVIVED: dict[str, list[Act]] = {
    "busy": [status(429, Retry_After="1"), status(429), status(500), status(503), status(502)],
    "gone": [drop, cut, drop, cut],
    "slow": [sleep, sleep],
    "malformed": [say("I see nothing odd."), say('{"anomalies": [{"start": 30, "end": 32, "confidence": 1}]}')],
    "no completion": [raw("[]"), raw("<html>a proxy's page</html>", Content_Type="text/html")],
    "no answer": [say(None), raw('{"choices": []}')],
    "wrapped": [lambda handler, text: handler.complete(f"Sure:\n```json\n{largest(text)}\n```\nThat is {{all}}.")] * 9,
}


@pytest.mark.parametrize("faults", SURVIVED.values(), ids=SURVIVED)
def test_faults_are_survived(
    endpoint: Endpoint, spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: list[Act]
) -> None:
    monkeypatch.setattr(zero_shot_api, "TIMEOUT_SECONDS", 1.0)
    endpoint.faults = list(faults)
    outcome = spear(*asking(tmp_path))
    assert outcome.code == 0, outcome.err
    assert not endpoint.faults
    assert len(results(tmp_path / "run")["warnings"]) == 1
    again = 0 if faults is SURVIVED["wrapped"] else len(faults)
    assert len(endpoint.asked) == WINDOWS + again
    check_expected(asking(tmp_path))


def test_a_server_that_asks_for_time_gets_it(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    endpoint.faults = [status(429, Retry_After="3")]
    assert spear(*asking(tmp_path)).code == 0
    (first, second) = [at for at, text in endpoint.asked if text == endpoint.asked[0][1]]
    assert second - first >= 3


def test_a_window_without_a_valid_answer_scores_zero_and_is_counted(
    endpoint: Endpoint, spear: Spear, tmp_path: Path
) -> None:
    assert spear(*asking(tmp_path, name="reference")).code == 0
    (tmp_path / "cache").rename(tmp_path / "other")
    silent = {text for _, text in endpoint.asked[:5]}
    endpoint.asked.clear()
    endpoint.answer = lambda text: "no idea" if text in silent else largest(text)
    outcome = spear(*asking(tmp_path))
    assert outcome.code == 0, outcome.err
    assert len(endpoint.asked) == WINDOWS + 2 * 5
    said = f"5 of {WINDOWS} windows got no valid answer in 3 attempts and score 0"
    assert said in results(tmp_path / "run")["warnings"]
    assert said in outcome.out
    for split in SPLITS:
        mine, theirs = (pd.read_parquet(tmp_path / run / "scores" / f"{split}.parquet") for run in ("run", "reference"))
        assert set(mine["score"][mine["score"] != theirs["score"]]) <= {0.0}
    # They are not in the cache, so that another run asks for them again.
    endpoint.asked.clear()
    assert spear(*asking(tmp_path, {"zero_shot.attempts": 1}, "again")).code == 0
    assert sorted(text for _, text in endpoint.asked) == sorted(silent)


@pytest.mark.parametrize(
    ("code", "part"), [(400, "OPENAI_MODEL"), (401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, MODEL)]
)
def test_a_refusal_ends_the_run_at_once(endpoint: Endpoint, spear: Spear, tmp_path: Path, code: int, part: str) -> None:
    endpoint.faults = [status(code)] * 1000
    outcome = spear(*asking(tmp_path, {"zero_shot.requests_per_minute": 600}))
    assert outcome.code == 2
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    for word in (part, str(code), "127.0.0.1"):
        assert word in outcome.err
    assert KEY not in outcome.err + outcome.out
    assert len(endpoint.asked) <= 4
    assert not (tmp_path / "run").exists()


def test_what_was_answered_before_the_endpoint_broke_down_is_kept(
    endpoint: Endpoint, spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zero_shot_api, "MAX_RETRIES", 1)
    good: list[Act] = [lambda handler, text: handler.complete(largest(text))] * 10
    endpoint.faults = [*good, *[status(503)] * 1000]
    outcome = spear(*asking(tmp_path))
    assert outcome.code == 1
    assert outcome.err.startswith("stopped: ") and outcome.err.count("\n") == 1
    for part in ("503", "127.0.0.1", "the same command resumes"):
        assert part in outcome.err
    assert KEY not in outcome.err + outcome.out
    assert len(list((tmp_path / "cache").glob("*.json"))) == 10
    endpoint.faults.clear()
    endpoint.asked.clear()
    assert spear(*asking(tmp_path)).code == 0
    assert len(endpoint.asked) == WINDOWS - 10
    check_expected(asking(tmp_path))


def test_nobody_there(endpoint: Endpoint, spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero_shot_api, "MAX_RETRIES", 1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
        outcome = spear(*asking(tmp_path))
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "no answer after 2 requests" in outcome.err


def test_a_killed_run_goes_on(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    arguments = asking(tmp_path, {"zero_shot.requests_per_minute": 300})
    begun = subprocess.Popen([sys.executable, "-m", "spear_jax.main", *arguments], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "cache").glob("*.json"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    begun.send_signal(signal.SIGKILL)
    assert begun.wait() == -signal.SIGKILL
    known = len(list((tmp_path / "cache").glob("*.json")))
    assert 5 <= known < WINDOWS
    endpoint.asked.clear()
    outcome = spear(*asking(tmp_path))
    assert outcome.code == 0, outcome.err
    assert len(endpoint.asked) == WINDOWS - known
    assert f"{known} of them cached; {WINDOWS - known} to ask" in outcome.out
    check_expected(asking(tmp_path))


def test_damaged_answers_are_asked_for_again(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    assert spear(*asking(tmp_path)).code == 0
    endpoint.asked.clear()
    damage = [b"", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"model": "x"}', b'{"model": 1, "anomalies": []}']
    damage.append(b'{"model": "x", "anomalies": [{"start": 0, "end": 32, "confidence": 1}]}')
    for file, blob in zip(sorted((tmp_path / "cache").glob("*.json")), damage, strict=False):
        file.write_bytes(blob)
    assert spear(*asking(tmp_path, name="again")).code == 0
    assert len(endpoint.asked) == len(damage)
    check_expected(asking(tmp_path, name="again"))


def test_requests_keep_their_pace(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    endpoint.faults = [status(500)] * 3  # retries count too
    fields = {"zero_shot.requests_per_minute": 1200, "zero_shot.parallel": 8}  # 20 a second
    assert spear(*asking(tmp_path, fields)).code == 0
    times = np.array(sorted(at for at, _ in endpoint.asked))
    assert len(times) == WINDOWS + 3
    assert times[-1] - times[0] > 0.9 * (len(times) - 1) / 20
    assert max(np.sum((times >= at) & (times < at + 1)) for at in times) <= 24


def test_several_requests_are_in_flight(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    meeting = threading.Barrier(6, timeout=60)

    def together(text: str) -> str:
        meeting.wait()
        return largest(text)

    endpoint.answer = together
    assert spear(*asking(tmp_path, {"zero_shot.parallel": 6})).code == 0
    assert len(endpoint.asked) == WINDOWS


# --- Where data and key go -------------------------------------------------


def test_no_redirect_is_followed(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    with serving() as other:
        endpoint.faults = [status(307, Location=f"{other.address}/chat/completions")] * 1000
        outcome = spear(*asking(tmp_path))
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    for part in ("OPENAI_BASE_URL", "307", "redirect"):
        assert part in outcome.err
    assert other.asked == []
    assert not (tmp_path / "run").exists()


def test_what_stays_on_this_host_passes_no_proxy(
    endpoint: Endpoint, spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.address)
        assert spear(*asking(tmp_path)).code == 0
    assert proxy.asked == []
    assert len(endpoint.asked) == WINDOWS


@pytest.fixture
def mimic(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Fields of a run on what passes for MIMIC-IV."""
    series = synthetic.generate_series(series=6, length=256, shortest=0, past=64, rate=0.1, seed=0)
    monkeypatch.setattr(mimic_source, "load", lambda *_, **__: LoadedSeries("mimic_iv", series))
    return {"data.name": "mimic_iv", "data.labels": "rules"}


@pytest.mark.parametrize(
    "url",
    [
        None,
        "https://api.openai.com/v1",
        "http://127.0.0.1.example.com/v1",
        "http://127.0.0.1@example.com/v1",
        "http://localhost:80@example.com/v1",
        "http://localhost.example.com/v1",
        "http://10.0.0.1/v1",
        "http://0.0.0.0/v1",
        "http://[::2]/v1",
    ],
)
def test_mimic_goes_to_no_other_host(
    endpoint: Endpoint,
    spear: Spear,
    mimic: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    url: str | None,
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL") if url is None else monkeypatch.setenv("OPENAI_BASE_URL", url)
    check_refusal(spear(*asking(tmp_path, mimic)), "OPENAI_BASE_URL", "data use agreement", "mimic_iv", "localhost")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3"])
def test_mimic_goes_to_this_host(
    endpoint: Endpoint,
    spear: Spear,
    mimic: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
) -> None:
    if host == "127.1.2.3" and sys.platform == "darwin":
        pytest.skip("macOS has 127.0.0.1 alone")
    monkeypatch.setattr(zero_shot_api, "MAX_RETRIES", 0)
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.address.replace("127.0.0.1", host))
    outcome = spear(*asking(tmp_path, mimic))
    if host == "127.1.2.3":  # allowed, but the server listens at 127.0.0.1 alone
        assert outcome.code == 1
        assert "no answer" in outcome.err
        return
    assert outcome.code == 0, outcome.err
    assert endpoint.asked


# --- What is refused before anything is asked or written --------------------


@pytest.mark.parametrize(
    ("variable", "value", "parts"),
    [
        ("OPENAI_API_KEY", None, ["OPENAI_API_KEY", "not set", "key"]),
        ("OPENAI_API_KEY", "", ["OPENAI_API_KEY", "not set"]),
        ("OPENAI_API_KEY", "sk-\u00e9", ["OPENAI_API_KEY", "printable ASCII"]),
        ("OPENAI_API_KEY", "sk-a\nb", ["OPENAI_API_KEY", "printable ASCII"]),
        ("OPENAI_MODEL", None, ["OPENAI_MODEL", "not set", "model"]),
        ("OPENAI_BASE_URL", "", ["OPENAI_BASE_URL", "http"]),
        ("OPENAI_BASE_URL", "localhost:8000/v1", ["OPENAI_BASE_URL", "http"]),
        ("OPENAI_BASE_URL", "ftp://host/v1", ["OPENAI_BASE_URL", "http"]),
        ("OPENAI_BASE_URL", "http://[::1/v1", ["OPENAI_BASE_URL", "http"]),
    ],
)
def test_what_the_environment_has_to_say(
    endpoint: Endpoint,
    spear: Spear,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str | None,
    parts: list[str],
) -> None:
    monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
    refuse_untouched(spear, asking(tmp_path), *parts)
    assert endpoint.asked == []


def test_without_the_package(endpoint: Endpoint, spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    refuse_untouched(spear, asking(tmp_path), "needs the package openai", "pip install openai")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{values} {last_bin}", "missing is {steps}"),
        ("none", "missing is {values}, missing is {last_bin}, missing is {steps}"),
        ("{values} {last_bin} {steps} {time}", "unknown is {time}"),
        (None, "cannot be read"),
    ],
)
def test_templates_that_cannot_be_used(
    endpoint: Endpoint, spear: Spear, tmp_path: Path, text: str | None, part: str
) -> None:
    own = tmp_path / "own.txt"
    if text is not None:
        own.write_text(text)
    refuse_untouched(spear, asking(tmp_path, {"zero_shot.template": own}), "config.zero_shot.template", own, part)
    assert endpoint.asked == []


def test_costs(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    prices = {"zero_shot.price_in": 1000.0, "zero_shot.price_out": 2000.0}
    limit = {"zero_shot.most_cost": 1.0}
    refuse_untouched(spear, asking(tmp_path, limit), "config.zero_shot.most_cost=1", "price_in")
    refuse_untouched(spear, asking(tmp_path, {**prices, **limit}, "dear"), "config.zero_shot.most_cost=1", "estimated")
    assert endpoint.asked == []
    allowed = spear(*asking(tmp_path, {**prices, "zero_shot.most_cost": 1000.0}, "allowed"))
    assert allowed.code == 0
    (line,) = [line for line in allowed.out.splitlines() if "to ask" in line]
    tokens_in, tokens_out, cost = re.findall(r"tokens ([\d,]+) in, ([\d,]+) out, cost ([\d.]+)", line)[0]
    written = sum(len(text) for _, text in endpoint.asked)
    assert int(tokens_in.replace(",", "")) == written // 4
    expected = (int(tokens_in.replace(",", "")) * 1000 + int(tokens_out.replace(",", "")) * 2000) / 1e6
    assert float(cost) == pytest.approx(expected, rel=1e-3)
    # What is answered costs nothing again.
    assert spear(*asking(tmp_path, {**prices, **limit}, "cached")).code == 0


def test_a_cache_that_is_a_file(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    refuse_untouched(spear, asking(tmp_path), "config.zero_shot.cache", "is a file")


# --- Answers ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"anomalies": []}', []),
        ('{"anomalies": [{"start": 0, "end": 9, "confidence": 1}]}', [Anomaly(0, 9, 1)]),
        ('```json\n{"anomalies": [{"start": 2, "end": 2, "confidence": 0.5}]}\n```', [Anomaly(2, 2, 0.5)]),
        ('The form is {"anomalies": [1]} {but} so: {"anomalies": [], "note": "{"} {end}', []),
        ("", None),
        ("[]", None),
        ("null", None),
        ("{}", None),
        ('{"anomalies": {}}', None),
        ('{"anomalies": [[0, 1, 0.5]]}', None),
        ('{"anomalies": [{"start": 0, "end": 9}]}', None),
        ('{"anomalies": [{"start": 0, "end": 10, "confidence": 1}]}', None),
        ('{"anomalies": [{"start": -1, "end": 1, "confidence": 1}]}', None),
        ('{"anomalies": [{"start": 3, "end": 2, "confidence": 1}]}', None),
        ('{"anomalies": [{"start": 0, "end": 1.5, "confidence": 1}]}', None),
        ('{"anomalies": [{"start": false, "end": true, "confidence": 1}]}', None),
        ('{"anomalies": [{"start": "0", "end": "1", "confidence": 1}]}', None),
        ('{"anomalies": [{"start": 0, "end": 1, "confidence": 1.01}]}', None),
        ('{"anomalies": [{"start": 0, "end": 1, "confidence": NaN}]}', None),
        ('{"anomalies": [{"start": 0, "end": 1, "confidence": true}]}', None),
        ('{"anomalies": [{"start": 0, "end": 1, "confidence": 0.5}', None),
        ('{"a":' * 20_000, None),
    ],
)
def test_answers_are_read_or_refused(text: str, expected: list[Anomaly] | None) -> None:
    assert parse_answer(text, 10) == expected
