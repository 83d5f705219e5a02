"""Code as the answer, where a server makes no tool calls: the conversation with a REPL, written out as texts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from pandas_amr._agent import prompts
from pandas_amr._agent.answers import decode_answer, without_thoughts
from pandas_amr._agent.dispatch import find_tool
from pandas_amr._agent.expressions import read_loosely
from pandas_amr._agent.repl import FENCED, REPL, Code, without_fence
from pandas_amr._agent.written_calls import WrittenCall
from pandas_amr._types.schema import json_schema
from pandas_amr._types.wire import wire_of
from pandas_amr.models.base import Message, ResponseSchema, ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pandas_amr._agent.repl import Repl

CODE = "code"
FORCED_CALL = f"submit_{CODE}"  # what a server calls that takes no schema of an answer
# Llama writes code behind a mark of its own.
MARKED = re.compile(
    r"<\|python_(?:tag|start)\|>(?P<code>.*?)(?:<\|(?:eom_id|eot_id|python_end)\|>\s*)*\Z",
    re.DOTALL,
)


@cache
def code_response() -> ResponseSchema:
    """The form of an answer that is code."""
    wire = wire_of(json_schema(Code))
    return ResponseSchema(CODE, wire.schema, strict=wire.strict)


def as_texts(conversation: Sequence[Message], repl: Repl, *, is_open: bool) -> tuple[Message, ...]:
    """Write out a conversation for a server without tools: calls as the answers that they were, results as messages.

    While code ``is_open``, what an agent is told of its REPL stands with what it is to do. What the user's side says at
    once is one message, since many chat templates refuse two.
    """
    about = prompts.code_system(repl.description)
    written: list[Message] = []
    for message in conversation:
        one = _as_text(message, repl)
        if one.role == "system" and is_open:
            one = replace(one, content=f"{one.content}\n\n{about}")
        last = written[-1] if written else None
        if last is not None and last.role == one.role == "user":
            written[-1] = replace(last, content=f"{last.content}\n\n{one.content}")
        else:
            written.append(one)
    return tuple(written)


def _as_text(message: Message, repl: Repl) -> Message:
    """A message without tools."""
    if message.role == "tool":
        hint = prompts.not_handed_in(repl.line)
        output = message.content or ""
        told = hint if hint and output.endswith(hint) else ""
        return Message("user", prompts.cell_output(output.removesuffix(told)) + told)
    if not message.tool_calls:
        return message
    answers = [
        call.arguments if call.name == REPL else _spelled(call) for call in message.tool_calls
    ]
    return replace(message, content="\n".join(answers), tool_calls=())


def _spelled(call: ToolCall) -> str:
    """A call that is none of the REPL."""
    return json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)


def read_code(
    message: Message, finish_reason: str, is_quoted: Callable[[WrittenCall], bool]
) -> Message | None:
    """An answer that is code, as the call that it stands for; None if it is none.

    Taken are an object with the text ``code``, the forced call that holds one, and a message whose only fence is
    Python; never what stands in the data, as no call is.
    """
    if message.tool_calls:
        calls = [replace(call, name=_meant(call.name)) for call in message.tool_calls]
        return replace(message, tool_calls=tuple(calls))
    code = _code_in(message.content or "", finish_reason)
    if code is None or is_quoted(code):
        return None
    arguments = json.dumps(code.arguments, ensure_ascii=False)
    extra = {key: value for key, value in message.extra.items() if key != "content"}
    return replace(message, content=None, tool_calls=(ToolCall("", REPL, arguments),), extra=extra)


def _meant(name: str) -> str:
    return REPL if find_tool(name, [FORCED_CALL]) else name


def _code_in(text: str, finish_reason: str) -> WrittenCall | None:
    """The code that a text is; of one that was cut off nobody knows what is missing."""
    said, _ = without_thoughts(text.strip())
    payload = _object_in(text, said, finish_reason)
    if payload is not None:
        code = payload.get(CODE) if len(payload) == 1 else None
    elif finish_reason == "length":
        code = None
    elif (marked := MARKED.match(said)) is not None:
        code = marked["code"]
    else:
        fences = FENCED.findall(said)
        code = fences[0] if len(fences) == 1 and said.count("```") == 2 else None
    if not isinstance(code, str) or (payload is None and not code.strip()):
        return None
    code = without_fence(code)
    return WrittenCall(REPL, {CODE: code}, code)


def _object_in(text: str, said: str, finish_reason: str) -> dict[str, Any] | None:
    """The object that a text is, or holds; one that is all of it may be written as JSON is not."""
    payload, problem = decode_answer(text, finish_reason)
    if problem is None or finish_reason == "length":
        return payload if problem is None else None
    try:
        payload = read_loosely(said)
    except ValueError:
        return None
    return payload if isinstance(payload, dict) else None
