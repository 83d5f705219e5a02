"""Read the tool calls that a model writes as text, if its server does not turn them into calls.

It reads the forms that models are trained on: an object with the name of a tool and its arguments,
bare or in the message's only fence; such objects behind ``<tool_call>`` (Hermes, Qwen),
``[TOOL_CALLS]`` (Mistral), ``<|python_tag|>`` (Llama) and similar marks; parameters as XML (Qwen
Coder, GLM, Anthropic); and calls in Python (Llama, Gemma). A call names a tool of the request, its
arguments are an object, and it is not in the data: a row cannot call a tool.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pandas_amr._agent.answers import (
    END_MARK,
    FENCE_AFTER,
    FENCE_BEFORE,
    OPENING,
    is_fenced,
    stands_alone,
    values_in,
    without_thoughts,
)
from pandas_amr._agent.call_forms import (
    ARGUMENT_KEYS,
    BODY_END,
    CLOSER,
    FENCE,
    GLM_CALL,
    GLM_PAIR,
    INNER_KEYS,
    LIST_KEYS,
    NAME_KEYS,
    NAMED,
    NAMESPACE,
    OPENER,
    TURN_BEGIN,
    XML_CALL,
    XML_ENDS,
    XML_PARAMETER,
)
from pandas_amr._agent.dispatch import find_tool
from pandas_amr._agent.expressions import PythonCall, read_loosely
from pandas_amr._agent.strict_json import loads

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pandas_amr._agent.answers import Value
    from pandas_amr.models.base import ToolSpec

MOST_MARKS = 20  # that are tried; a model that writes more marks without a call repeats itself


@dataclass(frozen=True, slots=True)
class WrittenCall:
    """A call that a model wrote, with its text."""

    name: str
    arguments: dict[str, Any]
    text: str


@dataclass(frozen=True, slots=True)
class WrittenCalls:
    """The calls in a message's text, and the rest of the text."""

    calls: tuple[WrittenCall, ...]
    rest: str


