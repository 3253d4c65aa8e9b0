"""A chat model behind an OpenAI-compatible endpoint as a detector: a question per window, no training, no labels.

The paper names models of the GPT-4 class as such a baseline and gives no prompt, so the prompt is ours
(templates/api.txt). It shows a window as the bins that every other method reads. The model answers with intervals and a
confidence for each; a step's score is the largest confidence of the intervals that it lies in, else 0.

Each valid answer becomes a file at once, named by all that the question consisted of. A run that was stopped or killed
at any moment asks for the rest only, and equal windows are asked for once.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib.resources
import ipaddress
import json
import os
import re
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import numpy as np
from etils import epath
from jaxtyping import Float, Int
from ml_collections import ConfigDict
from tqdm import tqdm

from spear_jax import parallel
from spear_jax.data import Dataset
from spear_jax.errors import InputError
from spear_jax.storage import write_whole

if TYPE_CHECKING:
    import openai


TIMEOUT_SECONDS = 180.0  # until an answer is there; a model on a CPU takes its time


MAX_RETRIES = 8  # of one request, after 0.5, 1, 2, 4 and from then on 8 s, or when the endpoint says


PARAMETERS: dict[str, Any] = {"temperature": 0, "response_format": {"type": "json_object"}}


PLACEHOLDERS = ("values", "last_bin", "steps")


CHARACTERS_PER_TOKEN = 4  # for the estimate alone


TOKENS_PER_ANSWER = 60


class Anomaly(NamedTuple):
    """An interval of a window, both ends included, and the model's confidence in it."""

    start: int
    end: int
    confidence: float


class _Answer(NamedTuple):
    """What was answered, and by whom in the endpoint's own words."""

    model: str
    anomalies: list[Anomaly]


class _Question(NamedTuple):
    """A window as text, and where its answer is kept."""

    text: str
    steps: int
    file: epath.Path


_Answers: TypeAlias = dict[epath.Path, _Answer]


@dataclasses.dataclass(frozen=True)
class _Task:
    """All that is to be asked, of whom.

    Attributes:
      client: speaks to the endpoint.
      pace: when it may.
      model: that is asked for.
      template: that the questions are made from.
      questions: one per window, by split; equal windows have equal ones.
      answers: what the cache knows.
      tokens: of the other questions and their answers, an estimate.
      cost: of these tokens; 0 where there are no prices.
    """

    client: "openai.OpenAI"
    pace: "_Pace"
    model: str
    template: str
    questions: dict[str, list[_Question]]
    answers: _Answers
    tokens: tuple[int, int]
    cost: float

    @property
    def unanswered(self) -> list[_Question]:
        """The questions whose answers are not known, each once."""
        every = {one.file: one for asked in self.questions.values() for one in asked}
        return [one for file, one in every.items() if file not in self.answers]


class _StoppedError(Exception):
    """The run ends, so no further request is made."""


class _Pace:
    """Requests one after the other in equal steps, whichever thread makes them, retries among them."""

    def __init__(self, per_minute: int) -> None:
        self.stopped = threading.Event()
        self._interval = 60 / per_minute
        self._next = 0.0
        self._lock = threading.Lock()

    def __call__(self, request: object) -> None:
        """Waits for the request's turn; called by the HTTP client right before it is sent.

        Raises:
          _StoppedError: there is no turn any more.
        """
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        if self.stopped.wait(turn - now):
            raise _StoppedError


def check_zero_shot_api(config: ConfigDict, dataset: Dataset) -> None:
    """Refuses what can be refused before the first request.

    Args:
      config: a whole config.
      dataset: what is to be scored.

    Raises:
      InputError: openai is not installed, a variable of the environment is missing, the template or the cache cannot be
        used, these data must not go to that host, or the estimated cost is too high.
    """
    _prepare(config, dataset)


def zero_shot_api(
    config: ConfigDict, dataset: Dataset
) -> tuple[dict[str, Float[np.ndarray, "windows time"]], list[str]]:
    """Asks about every window of every split.

    config.zero_shot.model (see `take_environment`), and OPENAI_API_KEY and OPENAI_BASE_URL in the environment say who
    is asked.

    Args:
      config: a whole config.
      dataset: what is scored; its labels are not read.

    Returns:
      A score per step by split, in [0, 1], and what the results have to say about them.

    Raises:
      InputError: see `check_zero_shot_api`; or the endpoint refuses the key, the model or the question.
      ConnectionError: the endpoint is not to be reached, or busy, for longer than it is retried; answers are kept.
    """
    task = _prepare(config, dataset)
    _announce(config, task)
    answers = {**task.answers, **_ask_all(config, task)}
    scores = {}
    for split, questions in task.questions.items():
        scores[split] = np.zeros(dataset.examples[split].bins.shape, np.float32)
        for row, question in enumerate(questions):
            for start, end, confidence in answers[question.file].anomalies if question.file in answers else ():
                here = scores[split][row, start : end + 1]
                np.maximum(here, confidence, out=here)
    return scores, _warnings(config, task, answers)


