"""The JSON object in a model's text, whatever stands around it: thoughts, fences, prose, a BOM."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from pandas_amr._types.json_text import DoubledKey, make_object
from pandas_amr.models.openai.reply import is_too_deep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NO_JSON = "it is no JSON"
NO_OBJECT = "the answer is no JSON object"
SEVERAL = "the answer holds several JSON objects, not one"
CUT_OFF = "the answer was cut off at its greatest length"

BYTE_ORDER_MARK = "\ufeff"
# Of JSON: texts (one that does not end goes on to the end), and what opens, closes and follows a key.
JSON_MARK = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[{}\[\]:]', re.DOTALL)
OPENING = re.compile(r"[{\[]")
OPENED = re.compile(
    r"\s*(?:<(?:think|thinking|thought|reasoning)>|\[THINK\]|\u25c1think\u25b7)", re.IGNORECASE
)
CLOSED = re.compile(
    r"</(?:think|thinking|thought|reasoning)>|\[/THINK\]|\u25c1/think\u25b7|"
    r"<\|channel\|>final(?: <\|constrain\|>\w+)?<\|message\|>",
    re.IGNORECASE,
)
FENCE_BEFORE = re.compile(r"```[\w-]*\s*\Z")
FENCE_AFTER = re.compile(r"\s*```")
# What chat templates put at the end of a turn, and servers forget to take away.
END_MARK = re.compile(r"<\|\w+\|>|</s>|<end_of_turn>|<\uff5c[\w\u2581]+\uff5c>")


class TooDeep(ValueError):
    """A model's JSON is nested deeper than any answer is: the model did not stop."""

    def __init__(self) -> None:
        super().__init__("it is nested too deeply")


@dataclass(frozen=True, slots=True)
class Value:
    """A list or an object that stands in a text, and where.

    Attributes:
        problem: why it cannot be read; None if it was.
    """

    start: int
    end: int
    value: Any
    problem: str | None = None


def is_never_quoted(text: str) -> bool:
    """Tell that a text stands in no data: where there are none."""
    del text
    return False


def decoded(
    text: str | None,
    finish_reason: str = "stop",
    *,
    is_quoted: Callable[[str], bool] = is_never_quoted,
) -> tuple[Any, str | None]:
    """The JSON object in an answer's text, or what is wrong with it.

    The text may be the object; or it stands in it once, in a fence or beside prose, and after the model's thoughts. Of
    several objects the only one in a fence is meant; else nobody can tell which one is, and none is taken.

    Args:
        text: what the model said.
        finish_reason: why it ended.
        is_quoted: tells what stands verbatim in the data: prose that quotes an object of a row is no answer.

    Example:
        >>> decoded('{"a": 1}')
        ({'a': 1}, None)
        >>> decoded('<think>{"a": 2}?</think>It is {"a": 1}.')
        ({'a': 1}, None)
        >>> decoded("I think so.")
        (None, 'the answer is no JSON object')
        >>> decoded('{"a": 1, "a": 2}')
        (None, 'the answer cannot be read: an object in it names a key twice')
    """
    cut = finish_reason == "length"
    said = (text or "").strip().strip(BYTE_ORDER_MARK).strip()
    if not said:
        return None, _empty_words(cut=cut)
    payload, problem = _whole(said)
    if isinstance(payload, dict) or (problem is not None and problem != NO_OBJECT):
        return payload, problem
    rest, thinks_on = without_thoughts(said)
    if not rest:
        return None, _empty_words(cut=cut)
    if cut and thinks_on:
        return None, CUT_OFF
    payload, problem = _object_in(rest, is_quoted, ends=thinks_on, alone=cut)
    if cut and problem is not None:
        return _beginning(rest), CUT_OFF
    return payload, problem


def _empty_words(*, cut: bool) -> str:
    return "the answer is empty" + (", its tokens were used up" if cut else "")


def _whole(text: str) -> tuple[Any, str | None]:
    """The object that a text is."""
    try:
        payload = loads(text)
    except DoubledKey as error:
        return None, f"the answer cannot be read: {error}"
    except ValueError:
        return None, NO_OBJECT
    return (payload, None) if isinstance(payload, dict) else (None, NO_OBJECT)


def without_thoughts(text: str) -> tuple[str, bool]:
    """What a model says after it has thought, and whether it does not say where its thoughts end.

    Example:
        >>> without_thoughts("<think>Hm.</think> Yes."), without_thoughts("Hm.</think> Yes."), without_thoughts("Yes.")
        (('Yes.', False), ('Yes.', False), ('Yes.', False))
    """
    closings = list(CLOSED.finditer(text))
    if closings:
        spans = [(value.start, value.end) for value in values_in(text) if value.problem is None]
        for closing in reversed(closings):
            if not any(
                start < closing.start() < end for start, end in spans
            ):  # else an answer that quotes the mark
                return text[closing.end() :].strip(), False
    opened = OPENED.match(text)
    return (text[opened.end() :].strip(), True) if opened else (text, False)


