"""Find the JSON object in a model's answer, among thoughts, fences, prose and a byte-order mark."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from pandas_amr._agent.expressions import FINDINGS, read_findings, read_loosely
from pandas_amr._agent.strict_json import DECODER, loads
from pandas_amr._types.json_text import RepeatedKey
from pandas_amr.models.openai.reply import is_too_deep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NO_JSON = "it is not JSON"
NO_OBJECT = "the answer is not a JSON object"
SEVERAL = "the answer holds several JSON objects, not one"
CUT_OFF = "the answer was cut off at its greatest length"

BYTE_ORDER_MARK = "\ufeff"
# Parts of JSON: a string (one that is not closed extends to the end), brackets, and the colon.
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
ONLY_FENCE = re.compile(r"```[\w-]*\s*(?P<body>.*?)\s*```", re.DOTALL)
# Chat templates end a turn with such marks, and some servers leave them in the answer.
END_MARK = re.compile(r"<\|\w+\|>|</s>|<end_of_turn>|<\uff5c[\w\u2581]+\uff5c>")


@dataclass(frozen=True, slots=True)
class Value:
    """A list or an object within a text, with its place.

    Attributes:
        problem: why it cannot be read; None if it can.
    """

    start: int
    end: int
    value: Any
    problem: str | None = None


def is_never_quoted(text: str) -> bool:
    """Say that a text is not in the data, for requests without data."""
    del text
    return False


def decode_answer(
    text: str | None,
    finish_reason: str = "stop",
    *,
    is_quoted: Callable[[str], bool] = is_never_quoted,
    lists_findings: bool = False,
) -> tuple[Any, str | None]:
    """Decode the JSON object in an answer, or say what is wrong.

    The text may be the object, or contain it once: in a fence or beside prose, after the model's
    thoughts. Of several objects, the only one in a fence counts; otherwise none does, since it is
    unknown which one is the answer. An object that is the whole answer, or all of its fence, may
    have commas too many or be written as Python.

    Args:
        text: the answer.
        finish_reason: why it ended.
        is_quoted: whether a text is in the data word for word: prose that quotes an object from a
            row is not an answer.
        lists_findings: whether it is a list of findings: one without its key is read as such.

    Example:
        >>> decode_answer('{"a": 1}')
        ({'a': 1}, None)
        >>> decode_answer('<think>{"a": 2}?</think>It is {"a": 1}.')
        ({'a': 1}, None)
        >>> decode_answer("I think so.")
        (None, 'the answer is not a JSON object')
        >>> decode_answer('{"a": 1, "a": 2}')
        (None, 'the answer cannot be read: an object in it names a key twice')
    """
    was_cut = finish_reason == "length"
    content = (text or "").strip().strip(BYTE_ORDER_MARK).strip()
    if not content:
        return None, _empty_problem(was_cut=was_cut)
    payload, problem = _decode_whole(content)
    if isinstance(payload, dict) or (problem is not None and problem != NO_OBJECT):
        return payload, problem
    answer, thinks_on = without_thoughts(content)
    if not answer:
        return None, _empty_problem(was_cut=was_cut)
    if was_cut and thinks_on:
        return None, CUT_OFF
    payload, problem = _decode_object(answer, is_quoted, at_end=thinks_on, alone=was_cut)
    if problem is None:
        return payload, None
    if was_cut:
        return _decode_beginning(answer), CUT_OFF
    nearly = _decode_nearly(answer, lists_findings=lists_findings)
    return (None, problem) if nearly is None else (nearly, None)


def _decode_nearly(text: str, *, lists_findings: bool) -> dict[str, Any] | None:
    """Decode a text that is nearly a JSON object as a whole; None if that is not certain."""
    plain = END_MARK.sub("", text).strip()
    fence = ONLY_FENCE.fullmatch(plain)
    body = plain if fence is None else fence["body"]
    if body.startswith("[") and lists_findings:
        findings = read_findings(body)
        return None if findings is None else {FINDINGS: findings}
    if not (body.startswith("{") and body.endswith("}")):
        return None
    try:
        value = read_loosely(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _empty_problem(*, was_cut: bool) -> str:
    return "the answer is empty" + (", its tokens were used up" if was_cut else "")


def _decode_whole(text: str) -> tuple[Any, str | None]:
    """Decode a text that is an object as a whole."""
    try:
        payload = loads(text)
    except RepeatedKey as error:
        return None, f"the answer cannot be read: {error}"
    except ValueError:
        return None, NO_OBJECT
    return (payload, None) if isinstance(payload, dict) else (None, NO_OBJECT)


def without_thoughts(text: str) -> tuple[str, bool]:
    """Return the text after the model's thoughts, and whether the thoughts have no end mark.

    Example:
        >>> without_thoughts("<think>Hm.</think> Yes."), without_thoughts("Hm.</think> Yes.")
        (('Yes.', False), ('Yes.', False))
        >>> without_thoughts("Yes."), without_thoughts("<think>Hm.")
        (('Yes.', False), ('Hm.', True))
    """
    closings = list(CLOSED.finditer(text))
    if closings:
        values = [value for value in values_in(text) if value.problem is None]
        for closing in reversed(closings):
            # A mark within a value is quoted by the answer, and ends no thoughts.
            if not any(value.start < closing.start() < value.end for value in values):
                return text[closing.end() :].strip(), False
    opened = OPENED.match(text)
    return (text[opened.end() :].strip(), True) if opened else (text, False)


def values_in(text: str) -> Iterator[Value]:
    """Yield the outermost lists and objects in a text; nothing from within unreadable ones."""
    position = 0
    while (opening := OPENING.search(text, position)) is not None:
        start = opening.start()
        closing = _find_closing(text, start)
        if closing is None:
            return
        end = closing
        try:
            # A decoder that fails counts the lines before: of this value, not of all the text.
            value, length = DECODER.raw_decode(text[start:closing])
            end = start + length
            problem = "it is nested too deeply" if is_too_deep(value) else None
        except (ValueError, RecursionError) as error:
            value = None
            problem = str(error) if isinstance(error, RepeatedKey) else NO_JSON
        yield Value(start, end, value, problem)
        position = end


def _find_closing(text: str, start: int) -> int | None:
    """Return the place after the bracket that closes the one at ``start``; None if none does."""
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
    """Whether a fenced block contains a value and nothing else."""
    before = text[max(0, value.start - 40) : value.start]
    after = text[value.end : value.end + 40]
    return bool(FENCE_BEFORE.search(before) and FENCE_AFTER.match(after))


def stands_alone(text: str, value: Value) -> bool:
    """Whether a text contains nothing but a value, its fence, and marks of the chat template."""
    before = FENCE_BEFORE.sub("", text[: value.start])
    after = FENCE_AFTER.sub("", text[value.end :], count=1)
    return not END_MARK.sub("", before + after).strip()


def _decode_object(
    text: str, is_quoted: Callable[[str], bool], *, at_end: bool, alone: bool
) -> tuple[Any, str | None]:
    """Decode the one object in a text.

    Args:
        text: the answer without thoughts.
        is_quoted: as in ``decode_answer``.
        at_end: whether the object must end the text, since what precedes it may be thoughts.
        alone: whether nothing else may be in the text, since the answer was cut off.
    """
    objects = _last_object_in(text) if at_end else _objects_in(text)
    if not objects:
        return None, NO_OBJECT
    only = _only_object(text, objects)
    if only is None:
        return None, SEVERAL
    if only.problem is not None:
        return None, f"the answer cannot be read: {only.problem}"
    if not stands_alone(text, only) and (alone or is_quoted(text[only.start : only.end])):
        return None, NO_OBJECT
    return only.value, None


def _only_object(text: str, objects: Sequence[Value]) -> Value | None:
    """Return the one object that is meant: the same each time, or the only one in a fence."""
    if all(one.value == objects[0].value for one in objects):
        return objects[0]
    fenced = [one for one in objects if is_fenced(text, one)]
    return fenced[0] if len(fenced) == 1 else None


def _objects_in(text: str) -> list[Value]:
    """Return the outermost objects in a text, without those that are not JSON."""
    values = [value for value in values_in(text) if value.problem != NO_JSON]
    return [value for value in values if text[value.start] == "{"]


def _last_object_in(text: str) -> list[Value]:
    """Return the object that ends a text, if one does."""
    last = _objects_in(text)[-1:]
    return [value for value in last if _is_at_end(text, value)]


def _is_at_end(text: str, value: Value) -> bool:
    """Whether a text ends with a value, its fence, and marks of the chat template."""
    return not END_MARK.sub("", text[value.end :]).strip(" \t\r\n`")


def _decode_beginning(text: str) -> Any:
    """Decode an answer up to where it was cut off; None if an object in it names a key twice."""
    opening = text.find("{")
    if opening < 0 or _find_closing(text, opening) is not None or _has_doubled_key(text):
        return None
    try:
        payload = from_json(text[opening:], allow_partial=True)
    except ValueError:
        return None
    return payload if isinstance(payload, dict) else None


def _has_doubled_key(text: str) -> bool:
    """Whether an object in JSON that was cut off names a key twice.

    Example:
        >>> _has_doubled_key('[{"unit": 0, "unit": 1}, {"un')
        True
        >>> _has_doubled_key('[{"unit": 0}, {"unit": ')
        False
    """
    open_keys: list[set[str]] = []  # the keys of each object or list that is not closed yet
    last = ""
    for match in JSON_MARK.finditer(text):
        mark = match.group()
        if mark in {"{", "["}:
            open_keys.append(set())
        elif mark in {"}", "]"}:
            del open_keys[-1:]
        elif mark != ":":
            last = _decode_string(mark)
        elif open_keys and last in open_keys[-1]:
            return True
        elif open_keys:
            open_keys[-1].add(last)
    return False


def _decode_string(text: str) -> str:
    """Decode a JSON string; return one that cannot be decoded as it is."""
    try:
        return str(json.loads(text))
    except ValueError:
        return text
