"""Run the tool calls of one turn; every failure goes back to the agent as text."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ValidationError

from pandas_amr._agent.expressions import read_loosely
from pandas_amr._agent.prompts import shorten_problem
from pandas_amr._agent.results import as_text
from pandas_amr._agent.strict_json import TooDeep, loads
from pandas_amr._agent.threads import call_contained, call_user_function
from pandas_amr._agent.transcriber import name_call, transcribe_error
from pandas_amr._records.concurrency import await_user_code
from pandas_amr._records.cut import cut_middle
from pandas_amr._records.engine import in_thread
from pandas_amr._records.raised import describe_error
from pandas_amr._records.trace import note_tool_error, record_tool, type_name
from pandas_amr._types.json_text import RepeatedKey
from pandas_amr._types.parameters import arguments_of
from pandas_amr.models.base import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pandas_amr._types.wire import Wire
    from pandas_amr.models.base import ToolCall


LONGEST_NAME = 64
NAMESPACES = ("functions.", "default_api.", "tools.")  # models put these before a tool's name
SHOWN_ERRORS = 3
PLACE_CHARS = 100  # of one part of the path to a value


class AgentTool(Protocol):
    """What an agent can call: a tool of the user, or the library's REPL."""

    @property
    def name(self) -> str:
        """The name for agents."""
        ...

    @property
    def description(self) -> str:
        """The description for agents."""
        ...

    @property
    def wire(self) -> Wire:
        """How its arguments are described to a model, and how they are read."""
        ...

    @property
    def args_schema(self) -> type[BaseModel] | None:
        """The model that checks its arguments."""
        ...

    @property
    def func(self) -> Callable[..., Any]:
        """The function; a sync function runs in a thread."""
        ...

    @property
    def timeout_s(self) -> float | None:
        """How long one call may take; None if the tool has its own time limit."""
        ...

    @property
    def max_result_chars(self) -> int | None:
        """How many characters of a result an agent reads; None if the tool limits them itself."""
        ...

    @property
    def redact(self) -> Callable[[str], str] | None:
        """What every result passes before an agent reads it; None if nothing is redacted."""
        ...

    @property
    def passes(self) -> tuple[type[Exception], ...]:
        """The exceptions that end the agent's work instead of being shown to it."""
        ...


@dataclass(frozen=True, slots=True)
class ToolSubmission:
    """A tool's result that is the agent's submission: a text for the agent, and the payload."""

    text: str
    payload: Any


async def dispatch(
    calls: Sequence[ToolCall], tools: Sequence[AgentTool], asked_in: int = 0
) -> tuple[list[Message], ToolSubmission | None]:
    """Run the calls concurrently.

    Args:
        calls: the calls of one turn.
        tools: what can be called.
        asked_in: the number of the turn among the run's calls of models, for whoever listens.

    Returns:
        One tool message per call, in the order of the calls; and what the calls submitted.
    """
    by_name = {tool.name: tool for tool in tools}
    running = [
        asyncio.ensure_future(await_user_code(_run(call, by_name, asked_in))) for call in calls
    ]
    # Wait for all of them, so that no call runs on by itself if another one raises.
    await asyncio.gather(*running, return_exceptions=True)
    results = [future.result() for future in running]
    messages: list[Message] = []
    submissions: list[ToolSubmission] = []
    for call, result in zip(calls, results, strict=True):
        if isinstance(result, ToolSubmission):
            submissions.append(result)
            text = result.text
        else:
            text = result
        messages.append(Message(role="tool", content=text, tool_call_id=call.id))
    return messages, merge_submissions(submissions)


def merge_submissions(submissions: Sequence[ToolSubmission]) -> ToolSubmission | None:
    """Merge the submissions of one turn: all findings, each once; else the last submission."""
    if not submissions:
        return None
    lists = [_findings_of(submission) for submission in submissions]
    if len(submissions) < 2 or None in lists:
        return submissions[-1]
    findings: list[Any] = []
    seen: set[str] = set()
    for listed in lists:
        # Compare between submissions only: one submission may repeat a finding on purpose.
        texts = [json.dumps(finding, sort_keys=True, default=str) for finding in listed or ()]
        for finding, text in zip(listed or (), texts, strict=True):
            if text not in seen:
                findings.append(finding)
        seen.update(texts)
    return ToolSubmission(submissions[-1].text, {"findings": findings})


def _findings_of(submission: ToolSubmission) -> list[Any] | None:
    if not isinstance(submission.payload, dict):
        return None
    listed = submission.payload.get("findings")
    return listed if isinstance(listed, list) else None


def find_tool(name: str, tools: Iterable[str]) -> str | None:
    """Return the tool that a call's name means, if it means one.

    Models write the name of a namespace before it, as in ``functions.look``, or change its case.

    Example:
        >>> find_tool("functions.look", ["look"]), find_tool("Look", ["look"])
        ('look', 'look')
        >>> find_tool("Look", ["look", "LOOK"]) is None
        True
    """
    names = list(tools)
    tail = name.partition("<|")[0].strip()
    for namespace in NAMESPACES:
        tail = tail.removeprefix(namespace)
    for exact in (name, tail):
        if exact in names:
            return exact
    similar = [tool for tool in names if tool.casefold() == tail.casefold()]
    return similar[0] if len(similar) == 1 else None