def read_calls(
    text: str | None,
    tools: Sequence[ToolSpec],
    is_quoted: Callable[[WrittenCall], bool],
    *,
    is_cut: bool = False,
) -> WrittenCalls | None:
    """Read the calls in a message's text; return None if it is an ordinary text.

    Args:
        text: the text.
        tools: the tools of the request, with the one that submits.
        is_quoted: whether a call is in the data.
        is_cut: whether the text was cut off: only complete calls count then.

    Example:
        >>> from pandas_amr.models.base import ToolSpec
        >>> look = ToolSpec("look", "Look.", {})
        >>> text = '{"name": "look", "arguments": {"x": 1}}'
        >>> read_calls(text, [look], lambda call: False).calls[0].arguments
        {'x': 1}
    """
    if not text or not tools:
        return None
    content, thinks_on = without_thoughts(text.strip())
    if is_cut and thinks_on:
        return None
    content = NAMESPACE.sub(r"\1", TURN_BEGIN.sub("", content))
    reader = _Reader({tool.name: tool.parameters for tool in tools}, is_cut=is_cut)
    written = reader.read(content)
    if written is None or not written.calls:
        return None
    calls: list[WrittenCall] = []
    for call in written.calls:
        name = find_tool(call.name, reader.schemas)
        if name is None:
            return None
        calls.append(replace(call, name=name))
    if any(is_quoted(call) for call in calls):
        return None
    return replace(written, calls=tuple(calls))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the calls in a text.

    Attributes:
        schemas: the parameters of the tools, by name.
        is_cut: whether the text was cut off.
    """

    schemas: Mapping[str, Any]
    is_cut: bool

    def read(self, text: str) -> WrittenCalls | None:
        """Read the calls behind marks, or those that are the whole text or its only fence."""
        return self._read_marked(text) or self._read_plain(text) or self._read_loose(text)

    def _read_marked(self, text: str) -> WrittenCalls | None:
        """Read the calls behind marks; prose may precede them."""
        end = 0
        for opener in itertools.islice(OPENER.finditer(text), MOST_MARKS):
            if opener.start() < end:
                continue
            calls, end = self._calls_behind(text, opener.start())
            if calls:
                rest = FENCE_BEFORE.sub("", text[: opener.start()]) + text[end:]
                rest = rest.strip().removesuffix("```").strip()
                return WrittenCalls(tuple(calls), rest)
        return None

    def _calls_behind(self, text: str, position: int) -> tuple[list[WrittenCall], int]:
        """Return the calls behind a mark, and where they end."""
        calls: list[WrittenCall] = []
        while position < len(text):
            after_mark = _after_mark(text, position)
            if after_mark > position:
                position = after_mark
                continue
            found = self._calls_at(text, position)
            if found is None:
                break
            calls += found[0]
            position = found[1]
        return calls, position

    def _calls_at(self, text: str, position: int) -> tuple[list[WrittenCall], int] | None:
        """Return the calls that begin at a position, in any form, and where they end."""
        if (match := XML_CALL.match(text, position)) is not None:
            call = self._of_xml(match)
            return None if call is None else ([call], match.end())
        if (match := GLM_CALL.match(text, position)) is not None:
            return [self._of_pairs(match)], match.end()
        return self._json_at(text, position)

    def _json_at(self, text: str, position: int) -> tuple[list[WrittenCall], int] | None:
        """Read the JSON at a position; the name of the call may precede it."""
        named = NAMED.match(text, position)
        start = position if named is None else named.end()
        value = None
        if OPENING.match(text, start):
            value = next(values_in(text[start:]), None)
        if value is None or value.problem is not None:
            return self._loose_at(text, position, start, named)
        end = start + value.end
        written = text[position:end]
        if named is None:
            return list(self._of_value(value.value, written)), end
        call = WrittenCall(named["name"], value.value, written)
        fence = FENCE_AFTER.match(text, end)
        return [call], end if fence is None else fence.end()

    def _loose_at(
        self, text: str, position: int, start: int, named: re.Match[str] | None
    ) -> tuple[list[WrittenCall], int] | None:
        """Read what is nearly JSON, from a position to the next mark.

        Args:
            text: the text.
            position: where the calls begin.
            start: where their arguments begin.
            named: the name of the call before its arguments, if there is one.
        """
        closing = BODY_END.search(text, start)
        assert closing is not None
        end = closing.start()
        value = None
        if not self.is_cut:
            body = text[start:end].strip().removesuffix("```")
            value = _read_body(body, is_closed=bool(closing.group()))
        if named is None:
            calls = list(self._of_value(value, text[position:end]))
            return (calls, end) if calls else None
        if not isinstance(value, dict):
            return None
        return [WrittenCall(named["name"], value, text[position:end])], end

    def _read_plain(self, text: str) -> WrittenCalls | None:
        """Read the calls that are the whole message, or its only fenced block."""
        values = list(values_in(text))
        if not values or any(value.problem is not None for value in values):
            return self._read_fenced(text, values)
        if not _are_whole_text(text, values):
            return self._read_fenced(text, values)
        calls: list[WrittenCall] = []
        for value in values:
            calls += self._of_value(value.value, text[value.start : value.end])
        return WrittenCalls(tuple(calls), "") if len(calls) >= len(values) else None

    def _read_fenced(self, text: str, values: Sequence[Value]) -> WrittenCalls | None:
        fenced = [value for value in values if value.problem is None and is_fenced(text, value)]
        if len(fenced) != 1 or text.count("```") != 2:
            return None
        only = fenced[0]
        calls = tuple(self._of_value(only.value, text[only.start : only.end]))
        if stands_alone(text, only):
            return WrittenCalls(calls, "")
        before = FENCE_BEFORE.sub("", text[: only.start]).strip()
        after = FENCE_AFTER.sub("", text[only.end :], count=1).strip()
        return WrittenCalls(calls, f"{before}\n{after}".strip())

    def _read_loose(self, text: str) -> WrittenCalls | None:
        """Read calls that are nearly JSON: calls in Python, raw line breaks in texts."""
        fences = text.count("```")
        fence = FENCE.search(text)
        before = "" if fence is None else text[: fence.start()].strip()
        # A fence that is not closed must be the whole message.
        if self.is_cut or fences > 2 or (fences == 1 and before):
            return None
        if fence is None:
            body, rest = END_MARK.sub("", text).strip(), ""
        else:
            body = fence["body"]
            rest = f"{before}\n{text[fence.end() :].strip()}".strip()
        value = _read_body(body, is_closed=False)
        return WrittenCalls(tuple(self._of_value(value, body)), rest)

    def _of_value(self, value: object, text: str) -> Iterator[WrittenCall]:
        """Yield the calls that a value contains."""
        if isinstance(value, list):
            for item in value:
                yield from self._of_value(item, _item_text(item, text))
        elif isinstance(value, PythonCall):
            yield from self._of_python(value, text)
        elif isinstance(value, dict):
            yield from self._of_object(value, text)

    def _of_object(self, value: dict[str, Any], text: str) -> Iterator[WrittenCall]:
        for key in LIST_KEYS:
            if isinstance(value.get(key), list):
                yield from self._of_value(value[key], text)
                return
        for key in INNER_KEYS:
            if isinstance(value.get(key), dict):
                yield from self._of_value(value[key], text)
                return
        call = _of_name_and_arguments(value, text) or self._of_single_key(value, text)
        if call is not None:
            yield call

    def _of_single_key(self, value: Mapping[str, Any], text: str) -> WrittenCall | None:
        """Read an object whose only key is the name of a tool, and its value the arguments."""
        if len(value) != 1:
            return None
        ((name, arguments),) = value.items()
        if name not in self.schemas or not isinstance(arguments, dict):
            return None
        return WrittenCall(name, arguments, text)

    def _of_python(self, call: PythonCall, text: str) -> Iterator[WrittenCall]:
        """Read a call in Python; positional arguments get the names of the tool's parameters."""
        name = call.name.removesuffix(".call")  # Llama calls its own tools so
        parameters = list(self._schema_of(name).get("properties", {}))
        arguments = dict(zip(parameters, call.positional, strict=False))
        has_names = len(arguments) == len(call.positional)
        if has_names and arguments.keys().isdisjoint(call.named):
            yield WrittenCall(name, arguments | call.named, text)

    def _of_xml(self, match: re.Match[str]) -> WrittenCall | None:
        """Read a call whose parameters are elements, or one JSON object."""
        if self.is_cut and not match.group().endswith(XML_ENDS):
            return None
        name = (match["function"] or match["invoke"]).strip("\"'")
        body = match["of_function"]
        if body is None:
            body = match["of_invoke"]
        if body.strip().startswith("{"):
            arguments = _read_body(body, is_closed=False)
            if not isinstance(arguments, dict):
                return None
            return WrittenCall(name, arguments, match.group())
        pairs: dict[str, str] = {}
        for parameter in XML_PARAMETER.finditer(body):
            if parameter["key"]:
                pairs[parameter["key"]] = parameter["value"]
            else:
                pairs[parameter["name"]] = parameter["of_name"]
        return WrittenCall(name, _convert(pairs, self._schema_of(name)), match.group())

    def _of_pairs(self, match: re.Match[str]) -> WrittenCall:
        """Read a call whose parameters are pairs of a key and a value."""
        pairs = {key.strip(): value for key, value in GLM_PAIR.findall(match["pairs"])}
        name = match["name"]
        return WrittenCall(name, _convert(pairs, self._schema_of(name)), match.group())

    def _schema_of(self, name: str) -> Mapping[str, Any]:
        """Return the parameters of the tool that a name means; empty if it means none."""
        schema: Mapping[str, Any] = self.schemas.get(find_tool(name, self.schemas) or "", {})
        return schema