def _prepare(config: ConfigDict, dataset: Dataset) -> _Task:
    """All checks, the questions, and the answers that are known."""
    fields = config.zero_shot
    if jax.process_count() > 1:
        raise InputError(
            f"config.method='zero_shot_api' in {jax.process_count()} processes: needed is one, or each would ask"
            " everything; use --distributed=off"
        )
    pace = _Pace(fields.requests_per_minute)
    client = _connect(pace)
    host = client.base_url.host
    if config.data.name == "mimic_iv" and not _is_local(host):
        raise InputError(
            f"OPENAI_BASE_URL: is at {host}; MIMIC-IV's data use agreement forbids passing on records, so for"
            " config.data.name='mimic_iv' allowed is a model on this host (localhost, 127.0.0.0/8, ::1)"
        )
    model = _printable("OPENAI_MODEL", fields.model, "the name of a model, as the endpoint knows it")
    template = _template(config)
    cache = epath.Path(fields.cache or "~/.cache/spear_jax/zero_shot").expanduser()
    if cache.exists() and not cache.is_dir():
        raise InputError(f"config.zero_shot.cache={fields.cache!r}: is a file; needed is a folder, or none yet")

    def ask(bins: Int[np.ndarray, "time"]) -> _Question:
        text = _fill_in(template, bins, dataset.quantizer.bins)
        said = {"base_url": str(client.base_url), **_request(model, text)}
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        return _Question(text, len(bins), cache / f"{digest}.json")

    questions = {
        split: [
            ask(bins[:length])
            for bins, length in zip(examples.bins, dataset.windows[split].lengths.tolist(), strict=True)
        ]
        for split, examples in dataset.examples.items()
    }
    every = {one.file: one for asked in questions.values() for one in asked}
    known = {file: _read(one) for file, one in every.items()}
    answers = {file: answer for file, answer in known.items() if answer is not None}
    left = [one for file, one in every.items() if file not in answers]
    tokens = sum(len(one.text) for one in left) // CHARACTERS_PER_TOKEN, TOKENS_PER_ANSWER * len(left)
    cost = (tokens[0] * fields.price_in + tokens[1] * fields.price_out) / 1e6
    if fields.most_cost and cost > fields.most_cost:
        raise InputError(
            f"config.zero_shot.most_cost={fields.most_cost:g}: the estimated cost is {cost:.4g}, for {len(left)}"
            " questions; allowed is a higher limit, fewer windows (data.limit_series), or 0 for no limit"
        )
    return _Task(client, pace, model, template, questions, answers, tokens, cost)


def _printable(name: str, value: str, needed: str) -> str:
    # What cannot stand in an HTTP header would come back in the HTTP client's own error, the key with it.
    if not value or not (value.isascii() and value.isprintable()):
        state = "has characters other than printable ASCII" if value else "is not set in the environment"
        raise InputError(f"{name}: {state}; config.method='zero_shot_api' needs {needed}")
    return value


def _connect(pace: _Pace) -> "openai.OpenAI":
    """The client of the endpoint that the environment names."""
    try:
        import openai
    except ImportError as fault:
        raise InputError(
            "config.method='zero_shot_api' needs the package openai: pip install openai, or '.[api]' in a checkout"
        ) from fault
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    key = _printable("OPENAI_API_KEY", key, "the endpoint's key (any word where it asks for none)")
    timeout = openai.Timeout(TIMEOUT_SECONDS, connect=min(TIMEOUT_SECONDS, 10.0))
    try:
        client = openai.OpenAI(api_key=key, timeout=timeout, max_retries=MAX_RETRIES)
        url = client.base_url
    except Exception as fault:  # whatever the HTTP library of openai's release says of a URL that is none
        raise InputError(f"OPENAI_BASE_URL: cannot be used ({' '.join(str(fault).split())}); {_URLS}") from fault
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError(f"OPENAI_BASE_URL: names no host; {_URLS}")
    # Data and key go to this host alone: no redirect is followed, and what stays on this machine passes no proxy.
    transport = openai.DefaultHttpxClient(
        timeout=timeout,
        follow_redirects=False,
        trust_env=not _is_local(url.host),
        event_hooks={"request": [pace]},
    )
    return client.with_options(http_client=transport)


