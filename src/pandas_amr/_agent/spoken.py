"""Calls that a model writes as text, where its server makes no tool calls of them.

Read are the forms that models are trained on: an object that names a tool and its arguments, bare or in the message's
only fence; such objects behind ``<tool_call>`` (Hermes, Qwen), ``[TOOL_CALLS]`` (Mistral), ``<|python_tag|>`` (Llama)
and their like; parameters as XML (Qwen Coder, GLM, Anthropic); and calls of Python (Llama, Gemma). A call names a tool
in play, its arguments are an object, and it does not stand in the data: a row cannot call a tool.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pandas_amr._agent.answers import (
    END_MARK,
    FENCE_AFTER,
    FENCE_BEFORE,
    OPENING,
    is_fenced,
    loads,
    stands_alone,
    values_in,
    without_thoughts,
)
from pandas_amr._agent.dispatch import tool_meant
from pandas_amr._agent.expressions import PythonCall, read_loosely

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

TAG = r"(?:tool_?calls?|function_?calls?|functools|tools?|start_action|end_action|action_(?:start|end)|plugin)"
OPENER = re.compile(
    rf"<(?:[\w-]+:)?{TAG}>|<\|{TAG}(?:_start|_begin|_section_begin)?\|>|<\|python_(?:tag|start)\|>|"
    r"<\uff5ctool\u2581calls?\u2581begin\uff5c>|\[TOOL_CALLS?\]|functools(?=\[)|(?=<function=)|(?=<invoke name=)|"
    r"(?:<\|start\|>assistant |<\|channel\|>\w+ )(?=to=)|^Action:[ \t]*(?=[\w.-]+\s*^Action Input:)",
    re.IGNORECASE | re.MULTILINE,
)
CLOSER = re.compile(
    rf"</(?:[\w-]+:)?{TAG}>|<\|/?(?:{TAG}(?:_end|_begin|_section_end|_argument_begin)?|call|python_end)\|>|"
    r"<\uff5ctool\u2581calls?\u2581end\uff5c>|\[/TOOL_CALLS?\]|[\s,;]+|```[\w-]*",
    re.IGNORECASE,
)
BODY_END = re.compile(rf"</(?:[\w-]+:)?{TAG}>|<\|/?\w+\|>|\[/TOOL_CALLS?\]|\Z", re.IGNORECASE)
NAMED = re.compile(  # a name before its arguments, as Mistral, Kimi, DeepSeek, gpt-oss and ReAct write it
    r"(?:function<\uff5ctool\u2581sep\uff5c>|to=)?(?P<name>[\w.-]++)(?::\d+)?(?:\[CALL_ID\]\w++)?"
    r"(?:\[ARGS\]|<\|tool_call_argument_begin\|>|<\uff5ctool\u2581sep\uff5c>|```json|<\|constrain\|>\w++|<\|message\|>|"
    r"<\|channel\|>\w++|Action Input:|(?<=\s)(?:json|code)(?=<\|message)|\s)*+(?=\{)"
)
# What templates put at the beginning of a turn; a namespace before elements, and DeepSeek's types in them.
TURN_BEGIN = re.compile(
    r"\A<\|(?:im_start|start_header_id)\|>\s*assistant\s*(?:<\|end_header_id\|>)?\s*"
)
NAMESPACE = re.compile(
    r"(?<=<)(/?)(?:\uff5cDSML\uff5c|\w+:)(?=(?:function_calls|invoke|parameter)\b)|\s+string=\\*\"\w+\\*\""
)
FENCE = re.compile(r"```[\w-]*[ \t]*\r?\n(?P<body>.*?)\s*(?:```|\Z)", re.DOTALL)
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
XML_ENDS = ("</function>", "</invoke>")
GLM_PAIR = re.compile(r"<arg_key>([^<]*)</arg_key>\s*<arg_value>(.*?)</arg_value>\s*", re.DOTALL)
GLM_CALL = re.compile(rf"(?P<name>[\w.-]++)\s*(?P<pairs>(?:{GLM_PAIR.pattern})+)", re.DOTALL)
MOST_MARKS = 20  # behind which no call stands; a model that writes more of them repeats itself
LEAST_QUOTED = 8  # characters of arguments that are known again in data
REACH = 3  # characters beyond a call's own in which its name and its arguments stand together: Kimi's number
# Words that the forms of calls put between a call's own.
WORDS_OF_FORMS = frozenset(
    (
        *NAME_KEYS,
        *ARGUMENT_KEYS,
        *INNER_KEYS,
        *LIST_KEYS,
        *("functions", "parameter", "arg_key", "arg_value", "invoke", "type", "call", "print"),
        *(
            "tool_call_argument_begin",
            "sep",
            "constrain",
            "channel",
            "commentary",
            "message",
            "json",
            "code",
        ),
    )
)


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
    text: str | None,
    tools: Sequence[ToolSpec],
    is_quoted: Callable[[WrittenCall], bool],
    *,
    is_cut: bool = False,
) -> Spoken | None:
    """The calls that a message's text writes out; None if it is a text like any other.

    Args:
        text: what the model said.
        tools: the tools in play, that which hands in among them.
        is_quoted: tells what stands in the data.
        is_cut: whether the text was cut off at its greatest length: only calls that are at their end are any.

    Example:
        >>> from pandas_amr.models.base import ToolSpec
        >>> look = ToolSpec("look", "Look.", {})
        >>> read_calls('{"name": "look", "arguments": {"x": 1}}', [look], lambda call: False).calls[0].arguments
        {'x': 1}
    """
    if not text or not tools:
        return None
    said, thinks_on = without_thoughts(text.strip())
    if is_cut and thinks_on:
        return None
    said = NAMESPACE.sub(r"\1", TURN_BEGIN.sub("", said))
    reader = _Reader({tool.name: tool.parameters for tool in tools}, is_cut=is_cut)
    spoken = reader.read(said)
    if spoken is None or not spoken.calls:
        return None
    names = [tool_meant(call.name, reader.schemas) for call in spoken.calls]
    calls = tuple(
        replace(call, name=name)
        for call, name in zip(spoken.calls, names, strict=True)
        if name is not None
    )
    if len(calls) < len(names) or any(is_quoted(call) for call in calls):
        return None
    return replace(spoken, calls=calls)


def is_in_data(call: WrittenCall, messages: Sequence[Message]) -> bool:
    """Whether a call stands verbatim in what the user and the tools have shown, whichever form it has there.

    What the model ran before may stand in its results, and is its own.
    """
    ran = [_flat(own.arguments) for message in messages for own in message.tool_calls]
    texts = [
        text
        for text in (_flat(call.text),)
        if len(text) >= LEAST_QUOTED and not any(text in one for one in ran)
    ]
    arguments = _flat(json.dumps(call.arguments, ensure_ascii=False))
    is_telling = len(arguments) >= LEAST_QUOTED
    if is_telling:
        values = [_flat(_value_text(value)) for value in call.arguments.values()]
        texts.append(f"{_flat(call.name)}({','.join(values)})")
    for message in messages:
        if message.role not in {"user", "tool"} or not message.content:
            continue
        shown = _flat(message.content)
        if any(text in shown for text in texts):
            return True
        if not is_telling:
            continue
        if (_flat(call.name) in shown and arguments in shown) or _holds_words_of(
            call, message.content
        ):
            return True
    return False


def _holds_words_of(call: WrittenCall, shown: str) -> bool:
    """Whether a text holds a call's name, and beside it each key before its value, whatever marks stand between."""
    text = _words(shown)
    name = _words(call.name)
    pairs = [_words(f"{key} {_value_text(value)}") for key, value in call.arguments.items()]
    reach = sum(map(len, pairs)) + len(name) + REACH
    at = text.find(name)
    while at >= 0:
        beside = text[max(0, at - reach) : at + reach]
        if all(pair in beside for pair in pairs):
            return True
        at = text.find(name, at + 1)
    return False