def _after_mark(text: str, position: int) -> int:
    """Return the end of the mark at a position; the position itself if there is no mark."""
    end = position
    for mark in (OPENER, CLOSER, END_MARK):
        match = mark.match(text, position)
        if match is not None:
            end = max(end, match.end())
    return end


def _read_body(body: str, *, is_closed: bool) -> Any:
    """Read a text that is nearly JSON; return None if it cannot be read.

    If a mark closes the text, its outermost brace may be missing.
    """
    candidates = [body, body + "}"] if is_closed else [body]
    for candidate in candidates:
        try:
            return read_loosely(candidate)
        except ValueError:
            continue
    return None


def _are_whole_text(text: str, values: Sequence[Value]) -> bool:
    """Whether a text consists of some values, separators, and marks of the chat template."""
    end = 0
    for value in values:
        if text[end : value.start].strip(" \t\r\n;,"):
            return False
        end = value.end
    return not END_MARK.sub("", text[end:]).strip()


def _item_text(item: object, text: str) -> str:
    """Return the text of an item in a list; calls in Python share the text of the list."""
    return text if isinstance(item, PythonCall) else json.dumps(item, ensure_ascii=False)


def _of_name_and_arguments(value: Mapping[str, Any], text: str) -> WrittenCall | None:
    """Read an object with a name and arguments."""
    name = next((value[key] for key in NAME_KEYS if isinstance(value.get(key), str)), None)
    arguments = next((value[key] for key in ARGUMENT_KEYS if key in value), None)
    if isinstance(arguments, str):
        arguments = _read_body(arguments, is_closed=False)
    if name is None or not isinstance(arguments, dict):
        return None
    return WrittenCall(name, arguments, text)


def _convert(pairs: Mapping[str, str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Convert parameters by the tool's schema: texts stay as they are, all else is JSON."""
    properties = schema.get("properties", {})
    arguments: dict[str, Any] = {}
    for name, value in pairs.items():
        text = value.removeprefix("\n").removesuffix("\n")
        arguments[name] = text
        if _is_text(properties.get(name, {}), text):
            continue
        try:
            arguments[name] = loads(text)
        except ValueError:
            continue
    return arguments


def _is_text(schema: Mapping[str, Any], text: str) -> bool:
    """Whether a parameter is a text; ``null`` is not a text if the schema allows null."""
    kinds = [part.get("type") for part in schema.get("anyOf", [schema])]
    return "string" in kinds and not (text == "null" and "null" in kinds)
