"""Recognise calls and texts that the data contains: a row cannot call a tool, or answer."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from pandas_amr._agent.call_forms import ARGUMENT_KEYS, INNER_KEYS, LIST_KEYS, NAME_KEYS, NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pandas_amr._agent.written_calls import WrittenCall
    from pandas_amr.models.base import Message

LEAST_QUOTED = 8  # shorter arguments are not evidence of a quotation
# How far a call's name and arguments may be apart in the data, besides their own length. Kimi
# writes a number between them.
REACH = 3
# Words that the forms of calls put between a call's own words.
WORDS_OF_FORMS = frozenset(
    (
        *NAME_KEYS,
        *ARGUMENT_KEYS,
        *INNER_KEYS,
        *LIST_KEYS,
        *("functions", "parameter", "arg_key", "arg_value", "invoke", "type", "call", "print"),
        *("tool_call_argument_begin", "sep", "constrain", "channel", "commentary", "message"),
        *("json", "code"),
    )
)


def is_in_data(call: WrittenCall, messages: Sequence[Message]) -> bool:
    """Whether the user or a tool has shown a call, in any form.

    A call that the model made before may be in a tool's result: that is the model's own.
    """
    arguments = _normalize(json.dumps(call.arguments, ensure_ascii=False))
    name = _normalize(call.name)
    texts: list[str] = []
    text = _normalize(call.text)
    if len(text) >= LEAST_QUOTED and not _was_made(text, messages):
        texts.append(text)
    has_evidence = len(arguments) >= LEAST_QUOTED
    if has_evidence:
        values = [_normalize(_value_text(value)) for value in call.arguments.values()]
        texts.append(f"{name}({','.join(values)})")
    for content in _data(messages):
        shown = _normalize(content)
        if any(text in shown for text in texts):
            return True
        if not has_evidence:
            continue
        if name in shown and arguments in shown:
            return True
        if _contains_words(call, content):
            return True
    return False


def is_text_in_data(text: str, messages: Sequence[Message]) -> bool:
    """Whether the user or a tool has shown a text word for word."""
    normalized = _normalize(text)
    return any(normalized in _normalize(content) for content in _data(messages))


def _data(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        if message.role in {"user", "tool"} and message.content:
            yield message.content


def _was_made(text: str, messages: Sequence[Message]) -> bool:
    """Whether an earlier call of the model contains a text."""
    for message in messages:
        if any(text in _normalize(call.arguments) for call in message.tool_calls):
            return True
    return False


def _contains_words(call: WrittenCall, shown: str) -> bool:
    """Whether a text has a call's name, and near it each key before its value."""
    text = _words(shown)
    name = _words(call.name)
    pairs = [_words(f"{key} {_value_text(value)}") for key, value in call.arguments.items()]
    reach = sum(map(len, pairs)) + len(name) + REACH
    position = text.find(name)
    while position >= 0:
        nearby = text[max(0, position - reach) : position + reach]
        if all(pair in nearby for pair in pairs):
            return True
        position = text.find(name, position + 1)
    return False


def _words(text: str) -> str:
    """Return the words of a text between spaces, without those of the forms of calls."""
    words = re.findall(r"\w+", _unescape(text, " ").casefold())
    own_words = [word for word in words if word not in WORDS_OF_FORMS]
    return f" {' '.join(own_words)} "


def _value_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _normalize(text: str) -> str:
    """Remove what JSON and layout may change in a text: white space, quotes, escapes, case."""
    return re.sub(r"[\s\\\"'`]", "", _unescape(text, "")).casefold()


def _unescape(text: str, space: str) -> str:
    """Remove namespaces, decode escaped characters, and put ``space`` for escaped white space."""
    text = re.sub(r"\\+u([0-9a-fA-F]{4})", _decode_escape, text)
    return NAMESPACE.sub(r"\1", re.sub(r"\\+[nrtbf]", space, text))


def _decode_escape(match: re.Match[str]) -> str:
    return chr(int(match.group(1), 16))
