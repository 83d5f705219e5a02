"""The forms in which structured output is requested, and a request in each of them."""

from __future__ import annotations

import json
from dataclasses import replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from pandas_amr.models.base import ToolSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr.models.base import Message, Request, ResponseSchema

WORDS = "Answer with one JSON object, the {}, that follows this JSON schema:"


class Form(IntEnum):
    """The forms in which structured output is requested, the best one first."""

    SCHEMA = 0
    TOOL = 1
    JSON_OBJECT = 2
    PROMPT = 3

    @property
    def label(self) -> str:
        """Its name in a trace."""
        return self.name.lower()


def in_form(request: Request, schema: ResponseSchema, form: Form) -> Request:
    """Give the request in a form."""
    if form == Form.SCHEMA:
        return request
    if form == Form.TOOL:
        name = _tool_name(schema)
        tool = ToolSpec(name, f"Hand in the {schema.name}.", schema.schema)
        return replace(request, schema=None, tools=(tool,), forced_tool=name)
    words = f"{WORDS.format(schema.name)}\n{json.dumps(schema.schema, ensure_ascii=False)}"
    last = request.messages[-1]
    last = replace(last, content=f"{last.content or ''}\n\n{words}")
    return replace(
        request,
        schema=None,
        messages=(*request.messages[:-1], last),
        json_object=form == Form.JSON_OBJECT,
    )


def _tool_name(schema: ResponseSchema) -> str:
    return f"submit_{schema.name}"


def answer_in(message: Message, schema: ResponseSchema) -> str | None:
    """Give the text of an answer: the arguments of the forced tool's call, or the content."""
    for call in message.tool_calls:
        if call.name == _tool_name(schema):
            return call.arguments
    return message.content


def has_shape(text: str, schema: Mapping[str, Any]) -> bool:
    """Tell whether an answer follows a schema roughly.

    It must be one JSON object with some of the keys, and hold objects in lists of objects. No more
    is checked: a server that leaves out a field may follow the rest, and gets a repair turn.
    """
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        return False
    properties = schema.get("properties", {})
    if not isinstance(payload, dict) or payload.keys().isdisjoint(properties):
        return False
    for name, value in payload.items():
        wanted = properties.get(name, {})
        takes_objects = wanted.get("type") == "array" and wanted["items"].get("type") == "object"
        if not takes_objects or not isinstance(value, list):
            continue
        if not all(isinstance(item, dict) for item in value):
            return False
    return True