def values_in(text: str) -> Iterator[Value]:
    """Yield the outermost lists and objects in a text; what stands in one that cannot be read is none of them."""
    at = 0
    while (opening := OPENING.search(text, at)) is not None:
        start = opening.start()
        try:
            value, end = _DECODER.raw_decode(text, start)
            problem = "it is nested too deeply" if is_too_deep(value) else None
        except (ValueError, RecursionError) as error:
            closing = _closing(text, start)
            if closing is None:
                return
            value, end = None, closing
            problem = str(error) if isinstance(error, DoubledKey) else NO_JSON
        yield Value(start, end, value, problem)
        at = end


def _closing(text: str, start: int) -> int | None:
    """Where what opens at ``start`` is closed; None if it is not."""
    depth = 0
    for match in JSON_MARK.finditer(text, start):
        mark = match.group()
        if mark in {"{", "["}:
            depth += 1
        elif mark in {"}", "]"}:
            depth -= 1
        if depth == 0:
            return match.end()
    return None


def is_fenced(text: str, value: Value) -> bool:
    """Whether a value is all that stands in a fenced block."""
    before, after = text[max(0, value.start - 40) : value.start], text[value.end : value.end + 40]
    return bool(FENCE_BEFORE.search(before) and FENCE_AFTER.match(after))


def stands_alone(text: str, value: Value) -> bool:
    """Whether nothing stands around a value but its fence, and marks of the chat template."""
    around = FENCE_BEFORE.sub("", text[: value.start]) + FENCE_AFTER.sub(
        "", text[value.end :], count=1
    )
    return not END_MARK.sub("", around).strip()


def _object_in(
    text: str, is_quoted: Callable[[str], bool], *, ends: bool, alone: bool
) -> tuple[Any, str | None]:
    """The one object in a text.

    With ``ends`` it has to be its end, since what comes before may be thoughts; with ``alone`` nothing may stand
    around it, since the answer was not at its end.
    """
    objects = _last_object_in(text) if ends else _objects_in(text)
    if len(objects) > 1:
        fenced = [value for value in objects if is_fenced(text, value)]
        if len(fenced) != 1:
            return None, SEVERAL
        objects = fenced
    if not objects:
        return None, NO_OBJECT
    only = objects[0]
    if only.problem is not None:
        return None, f"the answer cannot be read: {only.problem}"
    if not stands_alone(text, only) and (alone or is_quoted(text[only.start : only.end])):
        return None, NO_OBJECT
    return only.value, None


def _objects_in(text: str) -> list[Value]:
    """The outermost objects in a text; what only looks like one is none."""
    return [
        value for value in values_in(text) if text[value.start] == "{" and value.problem != NO_JSON
    ]


def _last_object_in(text: str) -> list[Value]:
    """The object with which a text ends, if it does."""
    return [value for value in _objects_in(text)[-1:] if _ends(text, value)]


def _ends(text: str, value: Value) -> bool:
    """Whether a text ends with a value."""
    return not END_MARK.sub("", text[value.end :]).strip(" \t\r\n`")


def loads(text: str) -> Any:
    """Decode JSON in which no object names a key twice; ``json.loads`` would keep the last in silence.

    A whole number of more digits than Python reads is infinite: no field takes it, and other findings stand.

    Raises:
        DoubledKey: one does.
        TooDeep: it is nested deeper than any answer is.
        ValueError: it is no JSON.

    Example:
        >>> loads('{"unit": 0}')
        {'unit': 0}
    """
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise TooDeep from None
    if is_too_deep(value):
        raise TooDeep
    return value


def _whole_number(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # more digits than Python reads
        return float(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=make_object, parse_int=_whole_number)


def _beginning(text: str) -> Any:
    """What an answer that was cut off says before the cut; None if an object in it names a key twice."""
    opening = text.find("{")
    if opening < 0 or _closing(text, opening) is not None or _has_doubled_key(text):
        return None
    try:
        payload = from_json(text[opening:], allow_partial=True)
    except ValueError:
        return None
    return payload if isinstance(payload, dict) else None


def _has_doubled_key(text: str) -> bool:
    """Tell whether an object in a JSON text that was cut off names a key twice.

    Example:
        >>> _has_doubled_key('[{"unit": 0, "unit": 1}, {"un'), _has_doubled_key('[{"unit": 0}, {"unit": ')
        (True, False)
    """
    open_: list[set[str]] = []  # the keys of each object or list that is not closed yet
    last = ""
    for match in JSON_MARK.finditer(text):
        mark = match.group()
        if mark in {"{", "["}:
            open_.append(set())
        elif mark in {"}", "]"}:
            del open_[-1:]
        elif mark != ":":
            last = _spelled(mark)
        elif open_ and last in open_[-1]:
            return True
        elif open_:
            open_[-1].add(last)
    return False


def _spelled(text: str) -> str:
    """Decode a JSON text; what is none stays as it is."""
    try:
        return str(json.loads(text))
    except ValueError:
        return text
