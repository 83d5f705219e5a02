"""A request as the protocol spells it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas_amr.models.base import LM, Message, Request, ToolCall

NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
LONGEST_NAME = 64


def body_of(lm: LM, request: Request) -> dict[str, Any]:
    """The request as the protocol spells it."""
    body: dict[str, Any] = {
        "model": lm.model,
        "messages": [_spelled(message) for message in request.messages],
    }
    body |= options_of(lm)
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": dict(tool.parameters),
                },
            }
            for tool in request.tools
        ]
    if request.forced_tool is not None:
        body["tool_choice"] = {"type": "function", "function": {"name": request.forced_tool}}
    if request.schema is not None:
        schema = {
            "name": request.schema.name,
            "schema": dict(request.schema.schema),
            "strict": request.schema.strict,
        }
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif request.json_object:
        body["response_format"] = {"type": "json_object"}
    return body


def options_of(lm: LM) -> dict[str, Any]:
    """The settings of a request, as the protocol names them; of each request of a model the same."""
    options = {
        "temperature": lm.temperature,
        "seed": lm.seed,
        "reasoning_effort": lm.reasoning_effort,
        "max_completion_tokens": lm.max_output_tokens,
    }
    return {name: value for name, value in options.items() if value is not None} | dict(
        lm.extra_body or {}
    )


def _spelled(message: Message) -> dict[str, Any]:
    """A message as the protocol spells it; an assistant's with all that its server put into it."""
    spelled: dict[str, Any] = {"role": message.role, "content": message.content} | dict(
        message.extra
    )
    if message.tool_calls:
        spelled["tool_calls"] = [_spelled_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        spelled["tool_call_id"] = message.tool_call_id
    return spelled


def _spelled_call(call: ToolCall) -> dict[str, Any]:
    """A call as servers take it back: they refuse names that no tool can have, and arguments that are no JSON object.

    What was wrong with them stands in the call's result.
    """
    extra = dict(call.extra)
    function = {
        **extra.pop("function", {}),
        "name": _sendable_name(call.name),
        "arguments": call.arguments,
    }
    if not is_json_object(call.arguments):
        function["arguments"] = "{}"
    return {"type": "function", **extra, "id": call.id, "function": function}


def _sendable_name(name: str) -> str:
    return NOT_IN_NAMES.sub("_", name)[:LONGEST_NAME] or "unknown"


def is_json_object(text: str) -> bool:
    """Whether a text is a JSON object as every server reads JSON: no NaN, and not nested without end."""
    try:
        return isinstance(json.loads(text, parse_constant=_refuse_constant), dict)
    except (ValueError, RecursionError):
        return False


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
