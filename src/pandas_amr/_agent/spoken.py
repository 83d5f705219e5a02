"""Calls that a model writes as text, where its server makes no tool calls of them.

Read are the forms that models are trained on: an object that names a tool and its arguments, bare or in the message's
only fence; such objects behind ``<tool_call>`` (Hermes, Qwen), ``[TOOL_CALLS]`` (Mistral), ``<|python_tag|>`` (Llama)
and their like; and parameters as XML (Qwen Coder, GLM, Anthropic). A call names a tool in play, its arguments are an
object, and it does not stand in the data: a row cannot call a tool.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pandas_amr._agent.answers import (
    END_MARK,
    FENCE_AFTER,
    FENCE_BEFORE,
    is_fenced,
    loads,
    stands_alone,
    values_in,
    without_thoughts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pandas_amr._agent.answers import Value
    from pandas_amr.models.base import Message, ToolSpec

NAME_KEYS = ("name", "tool", "tool_name", "function", "function_name", "action", "recipient_name")
ARGUMENT_KEYS = (
    "arguments",
    "parameters",
    "args",
    "tool_input",
    "action_input",
    "input",
    "kwargs",
    "params",
)
INNER_KEYS = ("function", "function_call", "tool_call")  # of an object that holds the call
LIST_KEYS = ("tool_calls", "calls", "tool_uses")

OPENER = re.compile(
    r"<(?:tool_call|tool_calls|function_call|function_calls|tools|minimax:tool_call)>|"
    r"<\|(?:tool_call|tool_calls|tool_call_start|python_tag|tool_calls_section_begin|tool_call_begin)\|>|"
    r"<\uff5ctool\u2581calls?\u2581begin\uff5c>|\[TOOL_CALLS?\]|(?=<function=)|(?=<invoke name=)|"
    r"<\|channel\|>commentary (?=to=)"
)
CLOSER = re.compile(
    r"</(?:tool_call|tool_calls|function_call|function_calls|tools|minimax:tool_call)>|"
    r"<\|/?(?:tool_call|tool_calls|tool_call_end|tool_calls_section_end|tool_call_begin|tool_call_argument_begin|call)\|>|"
    r"<\uff5ctool\u2581calls?\u2581end\uff5c>|\[/TOOL_CALLS?\]|[\s,;]+"
)
NAMED = re.compile(  # a name before its arguments, as Mistral, Kimi, DeepSeek and gpt-oss write it
    r"(?:function<\uff5ctool\u2581sep\uff5c>|to=)?(?P<name>[\w.-]++)(?::\d+)?(?:\[CALL_ID\]\w++)?"
    r"(?:\[ARGS\]|<\|tool_call_argument_begin\|>|<\uff5ctool\u2581sep\uff5c>|```json|<\|constrain\|>\w++|<\|message\|>|\s)*+(?=\{)"
)
XML_CALL = re.compile(
    r"<function=(?P<function>[^>\s]+)>(?P<of_function>.*?)(?:</function>|\Z)|"
    r"<invoke name=\"(?P<invoke>[^\"]+)\">(?P<of_invoke>.*?)(?:</invoke>|\Z)",
    re.DOTALL,
)
XML_PARAMETER = re.compile(
    r"<parameter=(?P<key>[^>\s]+)>(?P<value>.*?)(?:</parameter>|(?=<parameter=)|\Z)|"
    r"<parameter name=\"(?P<name>[^\"]+)\"[^>]*>(?P<of_name>.*?)(?:</parameter>|\Z)",
    re.DOTALL,
)
GLM_PAIR = re.compile(r"<arg_key>([^<]*)</arg_key>\s*<arg_value>(.*?)</arg_value>\s*", re.DOTALL)
GLM_CALL = re.compile(rf"(?P<name>[\w.-]++)\s*(?P<pairs>(?:{GLM_PAIR.pattern})+)", re.DOTALL)
LEAST_QUOTED = 8  # characters of arguments that are known again in data


@dataclass(frozen=True, slots=True)
class WrittenCall:
    """A call as a text writes it."""

    name: str
    arguments: dict[str, Any]
    text: str


@dataclass(frozen=True, slots=True)
class Spoken:
    """The calls in a message's text, and what it says beside them."""

    calls: tuple[WrittenCall, ...]
    rest: str


