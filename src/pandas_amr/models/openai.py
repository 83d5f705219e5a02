"""Any OpenAI-compatible server, through the ``openai`` client. The only importer of ``openai``."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from typing import TYPE_CHECKING, Any, Self

import httpx2
import openai

from pandas_amr._stopped import contained
from pandas_amr.errors import (
    ModelConfigError,
    ModelError,
    ModelRefused,
    ModelRejected,
    ModelUnavailable,
    UsageError,
)
from pandas_amr.models.base import LM, Limits, Message, Reply, Request, ToolCall, check_address
from pandas_amr.models.counts import usage_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from pandas_amr._usage import Usage

RETRYABLE = frozenset({408, 409, 425, 429})
CONFIG = frozenset({401, 402, 403, 404})
NO_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
# Servers that give no code say it in words: vLLM, llama.cpp, Ollama, gateways.
TOO_LONG = re.compile(
    r"context (length|window|size)|maximum context|too (long|many tokens)|exceeds? .*context", re.IGNORECASE
)
REASON_CHARACTERS = 300
ADDRESS = "https://api.openai.com/v1"


class OpenAIModel:
    """One ``LM`` behind one HTTP client, open while the ``async with`` block runs."""

    def __init__(self, lm: LM) -> None:
        self._lm = lm
        self._owned = lm.client is None
        self._client: openai.AsyncOpenAI = lm.client if lm.client is not None else _client(lm)
        self._key = str(getattr(self._client, "api_key", "") or "")

    @property
    def address(self) -> tuple[str, str]:
        """The server and the key, by which its limits are known."""
        return str(self._client.base_url), self._key

    @property
    def server(self) -> str:
        """The address that answers; of Azure with the deployment, which its client adds at each request."""
        url = self._client.base_url
        if isinstance(self._client, openai.AsyncAzureOpenAI) and "/deployments" not in url.path:
            return f"{str(url).rstrip('/')}/deployments/{self._lm.model}"
        return str(url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owned:
            await self._client.close()

    async def complete(self, request: Request) -> Reply:
        """Answer one turn with one HTTP request."""
        began = time.monotonic()
        # `post` with a raw response: the typed client spends more on models of the answer than the loopback takes.
        raw = await self.call(
            lambda client: client.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                body=self.body(request),
                options={
                    "max_retries": 0,  # retry, throttle and usage are ours
                    "timeout": self._lm.timeout_s,
                    "headers": dict(self._lm.extra_headers or {}),
                },
            )
        )
        seconds = time.monotonic() - began
        try:
            answer = json.loads(raw.content)
        except ValueError:
            failure = ModelUnavailable("The server's answer is not JSON.")
            failure.usage = usage_of({}, request, self._lm.model, seconds)
            raise failure from None
        return self._reply(answer, request, seconds=seconds, limits=_limits(raw.headers))

    def _reply(self, answer: Any, request: Request, *, seconds: float, limits: Limits | None) -> Reply:
        """The answer in this library's words.

        Raises:
            ModelError: it cannot be used; what it took is the error's ``usage``.
        """
        usage = usage_of(answer, request, self._lm.model, seconds)
        try:
            return _reply(answer, usage, limits)
        except ModelError as error:
            error.usage = None if _is_error(answer) else usage
            raise

    def body(self, request: Request) -> dict[str, Any]:
        """The request as the protocol spells it."""
        return _body(self._lm, request)

    def read(self, response: Mapping[str, Any], request: Request) -> Reply:
        """An answer that came in a batch: ``status_code`` and ``body``.

        Raises:
            ModelError: the answer is an error.
        """
        status, answer = int(response.get("status_code") or 0), response.get("body")
        if status == 200:
            return self._reply(answer, request, seconds=0.0, limits=None)
        told = answer.get("error") if isinstance(answer, dict) else None
        known = told if isinstance(told, dict) else {}
        raise self._status_error(status, known.get("code"), str(known.get("message") or "no reason given"), {}, None)

    async def call(self, work: Callable[[openai.AsyncOpenAI], Awaitable[Any]]) -> Any:
        """Ask the client for something; what goes wrong is told in this library's words.

        Raises:
            ModelError: the service did not answer.
        """
        try:
            return await work(self._client)
        except openai.OpenAIError as error:
            # Raised anew below, outside of this block: the client's errors hold the request, and with it the key.
            failure = self._translated(error)
        except ValueError:  # a 200 whose body is not JSON
            failure = ModelUnavailable("The server's answer is not JSON.")
        except (KeyboardInterrupt, SystemExit) as raised:  # of a client of the user's; they would end the loop
            raise contained(raised) from raised
        raise failure

    def _translated(self, error: openai.OpenAIError) -> ModelError:
        """The same failure in this library's words, without the key."""
        links = list(_chain(error))
        # The aiohttp transport calls a refused connection a time-out too; the cause beneath tells them apart.
        if isinstance(error, openai.APITimeoutError) and any(isinstance(link, TimeoutError) for link in links):
            return ModelUnavailable(f"No answer within {self._lm.timeout_s:g} s (LM(timeout_s=...)).")
        if isinstance(error, openai.APIConnectionError):
            refused = any(isinstance(link, ConnectionRefusedError | socket.gaierror) for link in links)
            said = f"No connection to {self._client.base_url.host} ({type(links[-1]).__name__})."
            return ModelUnavailable(said, gone=refused)
        if not isinstance(error, openai.APIStatusError):
            return ModelUnavailable(f"The server's answer could not be read ({type(error).__name__}).")
        return self._status_error(error.status_code, error.code, _said(error), error.response.headers, error.request_id)

    def _status_error(
        self, status: int, code: str | None, message: str, headers: Mapping[str, str], request_id: str | None
    ) -> ModelError:
        known: dict[str, Any] = {"status": status, "request_id": request_id}
        said = f"The server answered {status}: {self._scrubbed(message)}"
        if status in CONFIG or code in NO_QUOTA:
            return ModelConfigError(f"{said} {self._way_out(status)}", **known)
        if status in RETRYABLE or status >= 500:
            known |= {"retry_after_s": _retry_after(headers), "limits": _limits(headers)}
            return ModelUnavailable(said, busy=status == 429, **known)
        too_long = code == "context_length_exceeded" or bool(TOO_LONG.search(message))
        return ModelRejected(said, too_long=too_long, **known)

    def _way_out(self, status: int) -> str:
        """Which setting to look at."""
        if status == 404:
            return f"Check the model's name (LM({self._lm.model!r}), AMR_MODEL) and the address (OPENAI_BASE_URL)."
        if status in {402, 429}:
            return "Check the account's quota and billing."
        return "Check the key (LM(api_key=...), OPENAI_API_KEY) and what it may use."

    def _scrubbed(self, text: str) -> str:
        if self._key:
            text = text.replace(self._key, "[key]")
        text = re.sub(r"\b(sk|key|Bearer)[-_ ][\w*.-]{6,}", "[key]", text)
        return text if len(text) <= REASON_CHARACTERS else text[:REASON_CHARACTERS] + " ..."


