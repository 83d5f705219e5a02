"""Tool calls of one turn, run at once; whatever goes wrong goes back to the agent as text."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ValidationError

from pandas_amr._agent.answers import TooDeep, loads
from pandas_amr._agent.prompts import shortened
from pandas_amr._agent.results import as_text, cut_middle
from pandas_amr._agent.threads import called, called_here
from pandas_amr._records.concurrency import await_contained
from pandas_amr._records.raised import described
from pandas_amr._types.json_text import DoubledKey
from pandas_amr.models.base import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pandas_amr._types.wire import Wire
    from pandas_amr.models.base import ToolCall


LONGEST_NAME = 64
NAMESPACES = ("functions.", "default_api.", "tools.")
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
    def wire(self) -> Wire:
        """How its arguments are asked of a model, and how they are read."""
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
    def max_result_chars(self) -> int | None:
        """Characters of a result that an agent gets to read; None if the tool bounds its results."""
        ...

    @property
    def passes(self) -> tuple[type[Exception], ...]:
        """What it raises that is not the agent's to read, and ends the agent's work."""
        ...


@dataclass(frozen=True, slots=True)
class HandedIn:
    """A tool's result that is the agent's submission: what it says to the agent, and the payload."""

    text: str
    payload: Any


async def dispatch(
    calls: Sequence[ToolCall], tools: Sequence[AgentTool]
) -> tuple[list[Message], HandedIn | None]:
    """Run the calls side by side; one tool message each, in the order of the calls, and what they handed in."""
    known = {tool.name: tool for tool in tools}
    running = [asyncio.ensure_future(await_contained(_run(call, known))) for call in calls]
    await asyncio.gather(*running, return_exceptions=True)  # none is left to run on by itself
    results = [one.result() for one in running]
    messages = [
        Message(
            role="tool",
            content=one.text if isinstance(one, HandedIn) else one,
            tool_call_id=call.id,
        )
        for call, one in zip(calls, results, strict=True)
    ]
    return messages, merged([one for one in results if isinstance(one, HandedIn)])


def merged(handed_in: Sequence[HandedIn]) -> HandedIn | None:
    """What several calls of one turn handed in: all their findings, once if several name it; or else the last value."""
    lists = [_findings_of(one) for one in handed_in]
    if len(handed_in) < 2 or None in lists:
        return handed_in[-1] if handed_in else None
    findings: list[Any] = []
    seen: set[str] = set()
    for listed in lists:
        texts = [json.dumps(finding, sort_keys=True, default=str) for finding in listed or ()]
        for finding, text in zip(listed or (), texts, strict=True):
            if text not in seen:
                findings.append(finding)
        seen.update(texts)
    return HandedIn(handed_in[-1].text, {"findings": findings})


def _findings_of(handed_in: HandedIn) -> list[Any] | None:
    listed = handed_in.payload.get("findings") if isinstance(handed_in.payload, dict) else None
    return listed if isinstance(listed, list) else None


def is_call_of(name: str, tool: str) -> bool:
    """Whether a call means a tool: models put the name of a namespace before it, as in ``functions.look``."""
    tail = name.partition("<|")[0].strip()
    for namespace in NAMESPACES:
        tail = tail.removeprefix(namespace)
    return tool in {name, tail}


async def _run(call: ToolCall, known: dict[str, AgentTool]) -> str | HandedIn:
    tool = next((tool for name, tool in known.items() if is_call_of(call.name, name)), None)
    if tool is None:
        return f"There is no tool {call.name[:LONGEST_NAME]!r}. There is: {', '.join(known) or 'none'}."
    assert tool.args_schema is not None
    deadline = asyncio.timeout(tool.timeout_s)
    try:
        given = _arguments_of(call, tool)
        arguments = called_here(tool.args_schema.model_validate_json, given)
    except UnreadableArguments as error:
        return f"{tool.name}: these arguments do not fit: {error}"
    except ValidationError as error:
        return f"{tool.name}: these arguments do not fit: {complaint(error)}"
    except Exception as error:  # noqa: BLE001 (the checks are the user's)
        return _told(tool, error)
    values = {name: getattr(arguments, name) for name in type(arguments).model_fields} | (
        arguments.model_extra or {}
    )
    try:
        async with deadline:
            result = await called(tool.func, **values)
            if isinstance(result, HandedIn):
                return result
            text = as_text(result) if isinstance(result, str) else await called(as_text, result)
        return cut_middle(text, tool.max_result_chars)
    except tool.passes:
        raise
    except Exception as error:  # noqa: BLE001 (the tool is the user's, whatever it raises is told to the agent)
        return _told(tool, error, late=deadline.expired())


def _told(tool: AgentTool, error: Exception, *, late: bool = False) -> str:
    """What an agent is told of a call that gave nothing."""
    if isinstance(error, TimeoutError) and late:  # and not the function's own
        return f"{tool.name} gave no answer within {tool.timeout_s:g} s."
    return cut_middle(as_text(f"{tool.name} raised {described(error)}"), tool.max_result_chars)


class UnreadableArguments(ValueError):
    """Arguments that are JSON, but not JSON that says one thing."""


def _arguments_of(call: ToolCall, tool: AgentTool) -> str:
    """A call's arguments as the tool has them, as JSON; whether it is JSON at all, pydantic says with the place.

    Raises:
        UnreadableArguments: an object names a key twice, or the nesting has no end.
    """
    try:
        given = loads(call.arguments)
    except (DoubledKey, TooDeep) as error:
        raise UnreadableArguments(str(error)) from None
    except ValueError:
        return call.arguments
    read = tool.wire.read_arguments(given)
    return call.arguments if read == given else json.dumps(read)


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
