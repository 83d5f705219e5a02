"""Read the answer of a server."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pandas_amr._records.json_fields import get_field, get_list
from pandas_amr.errors import ModelRefused, ModelRejected, ModelUnavailable
from pandas_amr.models.base import Message, RateLimits, Reply, ToolCall
from pandas_amr.models.openai.event_stream import completion_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from pandas_amr._records.usage import Usage

# Levels of lists and objects in an answer. A deeper one is from a model that does not stop.
DEEPEST = 100
# Comments that a router sends while it waits, as in a stream (OpenRouter).
KEEP_ALIVE = re.compile(rb"(?:\s*:[^\n]*\n)+")
# JSON is UTF-8, but some gateways send this and say so.
LATIN_1 = frozenset({"iso-8859-1", "latin-1", "windows-1252"})
LONGEST_NAME = 200  # of a model or an answer

# The parts of a message that are read here; all others are sent back as they came.
READ = frozenset({"role", "content", "tool_calls", "function_call"})
# Many servers put these into each answer, empty, and refuse them in a request.
ANSWER_ONLY = frozenset({"refusal", "annotations", "audio"})
FUNCTION = ("name", "arguments")  # the parts of a call's function that are read here

TEXT_TYPES = frozenset({"text", "output_text"})
PART_TYPES = TEXT_TYPES | {"refusal", "thinking", "redacted_thinking", "reasoning"}
PART_KEYS = frozenset(
    {"type", "text", "annotations", "refusal", "thinking", "signature", "data", "reasoning"}
)

CUT_OFF = frozenset({"length", "max_tokens", "max_output_tokens"})
# Gemini's endpoint puts its own reason behind: "content_filter: PROHIBITED_CONTENT". A gateway to
# Anthropic says "refusal", one to Bedrock "guardrail_intervened".
FILTERED = re.compile(
    r"content_filter|safety|recitation|prohibited|blocklist|blocked|sensitive|\bspii\b|refusal|"
    r"guardrail"
)
# The server broke the answer off: OpenRouter; DeepSeek; Zhipu; vLLM.
BROKEN_OFF = frozenset({"error", "insufficient_system_resource", "network_error", "abort"})
THOUGHTS = ("reasoning_content", "reasoning")  # of vLLM and others; of OpenRouter and newer vLLM
# The model's context window was full before the answer was complete: Mistral; Anthropic.
WINDOW_IS_FULL = frozenset({"model_length", "model_context_window_exceeded"})


def read_body(content: bytes, charset: str | None = None) -> Any:
    """Decode the body of an answer; ``charset`` is what its headers say, if they do.

    Raises:
        ModelUnavailable: it is neither JSON nor a whole stream of it, or nested deeper than any
            answer.
    """
    waited = KEEP_ALIVE.match(content)
    try:
        answer = _decode_json(content[waited.end() :] if waited else content, charset)
    except (ValueError, RecursionError):
        answer = completion_of(content)
        if answer is None:
            raise ModelUnavailable("The server's answer is not JSON.") from None
    if is_too_deep(answer):
        raise ModelUnavailable("The server's answer is nested too deeply.")
    return answer


def _decode_json(content: bytes, charset: str | None) -> Any:
    """Decode JSON. One wrong byte, such as half of a character, does not make an answer useless."""
    try:
        return json.loads(content)
    except UnicodeDecodeError:
        encoding = charset if charset in LATIN_1 else "utf-8"
        return json.loads(content.decode(encoding, "replace"))


def is_too_deep(value: object) -> bool:
    """Tell whether decoded JSON is nested deeper than an answer may be."""
    level = [value]
    for _ in range(DEEPEST):
        deeper: list[Any] = []
        for container in level:
            if isinstance(container, dict):
                deeper += container.values()
            elif isinstance(container, list):
                deeper += container
        deeper = [item for item in deeper if isinstance(item, dict | list)]
        if not deeper:
            return False
        level = deeper
    return True


def reply_of(answer: object, usage: Usage, limits: RateLimits | None) -> Reply:
    """Read the reply in a decoded answer. Servers leave out much, so nothing is relied on.

    Raises:
        ModelRefused: the model declined, or the provider's filter stopped it.
        ModelRejected: prompt and answer were too long.
        ModelUnavailable: there is no message in it, or it was broken off.
    """
    choice = _first_choice(answer)
    content = choice.get("message")
    if not isinstance(content, dict):
        raise ModelUnavailable("The server's answer holds no message.")
    reason = str(choice.get("finish_reason") or "stop")
    message = message_of(content)
    is_empty = not message.content and not message.tool_calls
    if content.get("refusal") or (is_empty and _has_refusal(content.get("content"))):
        raise ModelRefused("The model declined to answer.")
    _check_end(reason, message)
    if reason.lower() in CUT_OFF:
        reason = "length"
    elif is_empty:
        message = replace(message, content=_answer_among_thoughts(content))
    return Reply(
        message,
        reason,
        usage,
        limits,
        model=_name_in(answer, "model"),
        id=_name_in(answer, "id"),
    )


def _check_end(reason: str, message: Message) -> None:
    """Check why an answer ended.

    Raises:
        ModelError: as ``reply_of``.
    """
    if FILTERED.search(reason.lower()):
        raise ModelRefused("The provider's content filter stopped the answer.")
    if reason.lower() in WINDOW_IS_FULL:
        raise ModelRejected(
            "The prompt and the answer are longer than the model's context window.", too_long=True
        )
    if reason.lower() in BROKEN_OFF and not _is_whole(message):
        raise ModelUnavailable(f"The server broke its answer off (finish_reason {reason!r}).")


def _name_in(answer: object, field: str) -> str:
    """Give a short text that the server put beside the choices; empty if there is none."""
    value = get_field(answer, field)
    return value[:LONGEST_NAME] if isinstance(value, str) else ""


def _first_choice(answer: object) -> Mapping[str, Any]:
    """Give the first choice of an answer that says something; empty if there is none.

    GitHub Copilot puts text and calls of one answer into two choices (HKUDS/nanobot pull 1555):
    then the calls count.
    """
    given = get_list(get_field(answer, "choices"))
    choices: list[dict[str, Any]] = [choice for choice in given if isinstance(choice, dict)]
    for part in ("tool_calls", "content"):
        for choice in choices:
            if get_field(choice.get("message"), part):
                return choice
    return choices[0] if choices else {}


def _is_whole(message: Message) -> bool:
    """Tell whether what a message says is JSON to its end."""
    texts = [call.arguments for call in message.tool_calls] or [message.content or ""]
    return all(map(_is_json, texts))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _answer_among_thoughts(message: Mapping[str, Any]) -> str | None:
    """Give the thoughts of a message that says nothing else, if they are a JSON object.

    Servers that split thoughts from answers take all for thoughts if the end mark is missing, as it
    is if the model was made to follow a schema from its first token on (vLLM, LM Studio).
    """
    for name in THOUGHTS:
        text = message.get(name)
        if isinstance(text, str) and text.lstrip().startswith("{") and _is_json(text):
            return str(replace_lone_surrogates(text))
    return None


def message_of(answer: Mapping[str, Any]) -> Message:
    """Read an assistant's message: its text, its calls, and all else, to be sent back."""
    content = answer.get("content")
    extra = _unread_parts(answer, READ)
    if isinstance(content, list) and content:
        extra["content"] = replace_lone_surrogates(content)
    return Message("assistant", _text_of(content), tuple(_calls_of(answer)), extra=extra)


