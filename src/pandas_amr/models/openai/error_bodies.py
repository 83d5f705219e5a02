"""Read the body of an error, whatever shape it has."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pandas_amr._records.terminal import escape_unprintable
from pandas_amr.models.openai.headers import (
    DURATION_PATTERN,
    EPOCH_S,
    seconds_of,
    seconds_until_epoch,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

Value = TypeVar("Value")

DEEPEST = 8  # levels of errors within errors: gateways wrap what they get
MOST_PARTS = 200
MOST_CHARACTERS = 20_000
MOST_OF_PAGE = 4_000  # of which tags are removed: some texts take as long as the square of this
MESSAGES = frozenset(
    {
        *("message", "msg", "detail", "error_message", "error_description", "errormessage", "raw"),
        *("status_msg", "error_msg"),  # MiniMax, Baidu
    }
)
CODES = frozenset({"code", "type", "status", "error_code", "error_type", "reason", "errorcode"})
STATUSES = frozenset({"code", "status", "status_code"})
TAGS = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]*>", re.IGNORECASE | re.DOTALL)
HTML = re.compile(r"<(?:!doctype|html|head|body|title|h1|center)\b", re.IGNORECASE)
TITLE = re.compile(r"<title[^<>]*>([^<]*)</title>", re.IGNORECASE)
WRAPS = MESSAGES | {"error", "errors"}  # one of them is in each error that is JSON

# "Please try again in 6m0s.", "Please retry after 55 seconds.", "Please wait 20 seconds",
# "resets in 3 hours"
TRY_AGAIN = re.compile(
    r"\b(?:try(?:ing)?\s+again|retry(?:ing)?|available\s+again|resets?|come\s+back|wait)\b"
    r"[^.\d]{0,30}?"
    rf"(?P<duration>(?<![\d.-]){DURATION_PATTERN})",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An error as the server describes it.

    Attributes:
        message: all its texts; empty if there are none.
        codes: its codes, types and states, in lower case, wherever they stood.
        param: the part of the request that it is about; empty if it does not say.
        retry_after_s: how long it asks to wait.
        status: the HTTP status that it names.
        is_page: whether it is a web page.
    """

    message: str = ""
    codes: frozenset[str] = frozenset()
    param: str = ""
    retry_after_s: float | None = None
    status: int | None = None
    is_page: bool = False


def read_error_body(body: object) -> ErrorBody:
    """Read the body of an error.

    It may be an object, a list of objects (Gemini), a text, HTML, or JSON inside a text (gateways).

    Example:
        >>> error = {"code": 429, "message": "Slow down", "status": "RESOURCE_EXHAUSTED"}
        >>> body = read_error_body([{"error": error}])
        >>> body.message, sorted(body.codes), body.status
        ('Slow down', ['resource_exhausted'], 429)
    """
    parts = list(_parts(body))
    texts = [(name, value) for name, value in parts if isinstance(value, str) and value]
    # Gateways repeat messages: each counts once.
    messages = dict.fromkeys(_values(texts, MESSAGES))
    message = " ".join(" ".join(messages).split())[:MOST_CHARACTERS]
    message = escape_unprintable(message)  # an error's text is printed, and a terminal obeys
    delay = _first(_delay_of(name, value) for name, value in parts)
    if delay is None:
        delay = delay_in(message)
    return ErrorBody(
        message,
        codes=frozenset(value.lower() for value in _values(texts, CODES)),
        param=next(_values(texts, {"param"}), ""),
        retry_after_s=delay,
        status=_first(_status(value) for value in _values(parts, STATUSES)),
        is_page=isinstance(body, str) and is_web_page(body),
    )


def _values(parts: Iterable[tuple[str, Value]], names: Container[str]) -> Iterator[Value]:
    """Give the values of the parts that have one of the names."""
    return (value for name, value in parts if name in names)


def _first(values: Iterable[Value | None]) -> Value | None:
    return next((value for value in values if value is not None), None)


