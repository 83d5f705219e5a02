"""What goes wrong with a request, in this library's words and without the key."""

from __future__ import annotations

import re
import socket
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx2
import openai

from pandas_amr.errors import ModelConfigError, ModelError, ModelRejected, ModelUnavailable
from pandas_amr.models.headers import limits_of, retry_after_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pandas_amr.models.base import LM

RETRYABLE = frozenset({408, 409, 425, 429})
CONFIG = frozenset({401, 402, 403, 404})
OF_ACCOUNT = frozenset({401, 402})
NO_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
# Servers that give no code say it in words: vLLM, llama.cpp, Ollama, gateways.
TOO_LONG = re.compile(
    r"context (length|window|size)|maximum context|too (long|many tokens)|exceeds? .*context", re.IGNORECASE
)
REASON_CHARACTERS = 300

# Of these statuses a server may mean this request alone, such as a row that its filter does not let pass.
OF_REQUEST = frozenset({400, 403, 404, 422})
# What servers say with 400 of a key or a model that they do not know: Gemini, xAI, Mistral, DeepSeek, OpenRouter,
# LiteLLM. What they say of a parameter names the model, too, and is about the form of the request.
NOT_SERVED = re.compile(
    r"api[ _-]?key|invalid (authentication|credentials?|token)|no connected db|deployment\b.{0,60}\bnot|"
    r"\b(invalid|unknown|no such|unsupported|not a valid) model|\bno models? (is |are )?loaded|"
    r"\bmodel\b.{0,80}?\b(not (a )?(valid|found|exist|available|loaded)|(does ?n.t|does not) exist|"
    r"is (invalid|unknown|retired)|decommissioned)|model_not_found|unknown_model|invalid_model",
    re.IGNORECASE,
)
ABOUT_PARAMETER = re.compile(
    r"response_format|json_schema|schema|\btools?\b|tool_choice|parameter|argument|temperature|max_(completion_)?tokens",
    re.IGNORECASE,
)
# A gateway that has nobody behind it just now says 404, too.
NO_UPSTREAM = re.compile(r"no healthy upstream|upstream connect|no available (server|worker|instance)", re.IGNORECASE)

# What HTTP libraries raise of an answer that is none, where the client lets it pass: bad status lines, headers, chunks,
# lengths, encodings.
BROKEN_ANSWERS = (
    httpx2.HTTPError,
    aiohttp.ClientError,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    RuntimeError,
)


@dataclass(frozen=True)
class Failures:
    """The failures of one model's requests.

    Attributes:
        host: the server's name, for people.
        secrets: gives what no text may show now; keys may rotate.
    """

    lm: LM
    host: str
    secrets: Callable[[], Sequence[str]] = field(repr=False)

    def translated(self, error: openai.OpenAIError) -> ModelError:
        """The same failure in this library's words, without the key."""
        links = list(_chain(error))
        # The aiohttp transport calls a refused connection a time-out too; the cause beneath tells them apart.
        if isinstance(error, openai.APITimeoutError) and any(isinstance(link, TimeoutError) for link in links):
            return ModelUnavailable(f"No answer within {self.lm.timeout_s:g} s (LM(timeout_s=...)).")
        if isinstance(error, openai.APIConnectionError):
            refused = any(isinstance(link, ConnectionRefusedError | socket.gaierror) for link in links)
            said = f"No connection to {self.host} ({type(links[-1]).__name__})."
            return ModelUnavailable(said, gone=refused)
        if not isinstance(error, openai.APIStatusError):
            return ModelUnavailable(f"The server's answer could not be read ({type(error).__name__}).")
        return self.status_error(error.status_code, error.code, _said(error), error.response.headers, error.request_id)

    def unreadable(self, error: Exception) -> ModelUnavailable:
        """An answer that no HTTP library can read: the connection is broken, and the next one may not be."""
        if isinstance(error, TimeoutError):
            return ModelUnavailable(f"No answer within {self.lm.timeout_s:g} s (LM(timeout_s=...)).")
        return ModelUnavailable(f"The server's answer could not be read ({type(error).__name__}).")

    def status_error(
        self, status: int, code: str | None, message: str, headers: Mapping[str, str], request_id: str | None
    ) -> ModelError:
        """What an HTTP status that is no 200 means."""
        known: dict[str, Any] = {"status": status, "request_id": request_id}
        said = f"The server answered {status}: {self._scrubbed(message)}"
        too_long = status not in OF_ACCOUNT and (code == "context_length_exceeded" or bool(TOO_LONG.search(message)))
        if code in NO_QUOTA:
            return ModelConfigError(f"{said} {self._way_out(status, message)}", **known)
        if not too_long and _names_configuration(status, f"{code} {message}"):
            failure = ModelConfigError(f"{said} {self._way_out(status, message)}", **known)
            failure.of_request = ModelRejected(said, **known) if status in OF_REQUEST else None
            return failure
        if status in RETRYABLE or not 400 <= status < 500 or NO_UPSTREAM.search(message):
            known |= {"retry_after_s": retry_after_of(headers), "limits": limits_of(headers)}
            return ModelUnavailable(said, busy=status == 429, **known)
        return ModelRejected(said, too_long=too_long, **known)

    def _way_out(self, status: int, message: str) -> str:
        """Which setting to look at."""
        is_of_model = status in {400, 422} and "key" not in message.lower() and "model" in message.lower()
        if status == 404 or is_of_model:
            return f"Check the model's name (LM({self.lm.model!r}), AMR_MODEL) and the address (OPENAI_BASE_URL)."
        if status in {402, 429}:
            return "Check the account's quota and billing."
        return "Check the key (LM(api_key=...), OPENAI_API_KEY) and what it may use."

    def _scrubbed(self, text: str) -> str:
        for secret in sorted(self.secrets(), key=len, reverse=True):  # one may be a part of another
            text = text.replace(secret, "[key]")
        text = re.sub(r"\b(sk|key|Bearer)[-_ ][\w*.-]{6,}", "[key]", text)
        return text if len(text) <= REASON_CHARACTERS else text[:REASON_CHARACTERS] + " ..."


def _names_configuration(status: int, text: str) -> bool:
    """Whether a refusal is of the key, the model or the address, and not of what a request says."""
    if status in CONFIG:
        return not NO_UPSTREAM.search(text)
    return status in OF_REQUEST and bool(NOT_SERVED.search(text)) and not ABOUT_PARAMETER.search(text)


def _said(error: openai.APIStatusError) -> str:
    return _reason_in(error.body) or error.response.reason_phrase or "no reason given"


def _reason_in(body: Any) -> str:
    """What an error's body says, wherever it says it: Mistral nests it, Gemini sends a list, FastAPI places and texts.

    Example:
        >>> _reason_in({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 1}]})
        'body.seed: Extra inputs are not permitted'
    """
    if isinstance(body, list):
        return "; ".join(reason for reason in map(_reason_in, body[:3]) if reason)
    if not isinstance(body, dict):
        return ""
    for name in ("message", "error", "detail", "msg"):
        reason = body.get(name)
        text = reason if isinstance(reason, str) else _reason_in(reason)
        if text:
            place = body.get("loc")
            return f"{'.'.join(map(str, place))}: {text}" if isinstance(place, list) else text
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
