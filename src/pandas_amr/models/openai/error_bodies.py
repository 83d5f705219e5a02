"""What the body of an error says, whatever shape it has."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pandas_amr.models.openai.headers import NUMBER, seconds_of, seconds_until_epoch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Known = TypeVar("Known")

DEEPEST = 8  # an error in an error in an error: gateways wrap what they get
MOST_PARTS = 200
MOST_CHARACTERS = 20_000
MESSAGES = frozenset(
    {"message", "msg", "detail", "error_message", "error_description", "errormessage", "raw"}
)
CODES = frozenset({"code", "type", "status", "error_code", "error_type", "reason", "errorcode"})
STATUSES = frozenset({"code", "status", "status_code"})
TAGS = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]*>", re.IGNORECASE | re.DOTALL)
TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
WRAPS = MESSAGES | {"error", "errors"}  # one of them is in each error that is JSON

_UNITS = {
    "ms": "ms", "millisecond": "ms", "s": "s", "sec": "s", "second": "s", "m": "m", "min": "m", "minute": "m",
    "h": "h", "hr": "h", "hour": "h", "d": "d", "day": "d",
}  # fmt: skip
UNIT = "milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d"
# "Please try again in 6m0s.", "Please retry after 55 seconds.", "Please wait 20 seconds", "resets in 3 hours"
TRY_AGAIN = re.compile(
    rf"\b(?:try(?:ing)?\s+again|retry(?:ing)?|available\s+again|resets?|come\s+back|wait)\b[^.\d]{{0,30}}?"
    rf"(?P<duration>(?<![\d.-])(?:{NUMBER}\s*(?:{UNIT})(?![a-z])[\s,]*(?:and\s+)?)+)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An error in a server's words.

    Attributes:
        message: all that it says in words; empty if it says nothing.
        codes: its codes, types and states, in lower case, in whatever place they stood.
        param: which part of the request it speaks of; empty if it does not tell.
        retry_after_s: how long it asks to wait.
        status: the HTTP status that it speaks of, if it does.
    """

    message: str = ""
    codes: frozenset[str] = frozenset()
    param: str = ""
    retry_after_s: float | None = None
    status: int | None = None


def read_error_body(body: Any) -> ErrorBody:
    """Read an error's body: an object, a list of them (Gemini), a text, HTML, or JSON inside a text (gateways).

    Example:
        >>> body = read_error_body([{"error": {"code": 429, "message": "Slow down", "status": "RESOURCE_EXHAUSTED"}}])
        >>> body.message, sorted(body.codes), body.status
        ('Slow down', ['resource_exhausted'], 429)
    """
    parts = list(_parts(body))
    texts = [(name, value) for name, value in parts if isinstance(value, str) and value]
    said = dict.fromkeys(
        value for name, value in texts if name in MESSAGES
    )  # each once: gateways repeat
    message = " ".join(" ".join(said).split())[:MOST_CHARACTERS]
    delay = _first(_delay_of(name, value) for name, value in parts)
    return ErrorBody(
        message,
        frozenset(value.lower() for name, value in texts if name in CODES),
        next((value for name, value in texts if name == "param"), ""),
        delay_in(message) if delay is None else delay,
        _first(_status(value) for name, value in parts if name in STATUSES),
    )


def _first(values: Iterable[Known | None]) -> Known | None:
    return next((value for value in values if value is not None), None)


def delay_in(message: str) -> float | None:
    """How many seconds a sentence asks to wait; None if it does not.

    Example:
        >>> delay_in("Rate limit reached. Please try again in 1m2.5s."), delay_in("try again in 20ms")
        (62.5, 0.02)
    """
    found = TRY_AGAIN.search(message)
    if found is None:
        return None
    parts = re.findall(rf"({NUMBER})\s*({UNIT})(?![a-z])", found["duration"].lower())
    return seconds_of("".join(number + _unit(unit) for number, unit in parts))


def _unit(word: str) -> str:
    return _UNITS.get(word) or _UNITS[word.removesuffix("s")]


def _status(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) == 3:
        value = int(value)
    is_status = isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599
    return value if is_status else None


def _delay_of(name: str, value: Any) -> float | None:
    """Read a delay that has a field of its own: Gemini's ``retryDelay``, ``retry_after``, OpenRouter's headers."""
    plain = name.replace("-", "").replace("_", "").lower()
    if plain in {"retrydelay", "retryafter", "retryafterseconds"}:
        if isinstance(value, Mapping):  # as protobuf has it
            return seconds_of(f"{value.get('seconds', '')}")
        return seconds_of(str(value)) if isinstance(value, str | int | float) else None
    if plain == "xratelimitreset" and isinstance(value, str | int):
        number = seconds_of(str(value))
        return seconds_until_epoch(number) if number is not None and number >= 1e9 else None
    return None


def _parts(body: Any) -> Iterator[tuple[str, Any]]:
    """All named values of a body, outermost first; a text that is JSON counts as what it says."""
    level: list[tuple[str, Any]] = [("message", body)]
    seen = 0
    for _ in range(DEEPEST):
        deeper: list[tuple[str, Any]] = []
        for name, value in level:
            seen += 1
            if seen > MOST_PARTS:
                return
            if isinstance(value, str):
                inner = _decoded(value)
                if inner is not None:
                    deeper.append(("message", inner))
                    yield name, _before_json(value)
                    continue
                yield name, _without_tags(value)
                continue
            yield name, value
            deeper += _inside(name, value)
        level = deeper


def _inside(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        place, said = value.get("loc"), value.get("msg")
        if isinstance(place, list) and isinstance(said, str):  # FastAPI
            value = {**value, "msg": f"{'.'.join(map(str, place))}: {said}"}
        # {"error": "model not found"} says it in words
        return [
            ("message" if key == "error" else str(key).lower(), one) for key, one in value.items()
        ]
    if isinstance(value, list | tuple):
        return [(name, one) for one in value[:MOST_PARTS]]
    return []


def _decoded(text: str) -> Any:
    """The error as JSON in a text, with what stands around it left aside; None if there is none."""
    start, end = _place(text)
    if end <= start or len(text) > MOST_CHARACTERS:
        return None
    try:
        inner = json.loads(text[start:end])
    except (ValueError, RecursionError):
        return None
    first = next(iter(inner), None) if isinstance(inner, list) else inner
    return (
        inner
        if isinstance(first, Mapping) and WRAPS & {str(key).lower() for key in first}
        else None
    )


def _before_json(text: str) -> str:
    """What stands before the JSON in a text, such as "litellm.BadRequestError:"."""
    return text[: _place(text)[0]].strip()


def _place(text: str) -> tuple[int, int]:
    """Where the JSON in a text begins and ends."""
    starts = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    return min(starts, default=0), max(text.rfind("}"), text.rfind("]")) + 1


def _without_tags(text: str) -> str:
    text = text[:MOST_CHARACTERS]
    if "<" not in text or not re.search(
        r"<(?:!doctype|html|head|body|title|h1|center)\b", text, re.IGNORECASE
    ):
        return text
    title = TITLE.search(text)
    return (title.group(1) if title is not None else TAGS.sub(" ", text)).strip()