def read_calls(
    text: str | None, tools: Sequence[ToolSpec], is_quoted: Callable[[WrittenCall], bool]
) -> Spoken | None:
    """The calls that a message's text writes out; None if it is a text like any other.

    Args:
        text: what the model said.
        tools: the tools in play, that which hands in among them.
        is_quoted: tells what stands in the data.

    Example:
        >>> from pandas_amr.models.base import ToolSpec
        >>> look = ToolSpec("look", "Look.", {})
        >>> read_calls('{"name": "look", "arguments": {"x": 1}}', [look], lambda call: False).calls[0].arguments
        {'x': 1}
    """
    if not text or not tools:
        return None
    said, _ = without_thoughts(text.strip())
    schemas = {tool.name: tool.parameters for tool in tools}
    spoken = _marked(said, schemas) or _plain(said, schemas)
    if spoken is None or not spoken.calls:
        return None
    for call in spoken.calls:
        if call.name not in schemas or is_quoted(call):
            return None
    return spoken


def is_in_data(call: WrittenCall, messages: Sequence[Message]) -> bool:
    """Whether a call stands verbatim in what the user and the tools have shown, however it is escaped there."""
    name, text = _flat(call.name), _flat(call.text)
    arguments = _flat(json.dumps(call.arguments, ensure_ascii=False))
    for message in messages:
        if message.role not in {"user", "tool"} or not message.content:
            continue
        shown = _flat(message.content)
        if text in shown or (
            len(arguments) >= LEAST_QUOTED and name in shown and arguments in shown
        ):
            return True
    return False


def is_text_in_data(text: str, messages: Sequence[Message]) -> bool:
    """Whether a text stands verbatim in what the user and the tools have shown."""
    flat = _flat(text)
    return any(
        flat in _flat(message.content or "")
        for message in messages
        if message.role in {"user", "tool"}
    )


def _flat(text: str) -> str:
    """A text without what JSON and layout may change in it: white space, quotes, escapes."""
    text = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda match: chr(int(match.group(1), 16)), text)
    return re.sub(r"\\+[nrtbf]|[\s\\\"'`]", "", text)


def _marked(text: str, schemas: Mapping[str, Any]) -> Spoken | None:
    """The calls behind marks, with whatever prose stands before them."""
    opener = OPENER.search(text)
    if opener is None:
        return None
    calls: list[WrittenCall] = []
    at = opener.start()
    while at < len(text):
        skipped = _after_mark(text, at)
        if skipped > at:
            at = skipped
            continue
        found = _call_at(text, at, schemas)
        if found is None:
            break
        calls += found[0]
        at = found[1]
    rest = text[: opener.start()] + text[at:]
    return Spoken(tuple(calls), rest.strip().removesuffix("```").strip())


def _after_mark(text: str, at: int) -> int:
    """Where a mark ends that stands at a place; the place itself where none does."""
    return max(
        [
            at,
            *(
                match.end()
                for mark in (OPENER, CLOSER, END_MARK)
                if (match := mark.match(text, at))
            ),
        ]
    )


def _call_at(
    text: str, at: int, schemas: Mapping[str, Any]
) -> tuple[list[WrittenCall], int] | None:
    """The calls that begin at a place, in whichever form; and where they end."""
    if (match := XML_CALL.match(text, at)) is not None:
        call = _of_xml(match, schemas)
        return ([call], match.end()) if call is not None else None
    if (match := GLM_CALL.match(text, at)) is not None:
        return [_of_pairs(match, schemas)], match.end()
    named = NAMED.match(text, at)
    start = at if named is None else named.end()
    value = next(values_in(text[start:]), None)
    if value is None or value.start > 0 or value.problem is not None:
        return None
    end = start + value.end
    if named is None:
        return list(_of_value(value.value, text[at:end], schemas)), end
    call = WrittenCall(named["name"].removeprefix("functions."), value.value, text[at:end])
    fence = FENCE_AFTER.match(text, end)
    return [call], end if fence is None else fence.end()


def _of_pairs(match: re.Match[str], schemas: Mapping[str, Any]) -> WrittenCall:
    """A call whose parameters are pairs of a key and a value."""
    pairs = {key.strip(): value for key, value in GLM_PAIR.findall(match["pairs"])}
    return WrittenCall(match["name"], _typed(pairs, schemas.get(match["name"], {})), match.group())