def _words(text: str) -> str:
    """The words of a text, each between spaces, without those of the forms of calls."""
    words = [
        word
        for word in re.findall(r"\w+", _unescaped(text, " ").casefold())
        if word not in WORDS_OF_FORMS
    ]
    return f" {' '.join(words)} "


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


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
    return re.sub(r"[\s\\\"'`]", "", _unescaped(text, "")).casefold()


def _unescaped(text: str, space: str) -> str:
    """A text without namespaces, with the characters that it spells out, and ``space`` where it spells white space."""
    text = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda match: chr(int(match.group(1), 16)), text)
    return NAMESPACE.sub(r"\1", re.sub(r"\\+[nrtbf]", space, text))


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads calls out of a text.

    Attributes:
        schemas: the parameters of the tools in play, by name.
        is_cut: whether the text was cut off.
    """

    schemas: Mapping[str, Any]
    is_cut: bool

    def read(self, text: str) -> Spoken | None:
        """The calls in a text: behind marks, or all that it is, or its only fenced block."""
        return self._marked(text) or self._plain(text) or self._loose(text)

    def _marked(self, text: str) -> Spoken | None:
        """The calls behind marks, with whatever prose stands before them."""
        end = 0
        for opener in itertools.islice(OPENER.finditer(text), MOST_MARKS):
            if opener.start() < end:
                continue
            calls, end = self._calls_behind(text, opener.start())
            if calls:
                rest = FENCE_BEFORE.sub("", text[: opener.start()]) + text[end:]
                return Spoken(tuple(calls), rest.strip().removesuffix("```").strip())
        return None

    def _calls_behind(self, text: str, at: int) -> tuple[list[WrittenCall], int]:
        """The calls behind a mark, and where they end."""
        calls: list[WrittenCall] = []
        while at < len(text):
            skipped = _after_mark(text, at)
            if skipped > at:
                at = skipped
                continue
            found = self._call_at(text, at)
            if found is None:
                break
            calls += found[0]
            at = found[1]
        return calls, at

    def _call_at(self, text: str, at: int) -> tuple[list[WrittenCall], int] | None:
        """The calls that begin at a place, in whichever form; and where they end."""
        if (match := XML_CALL.match(text, at)) is not None:
            call = self._of_xml(match)
            return ([call], match.end()) if call is not None else None
        if (match := GLM_CALL.match(text, at)) is not None:
            return [self._of_pairs(match)], match.end()
        named = NAMED.match(text, at)
        start = at if named is None else named.end()
        value = next(values_in(text[start:]), None) if OPENING.match(text, start) else None
        if value is None or value.problem is not None:
            return self._loose_at(text, at, start, named)
        end = start + value.end
        if named is None:
            return list(self._of_value(value.value, text[at:end])), end
        fence = FENCE_AFTER.match(text, end)
        return [
            WrittenCall(named["name"], value.value, text[at:end])
        ], end if fence is None else fence.end()

    def _loose_at(
        self, text: str, at: int, start: int, named: re.Match[str] | None
    ) -> tuple[list[WrittenCall], int] | None:
        """The calls between a place and the next mark, written as JSON is not; the arguments begin at ``start``."""
        closing = BODY_END.search(text, start)
        assert closing is not None
        end = closing.start()
        body = text[start:end].strip().removesuffix("```")
        value = None if self.is_cut else _loose_value(body, is_ended=bool(closing.group()))
        if named is not None:
            return (
                ([WrittenCall(named["name"], value, text[at:end])], end)
                if isinstance(value, dict)
                else None
            )
        calls = list(self._of_value(value, text[at:end]))
        return (calls, end) if calls else None

    def _plain(self, text: str) -> Spoken | None:
        """The calls that are the whole message, or its only fenced block."""
        values = list(values_in(text))
        if not values or any(value.problem is not None for value in values):
            return self._only_fenced(text, values)
        before = [None, *values]
        is_list = all(
            _follows(text, one, value) for one, value in zip(before, values, strict=False)
        )
        if is_list and not END_MARK.sub("", text[values[-1].end :]).strip():
            calls = [
                call
                for value in values
                for call in self._of_value(value.value, text[value.start : value.end])
            ]
            return Spoken(tuple(calls), "") if len(calls) >= len(values) else None
        return self._only_fenced(text, values)

    def _only_fenced(self, text: str, values: Sequence[Value]) -> Spoken | None:
        fenced = [value for value in values if value.problem is None and is_fenced(text, value)]
        if len(fenced) != 1 or text.count("```") != 2:
            return None
        (only,) = fenced
        calls = tuple(self._of_value(only.value, text[only.start : only.end]))
        if stands_alone(text, only):
            return Spoken(calls, "")
        before = FENCE_BEFORE.sub("", text[: only.start])
        after = text[only.end :]
        fence = FENCE_AFTER.match(after)
        return Spoken(
            calls, f"{before.strip()}\n{after[fence.end() if fence else 0 :].strip()}".strip()
        )

    def _loose(self, text: str) -> Spoken | None:
        """The same, of what is written as JSON is not: calls of Python, and texts with line breaks among them."""
        fence = FENCE.search(text)
        is_alone = (
            fence is None or not text[: fence.start()].strip()
        )  # a fence that does not end is the whole message
        if self.is_cut or text.count("```") > 2 or (text.count("```") == 1 and not is_alone):
            return None
        body, rest = END_MARK.sub("", text).strip(), ""
        if fence is not None:
            body, rest = (
                fence["body"],
                f"{text[: fence.start()].strip()}\n{text[fence.end() :].strip()}".strip(),
            )
        return Spoken(tuple(self._of_value(_loose_value(body, is_ended=False), body)), rest)

    def _of_value(self, value: Any, text: str) -> Iterator[WrittenCall]:
        """The calls that a value writes out."""
        if isinstance(value, list):
            for one in value:
                yield from self._of_value(one, _item_text(one, text))
            return
        if isinstance(value, PythonCall):
            yield from self._of_python(value, text)
            return
        if not isinstance(value, dict):
            return
        for key in LIST_KEYS:
            if isinstance(value.get(key), list):
                yield from self._of_value(value[key], text)
                return
        for key in INNER_KEYS:
            if isinstance(value.get(key), dict):
                yield from self._of_value(value[key], text)
                return
        call = _of_object(value, text) or self._of_single_key(value, text)
        if call is not None:
            yield call

    def _of_single_key(self, value: Mapping[str, Any], text: str) -> WrittenCall | None:
        """An object whose one key is a tool, and its value the arguments."""
        if len(value) != 1:
            return None
        ((name, given),) = value.items()
        return (
            WrittenCall(name, given, text)
            if name in self.schemas and isinstance(given, dict)
            else None
        )

    def _of_python(self, call: PythonCall, text: str) -> Iterator[WrittenCall]:
        """A call of Python: what has no name is the parameter at its place."""
        name = call.name.removesuffix(".call")  # as Llama calls its own tools
        places = list(self._schema_of(name).get("properties", {}))[: len(call.positional)]
        placed = dict(zip(places, call.positional, strict=False))
        if len(placed) == len(call.positional) and placed.keys().isdisjoint(call.named):
            yield WrittenCall(name, placed | call.named, text)

    def _of_xml(self, match: re.Match[str]) -> WrittenCall | None:
        """A call whose parameters are elements, or one JSON object."""
        if self.is_cut and not match.group().endswith(XML_ENDS):
            return None
        name = (match["function"] or match["invoke"]).strip("\"'")
        body = match["of_function"] if match["of_function"] is not None else match["of_invoke"]
        if body.strip().startswith("{"):
            try:
                arguments = read_loosely(body)
            except ValueError:
                return None
            return (
                WrittenCall(name, arguments, match.group()) if isinstance(arguments, dict) else None
            )
        pairs = {}
        for one in XML_PARAMETER.finditer(body):
            key = one["key"] or one["name"]
            pairs[key] = one["value"] if one["value"] is not None else one["of_name"]
        return WrittenCall(name, _typed(pairs, self._schema_of(name)), match.group())

    def _of_pairs(self, match: re.Match[str]) -> WrittenCall:
        """A call whose parameters are pairs of a key and a value."""
        pairs = {key.strip(): value for key, value in GLM_PAIR.findall(match["pairs"])}
        return WrittenCall(
            match["name"], _typed(pairs, self._schema_of(match["name"])), match.group()
        )

    def _schema_of(self, name: str) -> Mapping[str, Any]:
        """The parameters of the tool that a call means; of no tool, none."""
        schema: Mapping[str, Any] = self.schemas.get(tool_meant(name, self.schemas) or "", {})
        return schema


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


def _loose_value(body: str, *, is_ended: bool) -> Any:
    """What a text says that is no JSON; None if nothing. Where its end is marked, an outermost brace may be missing."""
    for candidate in (body, body + "}") if is_ended else (body,):
        try:
            return read_loosely(candidate)
        except ValueError:
            continue
    return None


def _follows(text: str, before: Value | None, value: Value) -> bool:
    """Whether nothing but a separator stands between two values."""
    return not text[before.end if before else 0 : value.start].strip(" \t\r\n;,")


def _item_text(item: Any, text: str) -> str:
    """An item of a list as a text; of calls of Python it is the list's."""
    return text if isinstance(item, PythonCall) else json.dumps(item, ensure_ascii=False)


def _of_object(value: Mapping[str, Any], text: str) -> WrittenCall | None:
    """An object with a name and arguments."""
    name = next((value[key] for key in NAME_KEYS if isinstance(value.get(key), str)), None)
    given = next((value[key] for key in ARGUMENT_KEYS if key in value), None)
    if isinstance(given, str):
        try:
            given = read_loosely(given)
        except ValueError:
            return None
    if name is None or not isinstance(given, dict):
        return None
    return WrittenCall(name, given, text)


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
