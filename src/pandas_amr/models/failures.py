"""What goes wrong with a request, in this library's words and without the key."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import openai

from pandas_amr.errors import ModelConfigError, ModelError, ModelRejected, ModelUnavailable
from pandas_amr.models.headers import limits_of, retry_after_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pandas_amr.models.base import LM

RETRYABLE = frozenset({408, 409, 425, 429})
CONFIG = frozenset({401, 402, 403, 404})
NO_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
# Servers that give no code say it in words: vLLM, llama.cpp, Ollama, gateways.
TOO_LONG = re.compile(
    r"context (length|window|size)|maximum context|too (long|many tokens)|exceeds? .*context", re.IGNORECASE
)
REASON_CHARACTERS = 300


@dataclass(frozen=True)
class Failures:
    """The failures of one model's requests.

    Attributes:
        host: the server's name, for people.
        key: what no text may show.
    """

    lm: LM
    host: str
    key: str = field(repr=False)

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

    def status_error(
        self, status: int, code: str | None, message: str, headers: Mapping[str, str], request_id: str | None
    ) -> ModelError:
        """What an HTTP status that is no 200 means."""
        known: dict[str, Any] = {"status": status, "request_id": request_id}
        said = f"The server answered {status}: {self._scrubbed(message)}"
        if status in CONFIG or code in NO_QUOTA:
            return ModelConfigError(f"{said} {self._way_out(status)}", **known)
        if status in RETRYABLE or status >= 500:
            known |= {"retry_after_s": retry_after_of(headers), "limits": limits_of(headers)}
            return ModelUnavailable(said, busy=status == 429, **known)
        too_long = code == "context_length_exceeded" or bool(TOO_LONG.search(message))
        return ModelRejected(said, too_long=too_long, **known)

    def _way_out(self, status: int) -> str:
        """Which setting to look at."""
        if status == 404:
            return f"Check the model's name (LM({self.lm.model!r}), AMR_MODEL) and the address (OPENAI_BASE_URL)."
        if status in {402, 429}:
            return "Check the account's quota and billing."
        return "Check the key (LM(api_key=...), OPENAI_API_KEY) and what it may use."

    def scrubbed(self, text: str) -> str:
        """A server's text, bounded and without the key."""
        return self._scrubbed(text)

    def _scrubbed(self, text: str) -> str:
        if self.key:
            text = text.replace(self.key, "[key]")
        text = re.sub(r"\b(sk|key|Bearer)[-_ ][\w*.-]{6,}", "[key]", text)
        return text if len(text) <= REASON_CHARACTERS else text[:REASON_CHARACTERS] + " ..."


def _said(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return error.response.reason_phrase or "no reason given"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
