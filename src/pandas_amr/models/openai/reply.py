"""A server's answer in this library's words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pandas_amr.errors import ModelRefused, ModelRejected, ModelUnavailable
from pandas_amr.models.base import Limits, Message, Reply, ToolCall

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from pandas_amr._records.usage import Usage

DEEPEST = (
    100  # levels of lists and objects in an answer: what is deeper is a model that does not stop
)

# What this library reads of a message; what else stands in it is sent back as it came.
READ = frozenset({"role", "content", "tool_calls", "function_call"})
# What many servers put into each answer, empty, and refuse in a request.
ANSWER_ONLY = frozenset({"refusal", "annotations", "audio"})

TEXT_TYPES = frozenset({"text", "output_text"})
PART_TYPES = TEXT_TYPES | {"refusal", "thinking", "redacted_thinking", "reasoning"}
PART_KEYS = frozenset(
    {"type", "text", "annotations", "refusal", "thinking", "signature", "data", "reasoning"}
)

CUT_OFF = frozenset({"length", "max_tokens", "max_output_tokens"})
FILTERED = frozenset(
    {"content_filter", "safety", "recitation", "prohibited_content", "blocklist", "sensitive"}
)


def read_body(content: bytes) -> Any:
    """Decode the body of an answer.

    Raises:
        ModelUnavailable: it is no JSON, or nested deeper than any answer is.
    """
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        raise ModelUnavailable("The server's answer is not JSON.") from None
    if is_too_deep(answer):
        raise ModelUnavailable("The server's answer is nested too deeply.")
    return answer


def is_too_deep(value: Any) -> bool:
    """Whether decoded JSON is nested deeper than an answer may be."""
    level = [value]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += [child for child in one.values() if isinstance(child, dict | list)]
            elif isinstance(one, list):
                inner += [child for child in one if isinstance(child, dict | list)]
        if not inner:
            return False
        level = inner
    return True


# The model's window was full before the answer was whole: Mistral; Anthropic
WINDOW_IS_FULL = frozenset({"model_length", "model_context_window_exceeded"})


def reply_of(answer: Any, usage: Usage, limits: Limits | None) -> Reply:
    """The answer in this library's words; servers leave out much, so nothing is taken for granted.

    Raises:
        ModelRefused: the model declined, or the provider's filter stopped it.
        ModelUnavailable: there is no message in it.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None  # of several, the first
    said = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(said, dict):
        raise ModelUnavailable("The server's answer holds no message.")
    assert isinstance(choice, dict)
    reason = str(choice.get("finish_reason") or "stop")
    if said.get("refusal"):
        raise ModelRefused("The model declined to answer.")
    if reason.lower() in FILTERED:
        raise ModelRefused("The provider's content filter stopped the answer.")
    if reason in WINDOW_IS_FULL:
        raise ModelRejected(
            "The prompt and the answer are longer than the model's context window.", too_long=True
        )
    message = message_of(said)
    if not (message.content or message.tool_calls) and _has_refusal(said.get("content")):
        raise ModelRefused("The model declined to answer.")
    return Reply(message, "length" if reason.lower() in CUT_OFF else reason, usage, limits)


def message_of(said: Mapping[str, Any]) -> Message:
    """An assistant's message as it came: its text, its calls, and all else, to be sent back."""
    content = said.get("content")
    extra = _echoed(said, READ)
    if isinstance(content, list) and content:
        extra["content"] = whole_text(content)
    return Message("assistant", _text_of(content), tuple(_calls_of(said)), extra=extra)


def _echoed(given: Mapping[str, Any], read: Collection[str]) -> dict[str, Any]:
    """What stands in a part of a message beside what is read of it; without nulls, which some servers refuse."""
    echoed: dict[str, Any] = {}
    for key, value in given.items():
        is_left_out = value is None or (key in ANSWER_ONLY and not value)
        if key not in read and not is_left_out:
            echoed[key] = whole_text(value)
    return echoed


def is_error(answer: Any) -> bool:
    """Whether an answer is an error of a gateway's, sent as if all was well: nothing was paid for."""
    return isinstance(answer, dict) and bool(answer.get("error")) and not answer.get("choices")


def whole_text(value: Any) -> Any:
    """JSON whose texts can all be sent: a lone half of a character is replaced."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [whole_text(one) for one in value]
    if isinstance(value, dict):
        return {whole_text(key): whole_text(one) for key, one in value.items()}
    return value


def _text_of(content: Any) -> str | None:
    """The text of a message, whichever form its content has; what a model thought is no part of it."""
    if content is None:
        return None
    if isinstance(content, str):
        return str(whole_text(content))
    parts = content if isinstance(content, list) else [content] if _is_part(content) else None
    if parts is None:
        return json.dumps(content)  # a gateway has decoded the answer
    texts = [text for part in parts if (text := _text_of_part(part)) is not None]
    return str(whole_text("".join(texts))) if texts else None


def _is_part(content: Any) -> bool:
    """Whether an object is a part of a message, and not an answer."""
    return (
        isinstance(content, dict)
        and content.get("type") in PART_TYPES
        and content.keys() <= PART_KEYS
    )


def _text_of_part(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or part.get("type", "text") not in TEXT_TYPES:
        return None
    text = part.get("text")
    if isinstance(text, dict):
        text = text.get("value")
    return text if isinstance(text, str) else None


def _has_refusal(content: Any) -> bool:
    parts = content if isinstance(content, list) else [content]
    return any(isinstance(part, dict) and part.get("type") == "refusal" for part in parts)


def _calls_of(said: Mapping[str, Any]) -> Iterator[ToolCall]:
    """The calls in a message; a single one of the protocol's first form is read where there is no other."""
    given = said.get("tool_calls")
    calls = list(_calls(given if isinstance(given, list) else [given]))
    legacy = said.get("function_call")
    if not calls and isinstance(legacy, dict) and legacy.get("name"):
        calls = list(_calls([{"function": legacy}]))
    yield from calls


def _calls(given: Iterable[Any]) -> Iterator[ToolCall]:
    for call in given:
        if not isinstance(call, dict):
            continue
        function = call.get("function")
        if not isinstance(function, dict):  # some gateways leave that level out
            function = {key: call.get(key) for key in ("name", "arguments") if key in call}
        extra = _echoed(call, {"id", "function", "name", "arguments"})
        if more := _echoed(function, {"name", "arguments"}):
            extra["function"] = more
        name = function.get("name")
        yield ToolCall(
            id=str(call.get("id") or ""),
            name=str(whole_text(name)) if isinstance(name, str) else "",
            arguments=_arguments_of(function.get("arguments")),
            extra=extra,
        )


def _arguments_of(given: Any) -> str:
    """A call's arguments as JSON text: none are an empty object, and what was encoded twice is decoded once."""
    if given is None or (isinstance(given, str) and not given.strip()):
        return "{}"
    if not isinstance(given, str):
        return str(whole_text(json.dumps(given)))
    try:
        inner = json.loads(given) if given.lstrip().startswith('"') else None
    except (ValueError, RecursionError):
        inner = None
    return str(whole_text(inner if isinstance(inner, str) else given))
