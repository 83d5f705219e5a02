"""What a run would send, before it sends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pandas_amr._records.public import public
from pandas_amr._records.terminal import escape_unprintable, shorten_lines

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

MOST_LABELS = 20
LABEL_CHARACTERS = 80
MESSAGE_LINES = 16
LINE_CHARACTERS = 160


@public
@dataclass(frozen=True, slots=True)
class Outgoing:
    """What leaves the machine if a plan runs. Its text is safe to print, whatever rows hold.

    Attributes:
        models: each model with the address of its server, and for what it is asked.
        sent: the columns whose values are sent.
        readable: columns that are sent as far as ``reader`` reads them.
        reader: who that is: code of the model, or a recipe's stages.
        unsent: the columns whose values are not sent.
        redact: the name of the ``redact`` function that texts pass; None without one.
        request: the body of the first request; None if none can be told before the run.
    """

    models: tuple[str, ...]
    sent: tuple[Hashable, ...] = ()
    readable: tuple[Hashable, ...] = ()
    reader: str = ""
    unsent: tuple[Hashable, ...] = ()
    redact: str | None = None
    request: Mapping[str, Any] | None = None

    @property
    def lines(self) -> list[str]:
        """The text, line by line."""
        if not self.models:
            return ["sends: nothing"]
        lines = [f"sends to: {escape_unprintable(model)}" for model in self.models]
        lines.append(f"columns sent: {_write_labels(self.sent)}")
        if self.readable:
            lines.append(f"columns sent as far as {self.reader}: {_write_labels(self.readable)}")
        lines.append(f"columns not sent: {_write_labels(self.unsent)}")
        if self.redact is not None:
            lines.append(f"redacted by: {escape_unprintable(self.redact)}")
        return lines + _write_request(self.request)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    __repr__ = __str__


def _write_labels(labels: Sequence[Hashable]) -> str:
    texts: list[str] = []
    for label in labels[:MOST_LABELS]:
        text = escape_unprintable(repr(label))
        texts.append(text[:LABEL_CHARACTERS])
    more = len(labels) - len(texts)
    if more:
        texts.append(f"and {more} more")
    return ", ".join(texts) or "none"


def _write_request(body: Mapping[str, Any] | None) -> list[str]:
    """Write the beginning of each message, and what is sent beside them."""
    if body is None:
        return []
    lines = [f"first request{_write_form(body)}; requests() gives it whole:"]
    for message in body.get("messages", ()):
        role = escape_unprintable(str(message["role"]))
        content = str(message.get("content") or "")
        lines.append(f"  {role}:")
        for line in shorten_lines(
            content, most_lines=MESSAGE_LINES, most_characters=LINE_CHARACTERS
        ):
            lines.append(f"    {line}")
    return lines


def _write_form(body: Mapping[str, Any]) -> str:
    """Name the schema of the answer, and the tools."""
    parts: list[str] = []
    schema = body.get("response_format", {}).get("json_schema", {}).get("name")
    if schema is not None:
        parts.append(f"schema {schema}")
    names = [str(tool["function"]["name"]) for tool in body.get("tools", ())]
    if names:
        parts.append(f"tools {', '.join(names)}")
    if not parts:
        return ""
    return escape_unprintable(f" ({'; '.join(parts)})")
