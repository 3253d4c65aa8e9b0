"""Scores windows by asking a chat model at an OpenAI-compatible endpoint, one question per window, without training.

The paper uses models of the GPT-4 class as such a baseline but does not give the prompt, so the prompt is our own
(templates/api.txt). It shows a window as the bins that all other methods read. The model answers with intervals and a
confidence for each; a step's score is the highest confidence among the intervals that contain it, else 0.

Each valid answer is cached at once, under a hash of the complete request. A run that was stopped asks only the
remaining questions, and equal windows are asked about once.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import Float, Int
from ml_collections import ConfigDict
from tqdm import tqdm

from spear_jax import parallel
from spear_jax.data import Dataset, StepScores, stitch_splits
from spear_jax.errors import InputError, plain
from spear_jax.evaluation import RunRecord
from spear_jax.methods.chat_client import ChatClient
from spear_jax.methods.implementations import ScoreFunction
from spear_jax.methods.prompt_templates import fill_in, read_template
from spear_jax.storage import read_sealed, sealed, write_whole

PLACEHOLDERS = ("values", "last_bin", "steps")
CHARACTERS_PER_TOKEN = 4  # only for the cost estimate
TOKENS_PER_ANSWER = 60


class Anomaly(NamedTuple):
    """An interval of a window, both ends inclusive, and the model's confidence in it."""

    start: int
    end: int
    confidence: float


class _Answer(NamedTuple):
    """A valid answer, and the model's name as the endpoint reports it."""

    model: str
    anomalies: list[Anomaly]


class _Question(NamedTuple):
    """A window as text, and the file that caches its answer."""

    text: str
    steps: int
    file: epath.Path


@dataclasses.dataclass(frozen=True)
class _Survey:
    """All questions to one model, and the cached answers.

    Attributes:
      client: client of the model.
      template: template of the questions.
      questions: one question per window, by split; equal windows share one.
      answers: cached answers, by file.
      unanswered: the other questions, without duplicates.
    """

    client: ChatClient
    template: str
    questions: Mapping[str, list[_Question]]
    answers: dict[epath.Path, _Answer]
    unanswered: list[_Question]

    @property
    def tokens(self) -> tuple[int, int]:
        """Estimates the tokens of the unanswered questions and of their answers."""
        characters = sum(len(question.text) for question in self.unanswered)
        return characters // CHARACTERS_PER_TOKEN, TOKENS_PER_ANSWER * len(self.unanswered)

    def cost(self, fields: ConfigDict) -> float:
        """Estimates the cost of the unanswered questions; 0 without prices."""
        tokens_in, tokens_out = self.tokens
        return float(tokens_in * fields.price_in + tokens_out * fields.price_out) / 1e6


def start_zero_shot_api(config: ConfigDict, dataset: Dataset, record: RunRecord) -> ScoreFunction:
    """Prepares a question per window, and checks everything that can be checked before the first request.

    config.zero_shot.model, OPENAI_API_KEY and OPENAI_BASE_URL name the model.

    Returns:
      A function that asks the model and returns scores in [0, 1]. It raises InputError if the endpoint rejects the key,
      the model or the question, and ConnectionError if it is unreachable after all retries; earlier answers are kept.

    Raises:
      InputError: openai is not installed, an environment variable is missing, the template or the cache cannot be used,
        these data must not go to that host, or the estimated cost is too high.
    """
    survey = _prepare(config, dataset)

    def score() -> dict[str, StepScores]:
        _announce(config, survey)
        answers = {**survey.answers, **_ask_all(config, survey)}
        record.warnings += _warnings(config, survey, answers)
        scores = {}
        for split, questions in survey.questions.items():
            scores[split] = np.zeros(dataset.examples[split].bins.shape, np.float32)
            for row, question in enumerate(questions):
                if question.file in answers:
                    _mark(scores[split][row], answers[question.file].anomalies)
        return stitch_splits(dataset, scores)

    return score


def _mark(scores: Float[np.ndarray, "time"], anomalies: list[Anomaly]) -> None:
    """Raises the scores of the steps in each anomaly to its confidence, in place."""
    for start_, end, confidence in anomalies:
        steps = scores[start_ : end + 1]
        np.maximum(steps, confidence, out=steps)


