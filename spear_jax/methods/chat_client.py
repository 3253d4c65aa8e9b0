"""Queries a chat model at an OpenAI-compatible endpoint, at a limited rate.

The openai package does retries, backoff and timeouts; the rate limit is our own, since the package has none.
"""

import contextlib
import ipaddress
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from spear_jax.errors import InputError, one_line

if TYPE_CHECKING:
    import openai

TIMEOUT_SECONDS = 180.0  # for an answer, since models on a CPU are slow
MAX_RETRIES = 8  # of one request, after 0.5, 1, 2, 4 and from then on 8 s, or when the endpoint says
PARAMETERS: dict[str, Any] = {"temperature": 0, "response_format": {"type": "json_object"}}
URL_FORMS = "it must be http://HOST/... or https://..., or unset for openai's default"


class _StoppedError(Exception):
    """The run is ending, so no further request is sent."""


class _RateLimiter:
    """Sends requests, retries included, at equal intervals, whichever thread they come from."""

    def __init__(self, per_minute: int) -> None:
        self.stopped = threading.Event()
        self._interval = 60 / per_minute
        self._next = 0.0
        self._lock = threading.Lock()

    def __call__(self, request: object) -> None:
        """Waits for the request's turn; the HTTP client calls this just before it sends a request."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        if self.stopped.wait(turn - now):
            raise _StoppedError


class ChatClient:
    """A chat model at the endpoint given by OPENAI_BASE_URL and OPENAI_API_KEY."""

    def __init__(self, model: str, requests_per_minute: int) -> None:
        """Reads the environment, without sending a request.

        Raises:
          InputError: openai is not installed, or an environment variable is missing or cannot be used.
        """
        self._rate_limiter = _RateLimiter(requests_per_minute)
        self._client = _connect(self._rate_limiter)
        self.host = self._client.base_url.host
        self.model = _printable("OPENAI_MODEL", model, "the name of a model, as the endpoint knows it")

    @property
    def is_local(self) -> bool:
        """Returns whether the endpoint is on this machine."""
        return _is_local(self.host)

    def identity(self, text: str) -> dict[str, Any]:
        """Returns everything an answer depends on: the endpoint and the request."""
        return {"base_url": str(self._client.base_url), **self._request(text)}

    def complete(self, text: str) -> str:
        """Sends a request, with retries; returns the raw body of the response.

        Raises:
          InputError: the endpoint rejects the key, the model or the question.
          ConnectionError: the endpoint is unreachable or busy, after all retries.
        """
        import openai

        try:
            # Raw, since a proxy may answer with anything, and openai's own parser does not reject it.
            response = self._client.chat.completions.with_raw_response.create(**self._request(text))
        except openai.APIStatusError as error:
            raise self._refusal(error) from error
        except openai.APIConnectionError as error:  # includes timeouts
            reason = error.__cause__ or error
            raise ConnectionError(
                f"{self.host}: no answer after {MAX_RETRIES + 1} requests"
                f" ({type(reason).__name__}: {self._without_key(reason)}); earlier answers are kept"
            ) from error
        return response.http_response.text

    def stop(self) -> None:
        """Ends all waiting; no further requests are sent."""
        self._rate_limiter.stopped.set()

    def _request(self, text: str) -> dict[str, Any]:
        return {"model": self.model, "messages": [{"role": "user", "content": text}], **PARAMETERS}

    def _refusal(self, error: "openai.APIStatusError") -> Exception:
        """Returns the exception for an error status that remains after all retries."""
        status, response = error.status_code, error.response
        # A server that rejects a key may quote it, in full or in part.
        detail = "" if status == 401 else f" ({self._without_key(error)})"
        if status in (408, 409, 429) or status >= 500:
            return ConnectionError(f"{self.host} answers {status} after retries{detail}; earlier answers are kept")
        if 300 <= status < 400:
            target = response.next_request.url.host if response.next_request else "nowhere"
            return InputError(
                f"OPENAI_BASE_URL: {self.host} answers {status}, a redirect to {target}; redirects are not followed"
                " with data, give the address of the endpoint itself"
            )
        what = {
            401: "OPENAI_API_KEY: the endpoint does not accept the key",
            403: "OPENAI_API_KEY: the key may not use the model",
            404: f"OPENAI_MODEL={self.model!r} or OPENAI_BASE_URL: no such model or address",
        }.get(status, "OPENAI_MODEL, config.zero_shot.template: the endpoint does not accept model or question")
        return InputError(f"{what}; {self.host} answers {status}{detail}")

    def _without_key(self, error: BaseException) -> str:
        """Returns text from the endpoint as one line, with the key masked."""
        return one_line(error).replace(self._client.api_key, "***")


def _connect(rate_limiter: _RateLimiter) -> "openai.OpenAI":
    """Returns a client of the endpoint that the environment names."""
    try:
        import openai
    except ImportError as error:
        raise InputError(
            "config.method='zero_shot_api' needs the package openai: pip install openai, or '.[api]' in a checkout"
        ) from error
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    key = _printable("OPENAI_API_KEY", key, "the endpoint's key (any word where it asks for none)")
    timeout = openai.Timeout(TIMEOUT_SECONDS, connect=min(TIMEOUT_SECONDS, 10.0))
    try:
        client = openai.OpenAI(api_key=key, timeout=timeout, max_retries=MAX_RETRIES)
        url = client.base_url
    except Exception as error:  # the HTTP library of each release of openai has its own error for an invalid URL
        raise InputError(f"OPENAI_BASE_URL: cannot be used ({one_line(error)}); {URL_FORMS}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError(f"OPENAI_BASE_URL: names no host; {URL_FORMS}")
    # Data and key go to this host only: redirects are not followed, and local traffic bypasses proxies.
    transport = openai.DefaultHttpxClient(
        timeout=timeout,
        follow_redirects=False,
        trust_env=not _is_local(url.host),
        event_hooks={"request": [rate_limiter]},
    )
    return client.with_options(http_client=transport)


def _printable(name: str, value: str, needed: str) -> str:
    # The HTTP client's own error about an invalid header would quote the key.
    if not value or not (value.isascii() and value.isprintable()):
        problem = "has characters other than printable ASCII" if value else "is not set in the environment"
        raise InputError(f"{name}: {problem}; config.method='zero_shot_api' needs {needed}")
    return value


def _is_local(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