def _client(lm: LM) -> openai.AsyncOpenAI:
    key = (lm.api_key or os.environ.get("OPENAI_API_KEY") or "").strip()  # files of secrets end in a new line
    if not (key.isascii() and key.isprintable()):
        raise UsageError("The key has characters that no HTTP header can hold: see LM(api_key=...), OPENAI_API_KEY.")
    address = lm.base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or ADDRESS
    check_address(address, "LM(base_url=...)" if lm.base_url else "OPENAI_BASE_URL")
    try:
        http = openai.DefaultAioHttpClient()
    except OSError as error:
        said = f"No HTTP client can be made ({error}): check SSL_CERT_FILE and SSL_CERT_DIR."
        raise ModelConfigError(said) from None
    return openai.AsyncOpenAI(
        api_key=key or "none",  # servers without keys: the client insists
        base_url=address,
        http_client=http,
    )


def _body(lm: LM, request: Request) -> dict[str, Any]:
    """The request as the protocol spells it."""
    body: dict[str, Any] = {"model": lm.model, "messages": [_spelled(message) for message in request.messages]}
    options = {
        "temperature": lm.temperature,
        "seed": lm.seed,
        "reasoning_effort": lm.reasoning_effort,
        "max_completion_tokens": lm.max_output_tokens,
    }
    body |= {name: value for name, value in options.items() if value is not None} | dict(lm.extra_body or {})
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
            }
            for tool in request.tools
        ]
    if request.forced_tool is not None:
        body["tool_choice"] = {"type": "function", "function": {"name": request.forced_tool}}
    if request.schema is not None:
        schema = {"name": request.schema.name, "schema": dict(request.schema.schema), "strict": request.schema.strict}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif request.json_object:
        body["response_format"] = {"type": "json_object"}
    return body


