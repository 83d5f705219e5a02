"""A conversation in the model's window: what grows beyond it is shortened, oldest results first."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pandas_amr._agent.results import cut_middle
from pandas_amr.errors import ModelRejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._records.tokens import TokenCounter
    from pandas_amr.models.base import Message, Request

MESSAGE_TOKENS = 8  # of a message's role, and what stands between messages
LEAST_CHARS = 200  # of a result of the last turn that was cut
LONGEST_SAID = 2_000  # characters of an answer of the model's own, where there is no room for all
SAFETY = 0.9  # of the room, where it is reckoned in characters


@dataclass(frozen=True, slots=True)
class Window:
    """What a prompt may take of a model's context window.

    Attributes:
        whole: the window, in tokens.
        tokens: the same without what is kept for the answer.
        count: counts the tokens of a text.
    """

    whole: int
    tokens: int
    count: TokenCounter

    def fit(self, request: Request) -> list[Message]:
        """The request's conversation, shortened until it fits.

        Results of tools are left out, the oldest first; then what the model itself has said is cut, and the results of
        the last turn, which nobody has read.

        Raises:
            ModelRejected: it does not fit, whatever is left out: nothing was sent.
        """
        messages = list(request.messages)
        fixed = _fixed_text(request)
        if len(fixed) + sum(_length(message) for message in messages) <= self.tokens:
            return (
                messages  # a token has a character at least, as good as always: nothing is counted
            )
        excess = self.count(fixed) + sum(self._size(message) for message in messages) - self.tokens
        unread = _first_unread(messages)
        for shorten in (_without_result, _without_middle):
            for number, message in enumerate(messages[:unread]):
                if excess > 0:
                    messages[number] = shorten(message)
                    excess -= self._size(message) - self._size(messages[number])
        if excess > 0:
            excess = self._cut_unread(messages, unread, excess)
        if excess > self.whole - self.tokens:  # else the answer may yet be short enough
            raise ModelRejected(
                f"The conversation would be longer than the model's window of {self.whole:,} tokens "
                "(LM(abilities=amr.Abilities(context_window=...))).",
                too_long=True,
                attempts=0,
            )
        return messages

    def _cut_unread(self, messages: list[Message], unread: int, excess: int) -> int:
        """Cut the last turn's results, all by the same share; return the tokens that are still too many."""
        numbers = [
            number for number in range(unread, len(messages)) if messages[number].role == "tool"
        ]
        size = sum(self._size(messages[number]) for number in numbers)
        share = max(0.0, 1 - excess / size) * SAFETY if size else 0.0
        for number in numbers:
            before = messages[number]
            text = before.content or ""
            messages[number] = replace(
                before, content=cut_middle(text, max(LEAST_CHARS, int(len(text) * share)))
            )
            excess -= self._size(before) - self._size(messages[number])
        return excess

    def _size(self, message: Message) -> int:
        return MESSAGE_TOKENS + sum(self.count(text) for text in _texts(message) if text)


def _texts(message: Message) -> list[str]:
    """All that is sent of a message."""
    calls = [f"{call.name} {call.arguments}" for call in message.tool_calls]
    extra = [json.dumps(dict(message.extra), ensure_ascii=False)] if message.extra else []
    return [message.content or "", *calls, *extra]


def _length(message: Message) -> int:
    return MESSAGE_TOKENS + sum(len(text) for text in _texts(message))


def _fixed_text(request: Request) -> str:
    """What is sent beside the messages."""
    tools = [
        f"{tool.name} {tool.description} {json.dumps(dict(tool.parameters))}"
        for tool in request.tools
    ]
    schema = [json.dumps(dict(request.schema.schema))] if request.schema is not None else []
    return "\n".join([*tools, *schema])


def _first_unread(messages: Sequence[Message]) -> int:
    """The number of the first message after the model's last one."""
    for number in range(len(messages) - 1, -1, -1):
        if messages[number].role == "assistant":
            return number + 1
    return len(messages)


def _without_result(message: Message) -> Message:
    """A tool's message whose result is left out; any other as it is."""
    text = message.content or ""
    note = f"[This result of {len(text):,} characters was left out: the conversation has grown too long.]"
    return (
        replace(message, content=note)
        if message.role == "tool" and len(note) < len(text)
        else message
    )


def _without_middle(message: Message) -> Message:
    """What the model said at length, without its middle; any other message as it is."""
    text = message.content or ""
    if message.role != "assistant" or len(text) <= LONGEST_SAID:
        return message
    extra = {
        key: value for key, value in message.extra.items() if key != "content"
    }  # the same text, in parts
    return replace(message, content=cut_middle(text, LONGEST_SAID), extra=extra)