def _unread_parts(part: Mapping[str, Any], read: Collection[str]) -> dict[str, Any]:
    """Give what is not read of a message or a call; without nulls, which some servers refuse."""
    unread: dict[str, Any] = {}
    for name, value in part.items():
        is_left_out = value is None or (name in ANSWER_ONLY and not value)
        if name not in read and not is_left_out:
            unread[name] = replace_lone_surrogates(value)
    return unread


def error_in(answer: object) -> dict[str, Any] | None:
    """Give the error that a server sent with status 200 in place of an answer; None if it did not.

    It stands beside the choices or in one (OpenRouter), or there are no choices at all, as in
    ``{"object": "error", "message": ...}`` (vLLM, FastChat) and ``{"detail": ...}``.
    """
    if not isinstance(answer, dict):
        return None
    choice = _first_choice(answer)
    error = answer.get("error") or choice.get("error")
    is_answer = _is_usable(choice) if error else bool(answer.get("choices"))
    if is_answer:
        return None
    around = {name: value for name, value in answer.items() if name != "choices"}
    return around | {"error": error} if error else around


def _is_usable(choice: Mapping[str, Any]) -> bool:
    """Tell whether a choice is an answer, whatever error stands beside it."""
    content = choice.get("message")
    if not isinstance(content, dict):
        return False
    message = message_of(content)
    if str(choice.get("finish_reason")).lower() in BROKEN_OFF:
        return _is_whole(message)
    return bool(message.content or message.tool_calls)


