"""Tool calls of one turn, run at once; whatever goes wrong goes back to the agent as text."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ValidationError

from pandas_amr._agent.threads import called, called_here
from pandas_amr._prompts import shortened
from pandas_amr._stopped import described
from pandas_amr.engines.local import await_contained
from pandas_amr.models.base import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pandas_amr.models.base import ToolCall


TOLD_ERRORS = 3
PLACE_CHARS = 100  # of one part of the path to a value


class AgentTool(Protocol):
    """What an agent may call: a tool of the user's, or the library's REPL."""

    @property
    def name(self) -> str:
        """What agents call it."""
        ...

    @property
    def description(self) -> str:
        """What agents are told of it."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The JSON schema of its arguments."""
        ...

    @property
    def args_schema(self) -> type[BaseModel] | None:
        """What checks its arguments."""
        ...

    @property
    def func(self) -> Callable[..., Any]:
        """What runs; sync functions in a thread."""
        ...

    @property
    def timeout_s(self) -> float | None:
        """Seconds that one call may take; None where it keeps its own time."""
        ...

    @property
    def passes(self) -> tuple[type[Exception], ...]:
        """What it raises that is not the agent's to read, and ends the agent's work."""
        ...


class DoubledKey(ValueError):
    """An object of a model's JSON names a key twice, so that nobody can tell which value was meant."""

    def __init__(self) -> None:
        super().__init__("an object in it names a key twice")


@dataclass(frozen=True, slots=True)
class HandedIn:
    """A tool's result that is the agent's submission: what it says to the agent, and the payload."""

    text: str
    payload: Any


async def dispatch(calls: Sequence[ToolCall], tools: Sequence[AgentTool]) -> tuple[list[Message], HandedIn | None]:
    """Run the calls side by side; one tool message each, in the order of the calls, and what one of them handed in."""
    known = {tool.name: tool for tool in tools}
    running = [asyncio.ensure_future(await_contained(_run(call, known))) for call in calls]
    await asyncio.gather(*running, return_exceptions=True)  # none is left to run on by itself
    results = [one.result() for one in running]
    messages = [
        Message(role="tool", content=one.text if isinstance(one, HandedIn) else one, tool_call_id=call.id)
        for call, one in zip(calls, results, strict=True)
    ]
    return messages, _together([one for one in results if isinstance(one, HandedIn)])


def _together(handed_in: Sequence[HandedIn]) -> HandedIn | None:
    """What several calls of one turn handed in: all their findings, or else the last value."""
    if not handed_in:
        return None
    lists = [one.payload.get("findings") if isinstance(one.payload, dict) else None for one in handed_in]
    if len(handed_in) > 1 and all(isinstance(one, list) for one in lists):
        return HandedIn(handed_in[-1].text, {"findings": [finding for one in lists for finding in one or ()]})
    return handed_in[-1]


async def _run(call: ToolCall, known: dict[str, AgentTool]) -> str | HandedIn:
    tool = known.get(call.name)
    if tool is None:
        return f"There is no tool {call.name!r}. There is: {', '.join(known) or 'none'}."
    assert tool.args_schema is not None
    deadline = asyncio.timeout(tool.timeout_s)
    try:
        _check_keys(call.arguments or "{}")
        arguments = called_here(tool.args_schema.model_validate_json, call.arguments or "{}")
    except DoubledKey as error:
        return f"{tool.name}: these arguments do not fit: {error}"
    except ValidationError as error:
        return f"{tool.name}: these arguments do not fit: {complaint(error)}"
    except Exception as error:  # noqa: BLE001 (the checks are the user's)
        return _told(tool, error)
    values = {name: getattr(arguments, name) for name in type(arguments).model_fields} | (arguments.model_extra or {})
    try:
        async with deadline:
            result = await called(tool.func, **values)
        return result if isinstance(result, HandedIn) else called_here(as_text, result)
    except tool.passes:
        raise
    except Exception as error:  # noqa: BLE001 (the tool is the user's, whatever it raises is told to the agent)
        return _told(tool, error, late=deadline.expired())


def _told(tool: AgentTool, error: Exception, *, late: bool = False) -> str:
    """What an agent is told of a call that gave nothing."""
    if isinstance(error, TimeoutError) and late:  # and not the function's own
        return f"{tool.name} gave no answer within {tool.timeout_s:g} s."
    return f"{tool.name} raised {described(error)}"


def _check_keys(arguments: str) -> None:
    """Refuse doubled keys; whether it is JSON at all, pydantic says with the place.

    Raises:
        DoubledKey: an object names a key twice.
    """
    try:
        loads(arguments)
    except DoubledKey:
        raise
    except ValueError:
        return


def loads(text: str) -> Any:
    """Decode JSON in which no object names a key twice; ``json.loads`` would keep the last in silence.

    Raises:
        DoubledKey: one does.
        ValueError: it is no JSON.

    Example:
        >>> loads('{"unit": 0}')
        {'unit': 0}
    """
    return json.loads(text, object_pairs_hook=_without_doubles)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise DoubledKey
    return made


def as_text(value: Any) -> str:
    """A tool's result as an agent reads it: text as it is, all else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, ensure_ascii=False, default=str)


def complaint(error: ValidationError) -> str:
    """What does not fit, where, in one line that an agent can act on; without the value itself.

    A list may have as many errors as values, and the name of a place may be as long as an answer: the first ones are
    told, and so much of them as helps.
    """
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    told = []
    for problem in errors[:TOLD_ERRORS]:
        place = ".".join(str(part)[:PLACE_CHARS] for part in problem["loc"]) or "value"
        told.append(f"{place}: {problem['msg']}")
    if len(errors) > TOLD_ERRORS:
        told.append(f"and {len(errors) - TOLD_ERRORS:,} more")
    return shortened("; ".join(told))
