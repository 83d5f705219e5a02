"""Tool calls of one turn, run at once; whatever goes wrong goes back to the agent as text."""

from __future__ import annotations

import asyncio
import inspect
import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from pandas_amr.models.base import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr.models.base import ToolCall
    from pandas_amr.tools import Tool


async def dispatch(calls: Sequence[ToolCall], tools: Sequence[Tool]) -> list[Message]:
    """Run the calls side by side; one tool message each, in the order of the calls."""
    known = {tool.name: tool for tool in tools}
    texts = await asyncio.gather(*(_run(call, known) for call in calls))
    return [Message(role="tool", content=text, tool_call_id=call.id) for call, text in zip(calls, texts, strict=True)]


async def _run(call: ToolCall, known: dict[str, Tool]) -> str:
    tool = known.get(call.name)
    if tool is None:
        return f"There is no tool {call.name!r}. There is: {', '.join(known) or 'none'}."
    assert tool.args_schema is not None
    try:
        arguments = tool.args_schema.model_validate_json(call.arguments or "{}")
    except ValidationError as error:
        return f"{tool.name}: these arguments do not fit: {complaint(error)}"
    values = {name: getattr(arguments, name) for name in type(arguments).model_fields}
    try:
        async with asyncio.timeout(tool.timeout_s):
            if inspect.iscoroutinefunction(tool.func):
                result = await tool.func(**values)
            else:
                result = await asyncio.to_thread(tool.func, **values)
    except TimeoutError:
        return f"{tool.name} gave no answer within {tool.timeout_s:g} s."
    except Exception as error:  # noqa: BLE001 (the tool is the user's, whatever it raises is told to the agent)
        return f"{tool.name} raised {type(error).__name__}: {error}"
    return as_text(result)


def as_text(value: Any) -> str:
    """A tool's result as an agent reads it: text as it is, all else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, ensure_ascii=False, default=str)


def complaint(error: ValidationError) -> str:
    """What does not fit, where, in one line that an agent can act on; without the value itself."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'value'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    )
