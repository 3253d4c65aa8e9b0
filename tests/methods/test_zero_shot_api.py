"""Tests the chat model as a detector against a server that speaks the protocol and fails on demand."""

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
from spear_jax.data.sources import catalog, synthetic
from spear_jax.data.step_scores import stitch_splits
from spear_jax.methods import chat_client
from spear_jax.methods.zero_shot_api import Anomaly, parse_answer

pytestmark = pytest.mark.one_python

KEY = "sk-never-to-be-seen-0123456789"
MODEL = "test-model"
OTHER_MODEL = "other-model"
CALLED = "test-model-2026-01-01"
HOLE = "?"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers chat completions as the OpenAI API does, or with the endpoint's next fault."""

    protocol_version = "HTTP/1.1"
    server: "Endpoint"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.questions.append((time.monotonic(), body["messages"][0]["content"]))
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
        completion = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": CALLED,
            "choices": [choice],
        }
        self.send(200, json.dumps(completion))

    def send(self, status: int, text: str, headers: Mapping[str, str] | None = None, missing: int = 0) -> None:
        blob = text.encode()
        self.send_response(status)
        all_headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(blob) + missing),
            **(headers or {}),
        }
        for name, value in all_headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(blob)

    def log_message(self, *args: object) -> None:
        pass


Act: TypeAlias = Callable[[Handler, str], None]


def values_of(text: str) -> list[str]:
    """Returns the bins in a question."""
    (line,) = re.findall(r"^[\d?,]+$", text, re.MULTILINE)
    return line.split(",")


def largest(text: str) -> str:
    """Flags the first of the highest bins, and the step before it with half the confidence."""
    bins = [-1 if value == HOLE else int(value) for value in values_of(text)]
    peak = int(np.argmax(bins))
    confidence = max(bins) / 200
    wider = {"start": max(peak - 1, 0), "end": peak, "confidence": confidence / 2}
    return json.dumps({"anomalies": [{"start": peak, "end": peak, "confidence": confidence}, wider]})


class Endpoint(http.server.ThreadingHTTPServer):
    """Records questions and their times; answers with the next of `faults`, then with `answer`."""

    daemon_threads = True

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.questions: list[tuple[float, str]] = []
        self.faults: list[Act] = []
        self.answer: Callable[[str], str] = largest
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that have given up; a wrong request shows in the client's outcome."""


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
    with serving() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.address)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_MODEL", MODEL)
        yield server


def asking(tmp_path: Path, fields: Mapping[str, object] | None = None, name: str = "run") -> tuple[str, ...]:
    """Returns the command of a run that asks about `WINDOWS` windows of 32 steps."""
    own = {"method": "zero_shot_api", "zero_shot.cache": tmp_path / "cache", "zero_shot.requests_per_minute": 60_000}
    own["data.synthetic.seed"] = 1  # whose windows all differ
    return quick(tmp_path / name, {**own, **(fields or {})})


WINDOWS = 48


def check_expected(arguments: tuple[str, ...]) -> None:
    """Checks that the scores are those of `largest` for each window."""
    flags = main.parse_flags(arguments)
    config = reading.load_config(flags.config)
    for field, text in flags.overrides.items():
        reading.override(config, field, text)
    dataset = build_dataset(config, sources.load_series(config))
    expected = {}
    for split, examples in dataset.examples.items():
        expected[split] = np.zeros(examples.bins.shape)
        for row, bins in enumerate(np.where(examples.bins == dataset.quantizer.bins, -1, examples.bins)):
            peak = bins.argmax()
            expected[split][row, max(peak - 1, 0)] = bins[peak] / 400
            expected[split][row, peak] = bins[peak] / 200
    for split, steps in stitch_splits(dataset, expected).items():
        table = pd.read_parquet(Path(flags.workdir) / "scores" / f"{split}.parquet")
        np.testing.assert_allclose(table["score"], steps.score, rtol=1e-6)


# --- Scores ----------------------------------------------------