async def _run(
    call: ToolCall, by_name: dict[str, AgentTool], asked_in: int
) -> str | ToolSubmission:
    name_call(call.id)
    name = find_tool(call.name, by_name)
    if name is None:
        return _refuse_name(call, by_name)
    tool = by_name[name]
    with record_tool(tool.name, asked_in):
        return await _run_tool(call, tool)


async def _run_tool(call: ToolCall, tool: AgentTool) -> str | ToolSubmission:
    try:
        arguments = _read_arguments(call, tool)
    except UnreadableArguments as error:
        return _refuse_arguments(tool, error, str(error))
    except ValidationError as error:
        return _refuse_arguments(tool, error, complaint(error))
    except Exception as error:  # noqa: BLE001 (a validator of the user's)
        return await _describe_failure(tool, error)
    deadline = asyncio.timeout(tool.timeout_s)
    try:
        async with deadline:
            result = await _call(tool, arguments)
    except tool.passes:
        raise
    except Exception as error:  # noqa: BLE001 (the user's tool; the agent reads of it)
        if isinstance(error, TimeoutError) and deadline.expired():  # and not the function's own
            _note_error(error, "no answer in time")
            return f"{tool.name} gave no answer within {tool.timeout_s:g} s."
        return await _describe_failure(tool, error)
    if isinstance(result, ToolSubmission):
        return result
    # Before it is cut: a cut could leave half of what is to be taken out.
    return cut_middle(await redact_text(result, tool.redact), tool.max_result_chars)


def _refuse_name(call: ToolCall, by_name: Mapping[str, AgentTool]) -> str:
    transcribe_error("no such tool")
    listed = ", ".join(by_name) or "none"
    return f"There is no tool {call.name[:LONGEST_NAME]!r}. There is: {listed}."


def _refuse_arguments(tool: AgentTool, error: Exception, problem: str) -> str:
    _note_error(error, "wrong arguments")
    return f"{tool.name}: these arguments do not fit: {problem}"


def _note_error(error: Exception, shown: str) -> None:
    """Note the error of a tool call: its type for events, what is ``shown`` for the transcript."""
    note_tool_error(type_name(error))
    transcribe_error(shown)


async def _call(tool: AgentTool, arguments: dict[str, Any]) -> str | ToolSubmission:
    result = await call_user_function(tool.func, **arguments)
    if isinstance(result, ToolSubmission):
        return result
    # A text needs no thread; anything else may be large, or an object of the user's.
    return as_text(result) if isinstance(result, str) else await call_user_function(as_text, result)


async def _describe_failure(tool: AgentTool, error: Exception) -> str:
    _note_error(error, type_name(error))
    text = as_text(f"{tool.name} raised {describe_error(error)}")
    return cut_middle(await redact_text(text, tool.redact), tool.max_result_chars)


async def redact_text(text: str, redact: Callable[[str], str] | None) -> str:
    """Return what an agent reads of a text: what the user's function gives, called in a thread."""
    if redact is None:
        return text
    given: str = await in_thread(redact, text)
    return given


class UnreadableArguments(ValueError):
    """Arguments are JSON, but ambiguous or nested too deeply."""


def _read_arguments(call: ToolCall, tool: AgentTool) -> dict[str, Any]:
    """Check a call's arguments, and return them by name.

    Raises:
        UnreadableArguments: an object names a key twice, or the nesting is too deep.
        ValidationError: they do not match the tool's schema.
    """
    assert tool.args_schema is not None
    checked = call_contained(tool.args_schema.model_validate_json, _arguments_json(call, tool))
    return arguments_of(checked)


def _arguments_json(call: ToolCall, tool: AgentTool) -> str:
    """Return a call's arguments as JSON in the tool's own form.

    Text that is not JSON stays as it is: pydantic says what is wrong, and where.
    """
    text = argument_text(call.arguments)
    try:
        arguments = loads(text)
    except (RepeatedKey, TooDeep) as error:
        raise UnreadableArguments(str(error)) from None
    except ValueError:
        return text
    read = tool.wire.read_arguments(arguments)
    return text if read == arguments else json.dumps(read)


def argument_text(arguments: str) -> str:
    r"""Return a call's arguments as JSON, if models wrote them twice encoded or nearly as JSON.

    Example:
        >>> argument_text('"{\\"a\\": 1}"'), argument_text("{'a': 1,}")
        ('{"a": 1}', '{"a": 1}')
        >>> argument_text("nothing")
        'nothing'
    """
    try:
        value = json.loads(arguments)
    except ValueError:
        value = None
    except RecursionError:
        return arguments
    if isinstance(value, str):
        return value
    if value is not None:
        return arguments
    try:
        read = read_loosely(arguments)
    except ValueError:
        return arguments
    return json.dumps(read) if isinstance(read, dict) else arguments


def complaint(error: ValidationError) -> str:
    """Describe what is invalid, and where, in one line for an agent; without the values.

    A list can have as many errors as values, and the path to a value can be as long as the
    answer: only the first errors are named, and each part of a path is cut.
    """
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    parts = []
    for problem in errors[:SHOWN_ERRORS]:
        place = ".".join(str(part)[:PLACE_CHARS] for part in problem["loc"]) or "value"
        parts.append(f"{place}: {problem['msg']}")
    if len(errors) > SHOWN_ERRORS:
        parts.append(f"and {len(errors) - SHOWN_ERRORS:,} more")
    return shorten_problem("; ".join(parts))