def has_choices(answer: object) -> bool:
    """Tell whether an answer has the shape of a chat completion."""
    return isinstance(get_field(answer, "choices"), list)


def model_names(answer: object) -> list[str] | None:
    """Give the models that a server lists; None if it is no list."""
    entries = get_field(answer, "data")
    if not isinstance(entries, list):
        return None
    names = [get_field(entry, "id") for entry in entries]
    return [name for name in names if isinstance(name, str) and name]


def replace_lone_surrogates(value: object) -> Any:
    """Replace lone surrogates in the texts of JSON: they cannot be encoded as UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [replace_lone_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {
            replace_lone_surrogates(name): replace_lone_surrogates(item)
            for name, item in value.items()
        }
    return value


def _text_of(content: object) -> str | None:
    """Give the text of a message, in whatever form; reasoning is not part of it."""
    if content is None:
        return None
    if isinstance(content, str):
        return str(replace_lone_surrogates(content))
    if isinstance(content, list):
        parts = content
    elif _is_part(content):
        parts = [content]
    else:
        return json.dumps(content)  # a gateway has decoded the answer
    texts: list[str] = []
    for part in parts:
        text = _text_of_part(part)
        if text is not None:
            texts.append(text)
    return str(replace_lone_surrogates("".join(texts))) if texts else None


def _is_part(content: object) -> bool:
    """Tell whether an object is part of a message, and not itself the answer."""
    return (
        isinstance(content, dict)
        and content.get("type") in PART_TYPES
        and content.keys() <= PART_KEYS
    )


def _text_of_part(part: object) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or part.get("type", "text") not in TEXT_TYPES:
        return None
    text = part.get("text")
    if isinstance(text, dict):
        text = text.get("value")
    return text if isinstance(text, str) else None


def _has_refusal(content: object) -> bool:
    parts = content if isinstance(content, list) else [content]
    return any(get_field(part, "type") == "refusal" for part in parts)


def _calls_of(message: Mapping[str, Any]) -> list[ToolCall]:
    """Read the calls in a message, or the single call of the protocol's first version."""
    items = message.get("tool_calls")
    calls = _read_calls(items if isinstance(items, list) else [items])
    legacy = message.get("function_call")
    if not calls and isinstance(legacy, dict) and legacy.get("name"):
        calls = _read_calls([{"function": legacy}])
    return calls


def _read_calls(items: Iterable[Any]) -> list[ToolCall]:
    return [_read_call(call) for call in items if isinstance(call, dict)]


def _read_call(call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function")
    if not isinstance(function, dict):  # some gateways leave out this level
        function = {name: call[name] for name in FUNCTION if name in call}
    extra = _unread_parts(call, {"id", "function", *FUNCTION})
    unread = _unread_parts(function, FUNCTION)
    if unread:
        extra["function"] = unread
    name = function.get("name")
    return ToolCall(
        id=str(replace_lone_surrogates(call.get("id") or "")),
        name=str(replace_lone_surrogates(name)) if isinstance(name, str) else "",
        arguments=_arguments_of(function.get("arguments")),
        extra=extra,
    )


def _arguments_of(arguments: object) -> str:
    """Give a call's arguments as JSON text.

    Missing arguments are an empty object. What was encoded twice is decoded once.
    """
    if arguments is None:
        return "{}"
    if not isinstance(arguments, str):
        return str(replace_lone_surrogates(json.dumps(arguments)))
    text = arguments.strip()
    if not text:
        return "{}"
    if text.startswith('"'):
        with contextlib.suppress(ValueError, RecursionError):
            decoded = json.loads(arguments)
            if isinstance(decoded, str):
                arguments = decoded
    return str(replace_lone_surrogates(arguments))