def test_a_second_run_answers_from_the_cache(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    outcome = spear(*asking(tmp_path))
    assert outcome.code == 0, outcome.err
    assert len(endpoint.questions) == WINDOWS
    check_expected(asking(tmp_path))
    check_scores(tmp_path / "run")
    content = results(tmp_path / "run")
    assert content["method"] == "zero_shot_api"
    assert content["backbone"] == {}
    (warning,) = [line for line in content["warnings"] if "zero_shot_api" in line]
    for part in (MODEL, CALLED, "127.0.0.1", "not the paper's", "GPT-4"):
        assert part in warning
    assert f"WARNING: {warning}" in outcome.out
    assert f"{WINDOWS} windows, {WINDOWS} different questions, 0 of them cached; {WINDOWS} to ask" in outcome.out
    assert "estimate" in outcome.out
    assert "cost unknown" in outcome.out

    again = spear(*asking(tmp_path, name="again"))
    assert again.code == 0, again.err
    assert len(endpoint.questions) == WINDOWS
    assert f"{WINDOWS} of them cached; 0 to ask" in again.out
    assert results(tmp_path / "again")["test"] == content["test"]
    assert "this run is done" in spear(*asking(tmp_path, {"zero_shot.requests_per_minute": 7})).out


def test_the_question_shows_the_bins_and_the_form_of_the_answer(
    endpoint: Endpoint, spear: Spear, tmp_path: Path
) -> None:
    assert spear(*asking(tmp_path)).code == 0
    for _, text in endpoint.questions:
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
    bins = [values_of(text) for _, text in endpoint.questions]
    assert sorted(map(len, bins)) == list(range(20, 29))
    assert all(values[3] == HOLE and values.count(HOLE) == 1 for values in bins)


def test_equal_windows_are_asked_about_once(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    constant = {"data.synthetic.seed": 0}  # with a sensor that is constant for longer than a window
    outcome = spear(*asking(tmp_path, constant))
    assert outcome.code == 0, outcome.err
    assert len({text for _, text in endpoint.questions}) == len(endpoint.questions) < WINDOWS
    assert f"{WINDOWS} windows, {len(endpoint.questions)} different questions" in outcome.out
    check_expected(asking(tmp_path, constant))


def test_the_key_is_never_written(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
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
    assert all(text.startswith('Anything odd, {"of JSON": {}}? 32 steps, 0 to 99:') for _, text in endpoint.questions)
    assert str(own) in " ".join(results(tmp_path / "run")["warnings"])
    own.write_text(own.read_text() + "Please.")  # another question
    assert spear(*asking(tmp_path, {"zero_shot.template": own}, "other")).code == 0
    assert len(endpoint.questions) == 2 * WINDOWS


def test_the_default_cache_is_private(
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
    assert len(endpoint.questions) == 2 * WINDOWS
    monkeypatch.setenv("OPENAI_MODEL", OTHER_MODEL)
    check_refusal(spear(*asking(tmp_path)), "zero_shot.model", "'other-model' here")  # not the first one's numbers
    assert spear(*asking(tmp_path, name="third")).code == 0
    assert len(endpoint.questions) == 3 * WINDOWS


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


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(faults, id=name, marks=[pytest.mark.slow] if name in ("slow", "gone", "wrapped") else [])
        for name, faults in SURVIVED.items()
    ],
)
def test_faults_are_survived(
    endpoint: Endpoint, spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: list[Act]
) -> None:
    monkeypatch.setattr(chat_client, "TIMEOUT_SECONDS", 1.0)
    endpoint.faults = list(faults)
    outcome = spear(*asking(tmp_path))
    assert outcome.code == 0, outcome.err
    assert not endpoint.faults
    assert len(results(tmp_path / "run")["warnings"]) == 1
    again = 0 if faults is SURVIVED["wrapped"] else len(faults)
    assert len(endpoint.questions) == WINDOWS + again
    check_expected(asking(tmp_path))


def test_a_retry_waits_as_long_as_the_server_asks(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    endpoint.faults = [status(429, Retry_After="3")]
    assert spear(*asking(tmp_path)).code == 0
    first, second = (moment for moment, text in endpoint.questions if text == endpoint.questions[0][1])
    assert second - first >= 3


def test_a_window_without_a_valid_answer_scores_zero_and_is_counted(
    endpoint: Endpoint, spear: Spear, tmp_path: Path
) -> None:
    assert spear(*asking(tmp_path, name="reference")).code == 0
    (tmp_path / "cache").rename(tmp_path / "other")
    silent = {text for _, text in endpoint.questions[:5]}
    endpoint.questions.clear()
    endpoint.answer = lambda text: "no idea" if text in silent else largest(text)
    outcome = spear(*asking(tmp_path))
    assert outcome.code == 0, outcome.err
    assert len(endpoint.questions) == WINDOWS + 2 * 5
    warning = f"5 of {WINDOWS} windows got no valid answer in 3 attempts and score 0"
    assert warning in results(tmp_path / "run")["warnings"]
    assert warning in outcome.out
    for split in SPLITS:
        scores, reference = (
            pd.read_parquet(tmp_path / run / "scores" / f"{split}.parquet")["score"] for run in ("run", "reference")
        )
        assert set(scores[scores != reference]) <= {0.0}
    # They are not cached, so another run asks again.
    endpoint.questions.clear()
    assert spear(*asking(tmp_path, {"zero_shot.attempts": 1}, "again")).code == 0
    assert sorted(text for _, text in endpoint.questions) == sorted(silent)


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
    assert len(endpoint.questions) <= 4
    assert not (tmp_path / "run").exists()


def test_answers_are_kept_when_the_endpoint_breaks_down(
    endpoint: Endpoint, spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_client, "MAX_RETRIES", 1)
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
    endpoint.questions.clear()
    assert spear(*asking(tmp_path)).code == 0
    assert len(endpoint.questions) == WINDOWS - 10
    check_expected(asking(tmp_path))


def test_an_endpoint_out_of_reach(
    endpoint: Endpoint, spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_client, "MAX_RETRIES", 1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
        outcome = spear(*asking(tmp_path))
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "no answer after 2 requests" in outcome.err


@pytest.mark.slow
def test_a_killed_run_goes_on(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    arguments = asking(tmp_path, {"zero_shot.requests_per_minute": 300})
    run = subprocess.Popen([sys.executable, "-m", "spear_jax.main", *arguments], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "cache").glob("*.json"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    cached = len(list((tmp_path / "cache").glob("*.json")))
    assert 5 <= cached < WINDOWS
    endpoint.questions.clear()
    outcome = spear(*asking(tmp_path))
    assert outcome.code == 0, outcome.err
    assert len(endpoint.questions) == WINDOWS - cached
    assert f"{cached} of them cached; {WINDOWS - cached} to ask" in outcome.out
    check_expected(asking(tmp_path))


def test_damaged_answers_are_asked_for_again(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    assert spear(*asking(tmp_path)).code == 0
    endpoint.questions.clear()
    damage = [b"", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"model": "x"}', b'{"model": 1, "anomalies": []}']
    damage.append(b'{"model": "x", "anomalies": [{"start": 0, "end": 32, "confidence": 1}]}')
    for file, blob in zip(sorted((tmp_path / "cache").glob("*.json")), damage, strict=False):
        file.write_bytes(blob)
    assert spear(*asking(tmp_path, name="again")).code == 0
    assert len(endpoint.questions) == len(damage)
    check_expected(asking(tmp_path, name="again"))


def test_requests_keep_their_pace(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    endpoint.faults = [status(500)] * 3  # retries count too
    fields = {"zero_shot.requests_per_minute": 1200, "zero_shot.parallel": 8}  # 20 a second
    assert spear(*asking(tmp_path, fields)).code == 0
    times = np.array(sorted(moment for moment, _ in endpoint.questions))
    assert len(times) == WINDOWS + 3
    assert times[-1] - times[0] > 0.9 * (len(times) - 1) / 20
    assert max(np.sum((times >= start) & (times < start + 1)) for start in times) <= 24


def test_several_requests_are_in_flight(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    meeting = threading.Barrier(6, timeout=60)

    def together(text: str) -> str:
        meeting.wait()
        return largest(text)

    endpoint.answer = together
    assert spear(*asking(tmp_path, {"zero_shot.parallel": 6})).code == 0
    assert len(endpoint.questions) == WINDOWS


# --- Where data and key may go -------------------------------------------------


def test_no_redirect_is_followed(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    with serving() as other:
        endpoint.faults = [status(307, Location=f"{other.address}/chat/completions")] * 1000
        outcome = spear(*asking(tmp_path))
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    for part in ("OPENAI_BASE_URL", "307", "redirect"):
        assert part in outcome.err
    assert other.questions == []
    assert not (tmp_path / "run").exists()


def test_requests_to_this_host_bypass_the_proxy(
    endpoint: Endpoint, spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.address)
        assert spear(*asking(tmp_path)).code == 0
    assert proxy.questions == []
    assert len(endpoint.questions) == WINDOWS


@pytest.fixture
def mimic(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Returns the fields of a run on a stand-in for MIMIC-IV."""
    series = synthetic.generate_series(series=6, length=256, shortest=0, past=64, rate=0.1, seed=0)
    monkeypatch.setattr(catalog, "load_mimic_iv", lambda *_, **__: LoadedSeries("mimic_iv", series))
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
    monkeypatch.setattr(chat_client, "MAX_RETRIES", 0)
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.address.replace("127.0.0.1", host))
    outcome = spear(*asking(tmp_path, mimic))
    if host == "127.1.2.3":  # allowed, but the server listens at 127.0.0.1 alone
        assert outcome.code == 1
        assert "no answer" in outcome.err
        return
    assert outcome.code == 0, outcome.err
    assert endpoint.questions


# --- Refusals before any request --------------------


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
def test_an_unusable_environment_is_refused(
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
    assert endpoint.questions == []


def test_without_the_package(endpoint: Endpoint, spear: Spear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    refuse_untouched(spear, asking(tmp_path), "needs the package openai", "pip install openai")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{values} {last_bin}", "missing placeholder {steps}"),
        ("none", "missing placeholder {values}, missing placeholder {last_bin}, missing placeholder {steps}"),
        ("{values} {last_bin} {steps} {time}", "unknown placeholder {time}"),
        (None, "cannot be read"),
    ],
)
def test_an_unusable_template_is_refused(
    endpoint: Endpoint, spear: Spear, tmp_path: Path, text: str | None, part: str
) -> None:
    own = tmp_path / "own.txt"
    if text is not None:
        own.write_text(text)
    refuse_untouched(spear, asking(tmp_path, {"zero_shot.template": own}), "config.zero_shot.template", own, part)
    assert endpoint.questions == []


def test_costs_are_estimated_and_limited(endpoint: Endpoint, spear: Spear, tmp_path: Path) -> None:
    prices = {"zero_shot.price_in": 1000.0, "zero_shot.price_out": 2000.0}
    limit = {"zero_shot.most_cost": 1.0}
    check_refusal(spear(*asking(tmp_path, limit)), "config.zero_shot.most_cost=1", "price_in")
    refuse_untouched(
        spear, asking(tmp_path, {**prices, **limit}, "too_dear"), "config.zero_shot.most_cost=1", "estimated"
    )
    assert endpoint.questions == []
    allowed = spear(*asking(tmp_path, {**prices, "zero_shot.most_cost": 1000.0}, "allowed"))
    assert allowed.code == 0
    tokens_in, tokens_out, cost = re.findall(r"tokens ([\d,]+) in, ([\d,]+) out, cost ([\d.]+)", allowed.out)[0]
    characters = sum(len(text) for _, text in endpoint.questions)
    assert int(tokens_in.replace(",", "")) == characters // 4
    expected = (int(tokens_in.replace(",", "")) * 1000 + int(tokens_out.replace(",", "")) * 2000) / 1e6
    assert float(cost) == pytest.approx(expected, rel=1e-3)
    # Cached answers cost nothing.
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
