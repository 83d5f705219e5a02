"""Read an answer that came as a stream of events.

Some servers stream whatever they are asked for, and some models are served as streams only.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pandas_amr._records.json_fields import get_field, get_list
from pandas_amr.errors import ModelUnavailable

END = "[DONE]"
FIELDS = ("event", "id", "retry")  # of an event, beside its data; a line with ":" is a comment
ERROR = "error"  # the kind of an event; llama.cpp says it in place of "data"
DATA = ("data", ERROR)
FUNCTION_TEXTS = ("name", "arguments")
LINE_ENDS = re.compile(r"\r\n|\n|\r")  # others, such as U+2028, may stand in a text


def completion_of(content: bytes) -> dict[str, Any] | None:
    r"""Put the answer in a stream together; None if the content is not a stream of JSON.

    Raises:
        ModelUnavailable: the stream ended before the answer did.

    Example:
        >>> part = '{"choices": [{"index": 0, "delta": {"content": "No."}}]}'
        >>> completion_of(f"data: {part}\n\ndata: [DONE]\n\n".encode())["choices"]
        [{'index': 0, 'message': {'role': 'assistant', 'content': 'No.'}, 'finish_reason': None}]
    """
    events, is_ended = _events_in(content)
    if not events:
        return None
    completion: dict[str, Any] = {}
    message: dict[str, Any] = {"role": "assistant"}
    reason: Any = None
    for event in events:
        choice = _first_choice(event)
        if _is_error(event):
            if reason is None:
                return event
            continue  # the answer is whole, and its number of tokens may follow
        if "message" in choice:  # the whole answer in one event
            return event
        completion |= {name: value for name, value in event.items() if value is not None}
        reason = choice.get("finish_reason") or reason
        _add_delta(message, choice.get("delta"))
    if not is_ended and reason is None:
        raise ModelUnavailable("The server's answer is a stream that broke off.")
    completion["choices"] = [{"index": 0, "message": message, "finish_reason": reason}]
    return completion


def _is_error(event: dict[str, Any]) -> bool:
    return bool(event.get("error")) or event.get("object") == "error"


def _events_in(content: bytes) -> tuple[list[dict[str, Any]], bool]:
    """Decode the events of a stream; none if it is not one. Tell whether its end is marked."""
    events: list[dict[str, Any]] = []
    kind = ""
    for line in LINE_ENDS.split(content.decode("utf-8-sig", "replace")):
        field, _, value = line.partition(":")
        if field not in DATA:
            if line.strip() and field and field not in FIELDS:
                return [], False
            if field in {"event", ""}:  # an empty line ends an event
                kind = value.strip()
            continue
        if value.strip() == END:
            return events, True
        try:
            event = json.loads(value)
        except (ValueError, RecursionError):
            return [], False
        is_error = ERROR in {field, kind}
        if isinstance(event, dict):
            events.append({"error": event} if is_error and not event.get("error") else event)
    return events, False


def _first_choice(event: dict[str, Any]) -> dict[str, Any]:
    for choice in get_list(event.get("choices")):
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return {}


def _add_delta(message: dict[str, Any], delta: object) -> None:
    """Add what one event says to the message: texts grow, calls by their number."""
    if not isinstance(delta, dict):
        return
    for name, value in delta.items():
        if name == "tool_calls":
            for call in get_list(value):
                _add_call(message.setdefault("tool_calls", []), call)
        elif name != "role" and isinstance(value, str):
            message[name] = (message.get(name) or "") + value
        elif name != "role" and value is not None:
            message[name] = value


def _add_call(calls: list[dict[str, Any]], part: object) -> None:
    """Add a part of a call to the call that it belongs to."""
    if not isinstance(part, dict):
        return
    call = _call_of(calls, part)
    for name, value in part.items():
        if name not in {"index", "function"} and value:
            call[name] = value
    for name in FUNCTION_TEXTS:
        text = get_field(part.get("function"), name)
        if isinstance(text, str):
            call["function"][name] += text


def _call_of(calls: list[dict[str, Any]], part: dict[str, Any]) -> dict[str, Any]:
    """Find the call with a part's number, or begin one; without a number, an id begins one."""
    number = part.get("index")
    if number is None and calls and not part.get("id"):
        return calls[-1]
    for call in calls:
        if number is not None and call["index"] == number:
            return call
    begun = {"index": number, "type": "function", "function": {"name": "", "arguments": ""}}
    calls.append(begun)
    return begun
