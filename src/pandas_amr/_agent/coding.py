"""Code as the answer, if a server makes no tool calls.

The conversation with a REPL is then sent as texts, and code in an answer becomes a call.
"""

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
from pandas_amr._agent.messages import without_keys
from pandas_amr._agent.repl import FENCED, REPL, Code, without_fence
from pandas_amr._agent.written_calls import WrittenCall
from pandas_amr._types.schema import json_schema
from pandas_amr._types.wire import make_wire
from pandas_amr.models.base import Message, ResponseSchema, ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pandas_amr._agent.repl import Repl

CODE = "code"
FORCED_CALL = f"submit_{CODE}"  # servers that take no schema of an answer call this tool
# Llama has its own mark for code.
MARKED = re.compile(
    r"<\|python_(?:tag|start)\|>(?P<code>.*?)(?:<\|(?:eom_id|eot_id|python_end)\|>\s*)*\Z",
    re.DOTALL,
)


@cache
def code_response() -> ResponseSchema:
    """Return the schema of an answer that is code."""
    wire = make_wire(json_schema(Code))
    return ResponseSchema(CODE, wire.schema, strict=wire.strict)


def as_texts(conversation: Sequence[Message], repl: Repl, *, is_open: bool) -> tuple[Message, ...]:
    """Write a conversation without tools: calls as the model's answers, results as messages.

    While code ``is_open``, the system message describes the REPL. Adjacent messages of the user
    become one, since many chat templates reject two.
    """
    description = prompts.code_system(repl.description)
    texts: list[Message] = []
    for message in conversation:
        text = _as_text(message, repl)
        if text.role == "system" and is_open:
            text = replace(text, content=f"{text.content}\n\n{description}")
        last = texts[-1] if texts else None
        if last is not None and last.role == text.role == "user":
            texts[-1] = replace(last, content=f"{last.content}\n\n{text.content}")
        else:
            texts.append(text)
    return tuple(texts)


def _as_text(message: Message, repl: Repl) -> Message:
    """Write a message without tools."""
    if message.role == "tool":
        # The reminder of how to submit is the library's, and stays outside of the fence.
        output = message.content or ""
        reminder = prompts.submit_reminder(repl.line)
        if not reminder or not output.endswith(reminder):
            return Message("user", prompts.cell_output(output))
        printed = prompts.cell_output(output.removesuffix(reminder))
        return Message("user", printed + reminder)
    if not message.tool_calls:
        return message
    answers = [
        call.arguments if call.name == REPL else _call_as_json(call) for call in message.tool_calls
    ]
    return replace(message, content="\n".join(answers), tool_calls=())


def _call_as_json(call: ToolCall) -> str:
    return json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)


def read_code(
    message: Message, finish_reason: str, is_quoted: Callable[[WrittenCall], bool]
) -> Message | None:
    """Turn an answer that is code into a call of the REPL; return None if it is not code.

    Code is an object with the text ``code``, the forced call with one, or the only fence of a
    message if it is Python; but never what is in the data.
    """
    if message.tool_calls:
        calls = [_as_repl_call(call) for call in message.tool_calls]
        return replace(message, tool_calls=tuple(calls))
    code = _find_code(message.content or "", finish_reason)
    if code is None or is_quoted(code):
        return None
    call = ToolCall("", REPL, json.dumps(code.arguments, ensure_ascii=False))
    extra = without_keys(message.extra, ("content",))
    return replace(message, content=None, tool_calls=(call,), extra=extra)


def _as_repl_call(call: ToolCall) -> ToolCall:
    is_forced = find_tool(call.name, [FORCED_CALL]) is not None
    return replace(call, name=REPL) if is_forced else call


def _find_code(text: str, finish_reason: str) -> WrittenCall | None:
    """Return the code in an answer; None if it was cut off, since its end is missing."""
    answer, _ = without_thoughts(text.strip())
    payload = _find_object(text, answer, finish_reason)
    if payload is not None:
        code = payload.get(CODE) if len(payload) == 1 else None
        if not isinstance(code, str):
            return None
    elif finish_reason == "length":
        return None
    else:
        code = _marked_code(answer)
        if code is None or not code.strip():
            return None
    code = without_fence(code)
    return WrittenCall(REPL, {CODE: code}, code)


def _marked_code(answer: str) -> str | None:
    """Return the code behind a mark, or in the only fence."""
    marked = MARKED.match(answer)
    if marked is not None:
        return marked["code"]
    fenced = FENCED.findall(answer)
    return fenced[0] if len(fenced) == 1 and answer.count("```") == 2 else None


def _find_object(text: str, answer: str, finish_reason: str) -> dict[str, Any] | None:
    """Return the object in an answer; if it is the whole answer, it may be nearly JSON."""
    payload, problem = decode_answer(text, finish_reason)
    if problem is not None and finish_reason == "length":
        return None
    if problem is not None:
        try:
            payload = read_loosely(answer)
        except ValueError:
            return None
    return payload if isinstance(payload, dict) else None
