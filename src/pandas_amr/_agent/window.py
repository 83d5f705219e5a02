"""Fit a conversation into the model's context window: the oldest tool results go first."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pandas_amr._records.cut import cut_middle
from pandas_amr.errors import ModelRejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._records.tokens import TokenCounter
    from pandas_amr.models.base import Message, Request

MESSAGE_TOKENS = 8  # a message's role, and what separates messages
LEAST_CHARS = 200  # of a result of the last turn, however much is cut
LONGEST_ANSWER = 2_000  # characters of an earlier answer of the model, if space is short
SAFETY = 0.9  # part of the space that is used where it is counted in characters


@dataclass(frozen=True, slots=True)
class Window:
    """How much of a model's context window a prompt may use.

    Attributes:
        whole: the window, in tokens.
        tokens: the window without the tokens reserved for the answer.
        count: counts the tokens of a text.
    """

    whole: int
    tokens: int
    count: TokenCounter

    def fit(self, request: Request) -> list[Message]:
        """Return the request's messages, shortened until they fit.

        Tool results are left out, the oldest first; then earlier answers of the model are cut, and
        at last the results of the last turn, which the model has not read yet.

        Raises:
            ModelRejected: the conversation does not fit whatever is left out; nothing was sent.
        """
        messages = list(request.messages)
        fixed = _fixed_text(request)
        characters = len(fixed) + MESSAGE_TOKENS * len(messages)
        for message in messages:
            characters += sum(map(len, _texts(message)))
        if characters <= self.tokens:
            # A token has at least one character in practice: this fits without counting tokens.
            return messages
        tokens = self.count(fixed) + sum(self._size(message) for message in messages)
        excess = self._shorten(messages, tokens - self.tokens)
        if excess > self.whole - self.tokens:  # else a shorter answer may still fit
            raise ModelRejected(
                f"The conversation would be longer than the model's window of {self.whole:,} "
                "tokens (LM(abilities=amr.Abilities(context_window=...))).",
                too_long=True,
                attempts=0,
            )
        return messages

    def _shorten(self, messages: list[Message], excess: int) -> int:
        """Shorten the messages; return how many tokens are still too many."""
        unread = _first_unread(messages)
        for shorten in (_without_result, _without_middle):
            for number in range(unread):
                if excess <= 0:
                    return excess
                message = messages[number]
                messages[number] = shorten(message)
                excess -= self._size(message) - self._size(messages[number])
        return self._cut_unread(messages, unread, excess) if excess > 0 else excess

    def _cut_unread(self, messages: list[Message], unread: int, excess: int) -> int:
        """Cut the results of the last turn, all by the same share; return as ``_shorten``."""
        last_turn = range(unread, len(messages))
        numbers = [number for number in last_turn if messages[number].role == "tool"]
        size = sum(self._size(messages[number]) for number in numbers)
        if not size:
            return excess
        share = max(0.0, 1 - excess / size) * SAFETY
        for number in numbers:
            message = messages[number]
            text = message.content or ""
            shorter = cut_middle(text, max(LEAST_CHARS, int(len(text) * share)))
            messages[number] = replace(message, content=shorter)
            excess -= self._size(message) - self._size(messages[number])
        return excess

    def _size(self, message: Message) -> int:
        return MESSAGE_TOKENS + sum(self.count(text) for text in _texts(message) if text)


def _texts(message: Message) -> list[str]:
    """Return all texts of a message that are sent."""
    texts = [message.content or ""]
    texts += [f"{call.name} {call.arguments}" for call in message.tool_calls]
    if message.extra:
        texts.append(json.dumps(dict(message.extra), ensure_ascii=False))
    return texts


def _fixed_text(request: Request) -> str:
    """Return what is sent besides the messages: tools and schema."""
    parts = [
        f"{tool.name} {tool.description} {json.dumps(dict(tool.parameters))}"
        for tool in request.tools
    ]
    if request.schema is not None:
        parts.append(request.schema.text)
    return "\n".join(parts)


def _first_unread(messages: Sequence[Message]) -> int:
    """Return the number of the first message after the model's last one."""
    for number in range(len(messages) - 1, -1, -1):
        if messages[number].role == "assistant":
            return number + 1
    return len(messages)


def _without_result(message: Message) -> Message:
    """Leave out the result of a tool's message; return any other message as it is."""
    text = message.content or ""
    note = (
        f"[This result of {len(text):,} characters was left out: the conversation has grown too "
        "long.]"
    )
    if message.role != "tool" or len(note) >= len(text):
        return message
    return replace(message, content=note)


def _without_middle(message: Message) -> Message:
    """Cut the middle of a long answer of the model; return any other message as it is."""
    text = message.content or ""
    if message.role != "assistant" or len(text) <= LONGEST_ANSWER:
        return message
    # Some servers send the same text again, in parts.
    extra = {key: value for key, value in message.extra.items() if key != "content"}
    return replace(message, content=cut_middle(text, LONGEST_ANSWER), extra=extra)