def _prepare(config: ConfigDict, dataset: Dataset) -> _Survey:
    """Runs all checks, writes the questions and reads the cached answers."""
    fields = config.zero_shot
    if jax.process_count() > 1:
        raise InputError(
            f"config.method='zero_shot_api' in {jax.process_count()} processes: needs a single one, or each would ask"
            " every question; use --distributed=off"
        )
    client = ChatClient(fields.model, fields.requests_per_minute)
    if config.data.name == "mimic_iv" and not client.is_local:
        raise InputError(
            f"OPENAI_BASE_URL: is at {client.host}; MIMIC-IV's data use agreement forbids passing on records, so"
            " config.data.name='mimic_iv' only allows a model on this machine (localhost, 127.0.0.0/8, ::1)"
        )
    template = read_template(fields.template, "api.txt", PLACEHOLDERS)
    cache = epath.Path(fields.cache or "~/.cache/spear_jax/zero_shot").expanduser()
    if cache.exists() and not cache.is_dir():
        raise InputError(f"config.zero_shot.cache={fields.cache!r}: is a file; it must be a new or existing folder")

    def ask(bins: Int[np.ndarray, "time"]) -> _Question:
        text = _question_text(template, bins, dataset.quantizer.bins)
        digest = hashlib.sha256(json.dumps(client.identity(text), sort_keys=True).encode()).hexdigest()
        return _Question(text, len(bins), cache / f"{digest}.json")

    questions = {
        split: [
            ask(bins[:length])
            for bins, length in zip(examples.bins, dataset.windows[split].lengths.tolist(), strict=True)
        ]
        for split, examples in dataset.examples.items()
    }
    distinct = {question.file: question for split_questions in questions.values() for question in split_questions}
    cached = {file: _read_cached(question) for file, question in distinct.items()}
    answers = {file: answer for file, answer in cached.items() if answer is not None}
    unanswered = [question for file, question in distinct.items() if file not in answers]
    survey = _Survey(client, template, questions, answers, unanswered)
    if fields.most_cost and survey.cost(fields) > fields.most_cost:
        raise InputError(
            f"config.zero_shot.most_cost={fields.most_cost:g}: the estimated cost is {survey.cost(fields):.4g}, for"
            f" {len(unanswered)} questions; raise the limit, score fewer windows (data.limit_series), or use 0 for no"
            " limit"
        )
    return survey


def _question_text(template: str, bins: Int[np.ndarray, "time"], missing: int) -> str:
    values = {
        "values": ",".join("?" if number == missing else str(number) for number in bins.tolist()),
        "last_bin": str(missing - 1),
        "steps": str(len(bins)),
    }
    return fill_in(template, values)


def _announce(config: ConfigDict, survey: _Survey) -> None:
    """Prints the number of questions to ask, and their estimated cost."""
    fields, (tokens_in, tokens_out) = config.zero_shot, survey.tokens
    windows = sum(map(len, survey.questions.values()))
    cached, unanswered = len(survey.answers), len(survey.unanswered)
    cost = "cost unknown without zero_shot.price_in and price_out"
    if fields.price_in or fields.price_out:
        cost = f"cost {survey.cost(fields):.4g} at {fields.price_in:g} and {fields.price_out:g} per million tokens"
    parallel.say(
        f"zero-shot, API: {survey.client.model} at {survey.client.host}: {windows:,} windows,"
        f" {cached + unanswered:,} different questions, {cached:,} of them cached; {unanswered:,} to ask,"
        f" estimated tokens {tokens_in:,} in, {tokens_out:,} out, {cost}"
        f" (estimates: {CHARACTERS_PER_TOKEN} characters per token, {TOKENS_PER_ANSWER} tokens per answer)"
    )


def _ask_all(config: ConfigDict, survey: _Survey) -> dict[epath.Path, _Answer]:
    """Asks the unanswered questions, several at a time; a question without a valid answer is left out."""
    answers: dict[epath.Path, _Answer] = {}
    if not survey.unanswered:
        return answers
    survey.unanswered[0].file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(config.zero_shot.parallel) as pool:
        futures = {
            pool.submit(_ask, survey.client, question, config.zero_shot.attempts): question
            for question in survey.unanswered
        }
        try:
            done = concurrent.futures.as_completed(futures)
            for future in tqdm(done, "zero_shot_api", len(futures), unit="question", disable=None, leave=False):
                answer = future.result()
                if answer is not None:
                    answers[futures[future].file] = answer
        except BaseException:
            survey.client.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return answers