_URLS = "needed is http://HOST/... or https://..., or no such variable for the default of openai"


def _is_local(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _template(config: ConfigDict) -> str:
    """The prompt with its placeholders."""
    given = config.zero_shot.template
    if not given:
        return (importlib.resources.files("spear_jax.methods") / "templates" / "api.txt").read_text("utf-8")
    try:
        template = epath.Path(given).expanduser().read_text()
    except (OSError, ValueError) as fault:
        raise InputError(f"config.zero_shot.template={given!r}: cannot be read ({fault})") from fault
    found = set(_PLACEHOLDER.findall(template))
    wrong = [f"unknown is {{{name}}}" for name in sorted(found - set(PLACEHOLDERS))]
    wrong += [f"missing is {{{name}}}" for name in PLACEHOLDERS if name not in found]
    if wrong:
        needed = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise InputError(f"config.zero_shot.template={given!r}: {', '.join(wrong)}; needed are {needed}")
    return template


_PLACEHOLDER = re.compile(r"\{(\w+)\}")  # so that the braces of JSON may stand as they are


def _fill_in(template: str, bins: Int[np.ndarray, "time"], missing: int) -> str:
    filling = {
        "values": ",".join("?" if one == missing else str(one) for one in bins.tolist()),
        "last_bin": str(missing - 1),
        "steps": str(len(bins)),
    }
    return _PLACEHOLDER.sub(lambda found: filling[found[1]], template)


def _request(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **PARAMETERS}


def _announce(config: ConfigDict, task: _Task) -> None:
    """Says what is about to be asked, and about what it costs."""
    fields, left = config.zero_shot, task.unanswered
    windows = sum(map(len, task.questions.values()))
    cost = "cost unknown without zero_shot.price_in and price_out"
    if fields.price_in or fields.price_out:
        cost = f"cost {task.cost:.4g} at {fields.price_in:g} and {fields.price_out:g} per million tokens"
    parallel.say(
        f"zero-shot, API: {task.model} at {task.client.base_url.host}: {windows:,} windows,"
        f" {len(task.answers) + len(left):,} different questions, {len(task.answers):,} of them cached;"
        f" {len(left):,} to ask, estimated tokens {task.tokens[0]:,} in, {task.tokens[1]:,} out, {cost}"
        f" (estimates: {CHARACTERS_PER_TOKEN} characters per token, {TOKENS_PER_ANSWER} tokens per answer)"
    )


def _ask_all(config: ConfigDict, task: _Task) -> _Answers:
    """Asks what the cache does not know, several at a time."""
    left, found = task.unanswered, {}
    if not left:
        return {}
    left[0].file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(config.zero_shot.parallel) as pool:
        asked = {pool.submit(_ask, task, one, config.zero_shot.attempts): one for one in left}
        try:
            done = concurrent.futures.as_completed(asked)
            for future in tqdm(done, "zero_shot_api", len(asked), unit="question", disable=None, leave=False):
                answer = future.result()
                if answer is not None:
                    found[asked[future].file] = answer
        except BaseException:
            task.pace.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def _ask(task: _Task, question: _Question, attempts: int) -> _Answer | None:
    """The answer to one question, which is kept; None where none of the attempts gives a valid one."""
    import openai

    create = task.client.chat.completions.with_raw_response.create
    for _ in range(attempts):
        try:
            response = create(**_request(task.model, question.text))
        except openai.APIStatusError as fault:
            raise _refusal(task, fault) from fault
        except openai.APIConnectionError as fault:  # time-outs are among them
            reason = fault.__cause__ or fault
            raise ConnectionError(
                f"{task.client.base_url.host}: no answer after {MAX_RETRIES + 1} requests"
                f" ({type(reason).__name__}: {_shown(task, str(reason))}); what was answered is kept"
            ) from fault
        answer = _read_completion(response.http_response.text, question.steps)
        if answer is not None:
            _keep(question, answer)
            return answer
    return None


def _refusal(task: _Task, fault: "openai.APIStatusError") -> Exception:
    """What ends the run when the endpoint answers with an error, after all retries."""
    status, host, response = fault.status_code, task.client.base_url.host, fault.response
    # A server may quote the key, which some do in part, when it refuses it.
    said = "" if status == 401 else f" ({_shown(task, fault.message)})"
    if status in (408, 409, 429) or status >= 500:
        return ConnectionError(f"{host} answers {status} after retries{said}; what was answered is kept")
    if 300 <= status < 400:
        to = response.next_request.url.host if response.next_request else "nowhere"
        return InputError(
            f"OPENAI_BASE_URL: {host} answers {status}, a redirect to {to}; allowed is an endpoint that answers itself,"
            " for redirects are not followed with data"
        )
    what = {
        401: "OPENAI_API_KEY: needed is a key that the endpoint takes",
        403: "OPENAI_API_KEY: needed is a key that may use the model",
        404: f"OPENAI_MODEL={task.model!r} or OPENAI_BASE_URL: needed are a model and an address that exist",
    }.get(status, "OPENAI_MODEL, config.zero_shot.template: needed are a model and a question that the endpoint takes")
    return InputError(f"{what}; {host} answers {status}{said}")


def _shown(task: _Task, text: str) -> str:
    """Foreign text in one line, without the key."""
    return " ".join(text.replace(task.client.api_key, "***").split())[:300]


def _read_completion(body: str, steps: int) -> _Answer | None:
    """The answer in a chat completion; None where it is malformed."""
    try:
        completion = json.loads(body)
        content = completion["choices"][0]["message"]["content"]
        model = " ".join(str(completion.get("model", "")).split())[:100]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    anomalies = parse_answer(content, steps) if isinstance(content, str) else None
    return None if anomalies is None else _Answer(model, anomalies)


def parse_answer(text: str, steps: int) -> list[Anomaly] | None:
    """Reads what a model answered.

    Args:
      text: should be a JSON object; fences and text around it do not matter. Of several, the last one counts that has
        'anomalies': before it a model may think aloud, or repeat the form.
      steps: of the window.

    Returns:
      The anomalies; None where the answer is not of the form that was asked for, or leaves the window.
    """
    decoder, found, at = json.JSONDecoder(), None, text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            found = value if "anomalies" in value else found
        at = text.find("{", end)
    return _anomalies(found, steps)


def _anomalies(value: Any, steps: int) -> list[Anomaly] | None:
    items = value.get("anomalies") if isinstance(value, dict) else None
    if not isinstance(items, list):
        return None
    anomalies = []
    for item in items:
        if not isinstance(item, dict):
            return None
        fields: list[Any] = [item.get(field) for field in Anomaly._fields]
        start, end, confidence = fields
        if type(start) is not int or type(end) is not int or type(confidence) not in (int, float):
            return None
        if not (0 <= start <= end < steps and 0 <= confidence <= 1):
            return None
        anomalies.append(Anomaly(start, end, confidence))
    return anomalies


def _keep(question: _Question, answer: _Answer) -> None:
    content = {"model": answer.model, "anomalies": [one._asdict() for one in answer.anomalies]}
    # Another run with the same question may have moved the same file into its place just now.
    with contextlib.suppress(FileNotFoundError):
        write_whole(question.file, json.dumps(content).encode())


def _read(question: _Question) -> _Answer | None:
    """A kept answer; None where there is none or it is damaged."""
    try:
        content = json.loads(question.file.read_text())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    anomalies = _anomalies(content, question.steps)
    model = content.get("model") if isinstance(content, dict) else None
    return None if anomalies is None or not isinstance(model, str) else _Answer(model, anomalies)


def _warnings(config: ConfigDict, task: _Task, answers: _Answers) -> list[str]:
    """Who answered what, and what nobody did."""
    names = sorted({answer.model for answer in answers.values()} - {""})
    template = config.zero_shot.template or "templates/api.txt"
    digest = hashlib.sha256(task.template.encode()).hexdigest()[:12]
    said = [
        f"method='zero_shot_api': scores are what OPENAI_MODEL={task.model!r} at {task.client.base_url.host} answered"
        f" (it calls itself {', '.join(names) or 'nothing'}) to the prompt {template} (sha256 {digest}), which is not"
        " the paper's; they say nothing of other models, GPT-4 or not"
    ]
    windows = [one for asked in task.questions.values() for one in asked]
    without = sum(one.file not in answers for one in windows)
    if without:
        said.append(
            f"{without:,} of {len(windows):,} windows got no valid answer in {config.zero_shot.attempts} attempts and"
            " score 0"
        )
    return said
