"""Convert a request into the body of the chat-completions protocol."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas_amr.models.base import LM, Message, Request, ToolCall, ToolSpec

NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
LONGEST_NAME = 64


def body_of(lm: LM, request: Request) -> dict[str, Any]:
    """Convert a request into the body of an HTTP request."""
    body: dict[str, Any] = {
        "model": lm.model,
        "messages": [_convert_message(message) for message in request.messages],
    }
    body |= options_of(lm)
    if request.tools:
        body["tools"] = [_convert_tool(tool) for tool in request.tools]
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
    """Give the settings under the names of the protocol; all requests of a model share them."""
    values = {
        "temperature": lm.temperature,
        "seed": lm.seed,
        "reasoning_effort": lm.reasoning_effort,
        "max_completion_tokens": lm.max_output_tokens,
    }
    options: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    options.update(lm.extra_body or {})
    return options


def _convert_tool(tool: ToolSpec) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    return {"type": "function", "function": function}


def _convert_message(message: Message) -> dict[str, Any]:
    """Convert a message; an assistant's keeps all that its server put into it."""
    converted: dict[str, Any] = {"role": message.role, "content": message.content}
    converted |= message.extra
    if message.tool_calls:
        converted["tool_calls"] = [_convert_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        converted["tool_call_id"] = message.tool_call_id
    return converted


def _convert_call(call: ToolCall) -> dict[str, Any]:
    """Convert a tool call into a form that servers take back.

    They refuse names that no tool can have, and arguments that are not a JSON object. These are
    replaced; the call's result tells the model what was wrong.
    """
    extra = dict(call.extra)
    function = dict(extra.pop("function", {}))
    function["name"] = _sendable_name(call.name)
    function["arguments"] = "{}"
    if is_json_object(call.arguments):
        function["arguments"] = call.arguments
    return {"type": "function", **extra, "id": call.id, "function": function}


def _sendable_name(name: str) -> str:
    return NOT_IN_NAMES.sub("_", name)[:LONGEST_NAME] or "unknown"


def is_json_object(text: str) -> bool:
    """Tell whether a text is a JSON object for every server: no NaN, not nested too deeply."""
    try:
        return isinstance(json.loads(text, parse_constant=_refuse_constant), dict)
    except (ValueError, RecursionError):
        return False


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