def _ask(client: ChatClient, question: _Question, attempts: int) -> _Answer | None:
    """Asks until an answer is valid, and caches it; returns None if no attempt succeeds."""
    for _ in range(attempts):
        answer = _read_completion(client.complete(question.text), question.steps)
        if answer is not None:
            _cache(question, answer)
            return answer
    return None


def _read_completion(body: str, steps: int) -> _Answer | None:
    """Returns the answer in a chat completion; None if it is malformed."""
    try:
        completion = json.loads(body)
        content = completion["choices"][0]["message"]["content"]
        model = plain(" ".join(str(completion.get("model", "")).split())[:100])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    anomalies = parse_answer(content, steps) if isinstance(content, str) else None
    return None if anomalies is None else _Answer(model, anomalies)


def parse_answer(text: str, steps: int) -> list[Anomaly] | None:
    """Parses a model's answer.

    Args:
      text: a JSON object, with any text or code fences around it. Of several objects, the last one with the key
        'anomalies' counts, since a model may think aloud or repeat the form first.
      steps: steps in the window.

    Returns:
      The anomalies; None if the answer does not have the requested form, or an interval is outside the window.
    """
    decoder, answer, position = json.JSONDecoder(), None, text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            end = position + 1
        else:
            answer = value if "anomalies" in value else answer
        position = text.find("{", end)
    return _anomalies(answer, steps)


def _anomalies(value: Any, steps: int) -> list[Anomaly] | None:
    items = value.get("anomalies") if isinstance(value, dict) else None
    if not isinstance(items, list):
        return None
    anomalies = []
    for item in items:
        if not isinstance(item, dict):
            return None
        fields: list[Any] = [item.get(field) for field in Anomaly._fields]
        first, last, confidence = fields
        # Not isinstance, since it accepts true and false as integers.
        if type(first) is not int or type(last) is not int or type(confidence) not in (int, float):
            return None
        if not (0 <= first <= last < steps and 0 <= confidence <= 1):
            return None
        anomalies.append(Anomaly(first, last, confidence))
    return anomalies


def _cache(question: _Question, answer: _Answer) -> None:
    content = {"model": answer.model, "anomalies": [anomaly._asdict() for anomaly in answer.anomalies]}
    # A parallel run with the same question may write the same file at the same time.
    with contextlib.suppress(FileNotFoundError):
        write_whole(question.file, json.dumps(sealed(content)))


def _read_cached(question: _Question) -> _Answer | None:
    """Returns a cached answer; None if there is none or its file is damaged."""
    try:
        content = read_sealed(question.file)
    except InputError:
        return None
    anomalies, model = _anomalies(content, question.steps), content.get("model")
    return None if anomalies is None or not isinstance(model, str) else _Answer(model, anomalies)


def _warnings(config: ConfigDict, survey: _Survey, answers: Mapping[epath.Path, _Answer]) -> list[str]:
    """Returns warnings that name the model, and count the windows without an answer."""
    names = sorted({answer.model for answer in answers.values()} - {""})
    template = config.zero_shot.template or "templates/api.txt"
    digest = hashlib.sha256(survey.template.encode()).hexdigest()[:12]
    warnings = [
        f"method='zero_shot_api': scores are the answers of OPENAI_MODEL={survey.client.model!r} at"
        f" {survey.client.host} (which calls itself {', '.join(names) or 'nothing'}) to the prompt {template} (sha256"
        f" {digest}), which is not the paper's; they say nothing about other models, GPT-4 or not"
    ]
    windows = [question for split_questions in survey.questions.values() for question in split_questions]
    without = sum(question.file not in answers for question in windows)
    if without:
        warnings.append(
            f"{without:,} of {len(windows):,} windows got no valid answer in {config.zero_shot.attempts} attempts and"
            " score 0"
        )
    return warnings
