"""The answers of a script, besides dicts and texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Call:
    """A tool call; a list of them is one turn with several calls."""

    name: str
    arguments: Mapping[str, Any] | str


@dataclass(frozen=True)
class Status:
    """An HTTP error in place of an answer."""

    status: int
    message: str = "scripted"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """A response body as it is, or a choice with its ``finish_reason`` and ``refusal``.

    ``usage`` is the usage that the answer states, in place of an estimate by length; ``headers``
    are sent with it.
    """

    text: str | None = None
    body: str | None = None
    finish_reason: str = "stop"
    refusal: str | None = None
    usage: Any = ...
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Drop:
    """A connection reset in place of an answer."""
