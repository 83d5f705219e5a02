"""Any OpenAI-compatible server, through the ``openai`` client. The only importer of ``openai``."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any, Self

import openai

from pandas_amr._usage import Usage
from pandas_amr.errors import (
    InvalidOutput,
    ModelConfigError,
    ModelError,
    ModelRefused,
    ModelRejected,
    ModelUnavailable,
)
from pandas_amr.models.base import LM, Message, Reply, Request, ToolCall

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

RETRYABLE = frozenset({408, 409, 425, 429})
CONFIG = frozenset({401, 402, 403, 404})
NO_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
# Servers that give no code say it in words: vLLM, llama.cpp, Ollama, gateways.
TOO_LONG = re.compile(
    r"context (length|window|size)|maximum context|too (long|many tokens)|exceeds? .*context", re.IGNORECASE
)
REASON_CHARACTERS = 300


class OpenAIModel:
    """One ``LM`` behind one HTTP client, open while the ``async with`` block runs."""

    def __init__(self, lm: LM) -> None:
        self._lm = lm
        self._key = lm.api_key or os.environ.get("OPENAI_API_KEY") or ""
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",  # servers without keys; the client itself insists on one
            base_url=lm.base_url,
            timeout=lm.timeout_s,
            max_retries=0,  # retry, throttle and usage are ours
            default_headers=lm.extra_headers,
            http_client=openai.DefaultAioHttpClient(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def complete(self, request: Request) -> Reply:
        """Answer one turn with one HTTP request."""
        began = time.monotonic()
        try:
            raw = await self._client.chat.completions.create(**_body(self._lm, request))
        except openai.OpenAIError as error:
            # Raised anew below, outside of this block: the client's errors hold the request, and with it the key.
            failure = self._translated(error)
        except ValueError as error:  # a 200 whose body is not JSON
            failure = ModelUnavailable(f"The server's answer was not JSON ({type(error).__name__}).")
        else:
            return _reply(raw, seconds=time.monotonic() - began)
        raise failure

    def _translated(self, error: openai.OpenAIError) -> ModelError:
        """The same failure in this library's words, without the key."""
        links = list(_chain(error))
        # The aiohttp transport calls a refused connection a time-out too; the cause beneath tells them apart.
        if isinstance(error, openai.APITimeoutError) and any(isinstance(link, TimeoutError) for link in links):
            return ModelUnavailable(f"No answer within {self._lm.timeout_s:g} s (LM(timeout_s=...)).")
        if isinstance(error, openai.APIConnectionError):
            return ModelUnavailable(f"No connection to {self._client.base_url.host} ({type(links[-1]).__name__}).")
        if not isinstance(error, openai.APIStatusError):
            return ModelUnavailable(f"The server's answer could not be read ({type(error).__name__}).")
        status, code = error.status_code, error.code
        known: dict[str, Any] = {"status": status, "request_id": error.request_id}
        said = f"The server answered {status}: {self._scrubbed(_said(error))}"
        if status in CONFIG or code in NO_QUOTA:
            return ModelConfigError(f"{said} {self._way_out(status)}", **known)
        if status in RETRYABLE or status >= 500:
            return ModelUnavailable(said, retry_after_s=_retry_after(error), **known)
        too_long = code == "context_length_exceeded" or bool(TOO_LONG.search(_said(error)))
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


def _body(lm: LM, request: Request) -> dict[str, Any]:
    """The request as the protocol spells it."""
    body: dict[str, Any] = {"model": lm.model, "messages": [_spelled(message) for message in request.messages]}
    options = {
        "temperature": lm.temperature,
        "seed": lm.seed,
        "reasoning_effort": lm.reasoning_effort,
        "max_completion_tokens": lm.max_output_tokens,
        "extra_body": lm.extra_body,
    }
    body |= {name: value for name, value in options.items() if value is not None}
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
            }
            for tool in request.tools
        ]
    if request.schema is not None:
        schema = {"name": request.schema.name, "schema": dict(request.schema.schema), "strict": request.schema.strict}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
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


def _reply(raw: Any, *, seconds: float) -> Reply:
    """The answer in this library's words; servers leave out much, so nothing is taken for granted."""
    choices = getattr(raw, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        raise InvalidOutput("The server's answer holds no message.")
    choice = choices[0]
    if getattr(choice.message, "refusal", None):
        raise ModelRefused("The model declined to answer.")
    if choice.finish_reason == "content_filter":
        raise ModelRefused("The provider's content filter stopped the answer.")
    calls = tuple(
        ToolCall(id=call.id or f"call-{number}", name=call.function.name or "", arguments=call.function.arguments or "")
        for number, call in enumerate(choice.message.tool_calls or ())
        if getattr(call, "function", None) is not None
    )
    message = Message(role="assistant", content=choice.message.content, tool_calls=calls)
    return Reply(message=message, finish_reason=choice.finish_reason or "stop", usage=_usage(raw.usage, seconds))


def _usage(raw: Any, seconds: float) -> Usage:
    def count(name: str, inside: str | None = None) -> int:
        holder = getattr(raw, inside, None) if inside else raw
        return int(getattr(holder, name, None) or 0)

    return Usage(
        calls=1,
        tries=1,
        input_tokens=count("prompt_tokens"),
        cached_tokens=count("cached_tokens", "prompt_tokens_details"),
        output_tokens=count("completion_tokens"),
        reasoning_tokens=count("reasoning_tokens", "completion_tokens_details"),
        seconds=seconds,
    )


def _said(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return error.response.reason_phrase or "no reason given"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` or ``retry-after`` (RFC 9110, section 10.2.3; seconds only)."""
    headers = error.response.headers
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * scale)
        except (KeyError, ValueError):
            continue
    return None
