"""Change messages of a conversation: ids of calls, calls written as text, extra fields."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pandas_amr.models.base import Message, ToolCall

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pandas_amr._agent.written_calls import WrittenCalls


def with_written_calls(message: Message, written: WrittenCalls) -> Message:
    """Turn calls that were written as text into calls, as if the server had done it."""
    calls: list[ToolCall] = []
    for call in written.calls:
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        calls.append(ToolCall("", call.name, arguments))
    extra = without_keys(message.extra, ("content",))
    return replace(message, content=written.rest or None, tool_calls=tuple(calls), extra=extra)


def with_ids(message: Message, earlier: Sequence[Message]) -> Message:
    """Give each call without an id of its own a new one; other ids of the server stay."""
    taken = {call.id for other in earlier for call in other.tool_calls}
    used: set[str] = set()
    calls: list[ToolCall] = []
    for call in message.tool_calls:
        call_id, number = call.id, len(taken)
        while not call_id or call_id in used:
            candidate = f"call{number:05d}"  # nine letters and digits, which Mistral requires
            call_id = candidate if candidate not in taken else ""
            number += 1
        used.add(call_id)
        calls.append(replace(call, id=call_id))
    return replace(message, tool_calls=tuple(calls))


def rejected_keys(error: str, conversation: Sequence[Message]) -> set[str]:
    """Return the extra fields that a server sent in its messages, and rejects when sent back.

    The first DeepSeek-R1 did so with its reasoning.
    """
    keys: set[str] = set()
    for message in conversation:
        keys.update(message.extra)
        for call in message.tool_calls:
            keys.update(call.extra)
    keys -= {"content", "function"}
    return {key for key in keys if re.search(rf"\b{re.escape(key)}\b", error)}


def without_extra(message: Message, keys: Collection[str]) -> Message:
    """Remove extra fields from a message and its calls."""
    calls = [replace(call, extra=without_keys(call.extra, keys)) for call in message.tool_calls]
    extra = without_keys(message.extra, keys)
    return replace(message, tool_calls=tuple(calls), extra=extra)


def without_keys(extra: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Return the fields that are not named."""
    return {key: value for key, value in extra.items() if key not in keys}