def _spelled(message: Message) -> dict[str, Any]:
    spelled: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        spelled["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        spelled["tool_call_id"] = message.tool_call_id
    return spelled


def _reply(answer: Any, usage: Usage, limits: Limits | None) -> Reply:
    """The answer in this library's words; servers leave out much, so nothing is taken for granted."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None  # of several, the first
    said = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(said, dict):
        raise ModelUnavailable("The server's answer holds no message.")
    if said.get("refusal"):
        raise ModelRefused("The model declined to answer.")
    assert isinstance(choice, dict)
    reason = str(choice.get("finish_reason") or "stop")
    if reason == "content_filter":
        raise ModelRefused("The provider's content filter stopped the answer.")
    content = said.get("content")
    calls = said.get("tool_calls")
    message = Message(
        role="assistant",
        content=content if isinstance(content, str) else None,
        tool_calls=tuple(_calls(calls if isinstance(calls, list) else ())),
    )
    return Reply(message, reason, usage, limits)


def _is_error(answer: Any) -> bool:
    """Whether an answer is an error of a gateway's, sent as if all was well: nothing was paid for."""
    return isinstance(answer, dict) and bool(answer.get("error")) and not answer.get("choices")


def _calls(given: Iterable[Any]) -> Iterator[ToolCall]:
    for number, call in enumerate(given):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            arguments = function.get("arguments")
            text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
            yield ToolCall(id=str(call.get("id") or f"call-{number}"), name=str(function.get("name")), arguments=text)


def _limits(headers: Mapping[str, str]) -> Limits | None:
    """What ``x-ratelimit-*`` headers tell: limits are a minute's, unless their reset speaks of a longer time."""
    requests, requests_left = _limit(headers, "requests")
    tokens, tokens_left = _limit(headers, "tokens")
    if requests is None and tokens is None:
        return None
    return Limits(requests, requests_left, tokens, tokens_left)


def _limit(headers: Mapping[str, str], what: str) -> tuple[float | None, float | None]:
    try:
        limit = float(headers[f"x-ratelimit-limit-{what}"])
        left = float(headers[f"x-ratelimit-remaining-{what}"])
    except (KeyError, ValueError):
        return None, None
    rate = limit / 60
    reset_s = _seconds(headers.get(f"x-ratelimit-reset-{what}", ""))
    if reset_s and 0 <= left < limit and (limit - left) / reset_s < rate / 2:
        rate = (limit - left) / reset_s  # a day's limit, say
    return (rate, left) if rate > 0 else (None, None)


def _seconds(text: str) -> float | None:
    """A duration such as ``6m0s``, ``120ms`` or ``1.5``, in seconds."""
    parts = re.findall(r"([\d.]+)(ms|s|m|h|d)", text)
    if parts:
        return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError:
        return None


_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _said(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return error.response.reason_phrase or "no reason given"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` or ``retry-after`` (RFC 9110, section 10.2.3; seconds only)."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * scale)
        except (KeyError, ValueError):
            continue
    return None