def delay_in(message: str) -> float | None:
    """Give the seconds that a sentence asks to wait; None if it does not ask.

    Example:
        >>> delay_in("Please try again in 1m2.5s."), delay_in("try again in 20ms")
        (62.5, 0.02)
    """
    match = TRY_AGAIN.search(message)
    return None if match is None else seconds_of(match["duration"])


def _status(value: object) -> int | None:
    """Read an HTTP status of an error; None if it is not one."""
    if isinstance(value, str) and value.isdecimal() and len(value) == 3:
        value = int(value)
    if not isinstance(value, int) or not 400 <= value <= 599:
        return None
    return value


def _delay_of(name: str, value: object) -> float | None:
    """Read a delay with its own field: Gemini's ``retryDelay``, ``retry_after``, OpenRouter's."""
    plain = name.replace("-", "").replace("_", "").lower()
    if plain in {"retrydelay", "retryafter", "retryafterseconds"}:
        if isinstance(value, Mapping):  # protobuf
            value = value.get("seconds", "")
        if isinstance(value, str | int | float):
            return seconds_of(str(value))
    elif plain == "xratelimitreset" and isinstance(value, str | int):
        number = seconds_of(str(value))
        if number is not None and number >= EPOCH_S:
            return seconds_until_epoch(number)
    return None


def _parts(body: object) -> Iterator[tuple[str, Any]]:
    """Give all named values of a body, the outermost first; JSON in a text counts as its values."""
    level: list[tuple[str, Any]] = [("message", body)]
    count = 0
    for _ in range(DEEPEST):
        deeper: list[tuple[str, Any]] = []
        for name, value in level:
            count += 1
            if count > MOST_PARTS:
                return
            if not isinstance(value, str):
                yield name, value
                deeper += _children(name, value)
                continue
            error = _decode_error(value)
            if error is None:
                yield name, _remove_tags(value)
            else:
                deeper.append(("message", error))
                yield name, _text_before_json(value)
        level = deeper


def _children(name: str, value: object) -> list[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        return [(name, item) for item in value[:MOST_PARTS]]
    if not isinstance(value, Mapping):
        return []
    place, message = value.get("loc"), value.get("msg")
    if isinstance(place, list) and isinstance(message, str):  # FastAPI
        value = {**value, "msg": f"{'.'.join(map(str, place))}: {message}"}
    children: list[tuple[str, Any]] = []
    for key, item in value.items():
        # the value of "error" may be the message: {"error": "model not found"}
        child = "message" if key == "error" else str(key).lower()
        children.append((child, item))
    return children


def _decode_error(text: str) -> Any:
    """Decode an error that is JSON in a text; None if there is none."""
    start, end = _json_bounds(text)
    if end <= start or len(text) > MOST_CHARACTERS:
        return None
    try:
        error = json.loads(text[start:end])
    except (ValueError, RecursionError):
        return None
    first = error
    if isinstance(error, list):
        first = next(iter(error), None)
    if not isinstance(first, Mapping):
        return None
    names = {str(key).lower() for key in first}
    return error if WRAPS & names else None


def _text_before_json(text: str) -> str:
    """Give the text before the JSON in it, such as "litellm.BadRequestError:"."""
    return text[: _json_bounds(text)[0]].strip()


def _json_bounds(text: str) -> tuple[int, int]:
    """Give the start and the end of the JSON in a text."""
    start = re.search(r"[{\[]", text)
    end = max(text.rfind("}"), text.rfind("]")) + 1
    return (start.start() if start else 0), end


def is_web_page(text: str) -> bool:
    """Tell whether a text is HTML.

    Example:
        >>> is_web_page("<!DOCTYPE html><title>Sign in</title>"), is_web_page('{"a": "<html>"}')
        (True, False)
    """
    return HTML.match(text.lstrip()) is not None


def _remove_tags(text: str) -> str:
    """Give the title of an HTML page, or its text without tags; other texts as they are."""
    text = text[:MOST_CHARACTERS]
    if "<" not in text or not HTML.search(text):
        return text
    title = TITLE.search(text)
    if title is not None:
        return title.group(1).strip()
    return TAGS.sub(" ", text[:MOST_OF_PAGE]).strip()
