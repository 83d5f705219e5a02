"""Turns of a model and its tools, until it submits or its steps are used up."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from pandas_amr._agent.dispatch import DoubledKey, dispatch, loads
from pandas_amr._usage import Phase, Usage
from pandas_amr._wire import Wire, wire_of
from pandas_amr.models.base import Message, Request, ResponseSchema, ToolSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas_amr._agent.dispatch import AgentTool
    from pandas_amr.models.base import Model, Reply

JSON_MARK = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:]')  # of JSON: texts, and what opens, closes and follows a key
FENCE = re.compile(r"^\s*```[\w-]*\s*\n(.*)\n\s*```\s*$", re.DOTALL)
REPL_FORM = "code"
FORCED = "No more tool calls are possible. Answer now, with what you know."


@dataclass(frozen=True)
class Submission:
    """What an agent hands in: ``name`` as a schema response, ``submit_<name>`` as a tool.

    Attributes:
        schema: what an answer is, as it is checked; a model is asked for it in the form of ``wire``.
    """

    name: str
    schema: Mapping[str, Any]

    @cached_property
    def wire(self) -> Wire:
        """How the schema is asked of a model, and how its answer is read."""
        return wire_of(self.schema)

    @cached_property
    def tool(self) -> ToolSpec:
        """The tool through which an agent with tools hands in."""
        return ToolSpec(
            name=f"submit_{self.name}",
            description=f"Hand in the {self.name}. This ends the work.",
            parameters=self.wire.schema,
        )

    @cached_property
    def response(self) -> ResponseSchema:
        """The schema that an answer without tools follows."""
        return ResponseSchema(name=self.name, schema=self.wire.schema, strict=self.wire.strict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an agent's turns: a ``payload`` of decoded JSON, or the ``problem`` that stood in its way.

    ``conversation`` holds all messages until then, so that a repair can go on from it. An answer that was cut off has
    both: what stands before the cut, and the problem.
    """

    payload: Any
    problem: str | None
    conversation: tuple[Message, ...]
    usage: Usage
    form: str = ""

    @property
    def cut_off(self) -> bool:
        """Whether the payload is the beginning of an answer that was cut off."""
        return self.problem is not None and self.payload is not None


async def run_agent(
    model: Model,
    messages: Sequence[Message],
    *,
    submission: Submission,
    phase: Phase,
    tools: Sequence[AgentTool] = (),
    max_steps: int = 6,
) -> Answer:
    """Let the model work: with tools for at most ``max_steps`` turns, then one forced turn without.

    Without tools the first turn is the last, and its answer follows the schema.

    Raises:
        ModelError: the service failed; nothing of the model's was wrong.
    """
    conversation = list(messages)
    usage = Usage()
    for _ in range(max_steps if tools else 0):
        reply = await model.complete(turn_request(conversation, submission=submission, phase=phase, tools=tools))
        usage += reply.usage
        conversation.append(reply.message)
        handed_in = next((call for call in reply.message.tool_calls if call.name == submission.tool.name), None)
        if handed_in is not None:
            conversation += [Message("tool", "Received.", tool_call_id=call.id) for call in reply.message.tool_calls]
            return _answer(handed_in.arguments, reply, conversation, usage, submission)
        if not reply.message.tool_calls:
            answer = _answer(reply.message.content, reply, conversation, usage, submission)
            if answer.problem is None:
                return answer
            break
        messages, given = await dispatch(reply.message.tool_calls, tools)
        conversation += messages
        if given is not None:
            return Answer(submission.wire.read(given.payload), None, tuple(conversation), usage, REPL_FORM)
    if tools:
        conversation.append(Message("user", FORCED))
    reply = await model.complete(turn_request(conversation, submission=submission, phase=phase))
    conversation.append(reply.message)
    return _answer(reply.message.content, reply, conversation, usage + reply.usage, submission)


def turn_request(
    conversation: Sequence[Message], *, submission: Submission, phase: Phase, tools: Sequence[AgentTool] = ()
) -> Request:
    """A turn: with tools the submission is one of them, without it is the form of the answer."""
    if not tools:
        return Request(tuple(conversation), phase=phase, schema=submission.response)
    specs = (*(ToolSpec(tool.name, tool.description, tool.wire.schema) for tool in tools), submission.tool)
    return Request(tuple(conversation), phase=phase, tools=specs)


def _answer(
    text: str | None, reply: Reply, conversation: list[Message], usage: Usage, submission: Submission
) -> Answer:
    payload, problem = decoded(text, reply.finish_reason)
    return Answer(submission.wire.read(payload), problem, tuple(conversation), usage, reply.form)


def decoded(text: str | None, finish_reason: str = "stop") -> tuple[Any, str | None]:
    """The JSON object in an answer's text, or what is wrong with it.

    Example:
        >>> decoded('{"a": 1}')
        ({'a': 1}, None)
        >>> decoded("I think so.")
        (None, 'the answer is no JSON object')
        >>> decoded('{"a": 1, "a": 2}')
        (None, 'the answer cannot be read: an object in it names a key twice')
    """
    cut = finish_reason == "length"
    if not text or not text.strip():
        return None, "the answer is empty" + (", its tokens were used up" if cut else "")
    fenced = FENCE.match(text)
    try:
        payload = loads(fenced.group(1) if fenced else text)
    except DoubledKey as error:
        return None, f"the answer cannot be read: {error}"
    except ValueError:
        if cut:
            return _beginning(text), "the answer was cut off at its greatest length"
        return None, "the answer is no JSON object"
    if not isinstance(payload, dict):
        return None, "the answer is no JSON object"
    return payload, None


def _beginning(text: str) -> Any:
    """What an answer that was cut off says before the cut; None if an object in it names a key twice."""
    if _has_doubled_key(text):
        return None
    try:
        payload = from_json(text.strip(), allow_partial=True)
    except ValueError:
        return None
    return payload if isinstance(payload, dict) else None


def _has_doubled_key(text: str) -> bool:
    """Tell whether an object in a JSON text that was cut off names a key twice.

    Example:
        >>> _has_doubled_key('[{"unit": 0, "unit": 1}, {"un'), _has_doubled_key('[{"unit": 0}, {"unit": ')
        (True, False)
    """
    open_: list[set[str]] = []  # the keys of each object or list that is not closed yet
    last = ""
    for match in JSON_MARK.finditer(text):
        mark = match.group()
        if mark in "{[":
            open_.append(set())
        elif mark in "}]":
            del open_[-1:]
        elif mark != ":":
            last = _spelled(mark)
        elif open_ and last in open_[-1]:
            return True
        elif open_:
            open_[-1].add(last)
    return False


def _spelled(text: str) -> str:
    """Decode a JSON text; what is none stays as it is."""
    try:
        return str(json.loads(text))
    except ValueError:
        return text
