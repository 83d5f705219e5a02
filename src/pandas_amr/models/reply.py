"""A server's answer in this library's words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pandas_amr.errors import ModelRefused, ModelRejected, ModelUnavailable
from pandas_amr.models.base import Limits, Message, Reply, ToolCall

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pandas_amr._usage import Usage


# The model's window was full before the answer was whole: Mistral; Anthropic
WINDOW_IS_FULL = frozenset({"model_length", "model_context_window_exceeded"})


def reply_of(answer: Any, usage: Usage, limits: Limits | None) -> Reply:
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
    if reason in WINDOW_IS_FULL:
        raise ModelRejected("The prompt and the answer are longer than the model's context window.", too_long=True)
    content = said.get("content")
    calls = said.get("tool_calls")
    message = Message(
        role="assistant",
        content=content if isinstance(content, str) else None,
        tool_calls=tuple(_calls(calls if isinstance(calls, list) else ())),
    )
    return Reply(message, reason, usage, limits)


def is_error(answer: Any) -> bool:
    """Whether an answer is an error of a gateway's, sent as if all was well: nothing was paid for."""
    return isinstance(answer, dict) and bool(answer.get("error")) and not answer.get("choices")


def _calls(given: Iterable[Any]) -> Iterator[ToolCall]:
    for number, call in enumerate(given):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            arguments = function.get("arguments")
            text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
            yield ToolCall(id=str(call.get("id") or f"call-{number}"), name=str(function.get("name")), arguments=text)