def _plain(text: str, schemas: Mapping[str, Any]) -> Spoken | None:
    """The calls that are the whole message, or its only fenced block."""
    values = list(values_in(text))
    if not values or any(value.problem is not None for value in values):
        return _only_fenced(text, values, schemas)
    if all(
        _follows(text, before, value)
        for before, value in zip([None, *values], values, strict=False)
    ) and not (END_MARK.sub("", text[values[-1].end :]).strip()):
        calls = [
            call
            for value in values
            for call in _of_value(value.value, text[value.start : value.end], schemas)
        ]
        return Spoken(tuple(calls), "") if len(calls) >= len(values) else None
    return _only_fenced(text, values, schemas)


def _follows(text: str, before: Value | None, value: Value) -> bool:
    """Whether nothing but a separator stands between two values."""
    return not text[before.end if before else 0 : value.start].strip(" \t\r\n;,")


def _only_fenced(text: str, values: Sequence[Value], schemas: Mapping[str, Any]) -> Spoken | None:
    fenced = [value for value in values if value.problem is None and is_fenced(text, value)]
    if len(fenced) != 1 or text.count("```") != 2:
        return None
    (only,) = fenced
    calls = tuple(_of_value(only.value, text[only.start : only.end], schemas))
    if stands_alone(text, only):
        return Spoken(calls, "")
    before = FENCE_BEFORE.sub("", text[: only.start])
    after = text[only.end :]
    fence = FENCE_AFTER.match(after)
    return Spoken(
        calls, f"{before.strip()}\n{after[fence.end() if fence else 0 :].strip()}".strip()
    )


def _of_value(value: Any, text: str, schemas: Mapping[str, Any]) -> Iterator[WrittenCall]:
    """The calls that decoded JSON writes out."""
    if isinstance(value, list):
        for one in value:
            yield from _of_value(one, json.dumps(one, ensure_ascii=False), schemas)
        return
    if not isinstance(value, dict):
        return
    for key in LIST_KEYS:
        if isinstance(value.get(key), list):
            yield from _of_value(value[key], text, schemas)
            return
    for key in INNER_KEYS:
        if isinstance(value.get(key), dict):
            yield from _of_value(value[key], text, schemas)
            return
    call = _of_object(value, text) or _of_single_key(value, text, schemas)
    if call is not None:
        yield call


def _of_object(value: Mapping[str, Any], text: str) -> WrittenCall | None:
    """An object with a name and arguments."""
    name = next((value[key] for key in NAME_KEYS if isinstance(value.get(key), str)), None)
    given = next((value[key] for key in ARGUMENT_KEYS if key in value), None)
    if isinstance(given, str):
        try:
            given = loads(given)
        except ValueError:
            return None
    if name is None or not isinstance(given, dict):
        return None
    return WrittenCall(name.removeprefix("functions."), given, text)


def _of_single_key(
    value: Mapping[str, Any], text: str, schemas: Mapping[str, Any]
) -> WrittenCall | None:
    """An object whose one key is a tool, and its value the arguments."""
    if len(value) != 1:
        return None
    ((name, given),) = value.items()
    return WrittenCall(name, given, text) if name in schemas and isinstance(given, dict) else None


def _of_xml(match: re.Match[str], schemas: Mapping[str, Any]) -> WrittenCall | None:
    """A call whose parameters are elements, or one JSON object."""
    name = (match["function"] or match["invoke"]).strip("\"'")
    body = match["of_function"] if match["of_function"] is not None else match["of_invoke"]
    if body.strip().startswith("{"):
        try:
            arguments = loads(body.strip())
        except ValueError:
            return None
        return WrittenCall(name, arguments, match.group()) if isinstance(arguments, dict) else None
    pairs = {}
    for one in XML_PARAMETER.finditer(body):
        key = one["key"] or one["name"]
        pairs[key] = one["value"] if one["value"] is not None else one["of_name"]
    return WrittenCall(name, _typed(pairs, schemas.get(name, {})), match.group())


def _typed(pairs: Mapping[str, str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that stand as texts, as the tool's schema has them: texts as they are, all else as JSON."""
    properties = schema.get("properties", {})
    arguments: dict[str, Any] = {}
    for name, given in pairs.items():
        text = given.removeprefix("\n").removesuffix("\n")
        arguments[name] = text
        if _is_text(properties.get(name, {}), text):
            continue
        try:
            arguments[name] = loads(text)
        except ValueError:
            continue
    return arguments


def _is_text(schema: Mapping[str, Any], text: str) -> bool:
    """Whether a parameter is a text as it stands; ``null`` is none where null may be given in its place."""
    kinds = [part.get("type") for part in schema.get("anyOf", [schema])]
    return "string" in kinds and not (text == "null" and "null" in kinds)
