"""Turns of a model and its tools, until it submits or its steps are used up."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from pandas_amr._agent import prompts
from pandas_amr._agent.answers import decoded
from pandas_amr._agent.coding import CODE, as_texts, code_response, read_code
from pandas_amr._agent.dispatch import HandedIn, argument_text, dispatch, merged, tool_meant
from pandas_amr._agent.repl import REPL, Repl, without_fence
from pandas_amr._agent.spoken import is_in_data, is_text_in_data, read_calls
from pandas_amr._records.usage import Phase, Usage
from pandas_amr._types.wire import Wire, wire_of
from pandas_amr.errors import ModelRejected
from pandas_amr.models.base import (
    CallsNoTools,
    Message,
    Request,
    ResponseSchema,
    ToolCall,
    ToolSpec,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pandas_amr._agent.dispatch import AgentTool
    from pandas_amr._agent.spoken import Spoken, WrittenCall
    from pandas_amr._agent.window import Window
    from pandas_amr.models.base import CodeUse, Model, Reply

REPL_FORM = "code"
SPOKEN_FORM = "written calls"
FORCED = "No more tool calls are possible. Answer now, with what you know."
RECEIVED = "Received."
NOT_OPEN = "No tool can be called any more."
CONTRADICTS = "several calls hand in different answers, and one is asked for"
CALLS_TOOLS = "the answer calls a tool, and no tool can be called any more"
NO_SUBMISSION = (
    "nothing was handed in: no cell of code called submit(...), the last one that was left neither"
)


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

    @property
    def keys(self) -> list[str]:
        """What stands in what is handed in."""
        return list(self.schema.get("properties", {}))

    def is_shaped(self, payload: Any) -> bool:
        """Whether something is meant as what is handed in, right or wrong: it has one of its keys."""
        return isinstance(payload, dict) and (
            not self.keys or not payload.keys().isdisjoint(self.keys)
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an agent's turns: a ``payload`` of decoded JSON, or the ``problem`` that stood in its way.

    ``conversation`` holds all messages until then, so that a repair can go on from it. An answer that was cut off has
    both: what stands before the cut, and the problem.

    Attributes:
        spoken: whether the model wrote calls as text.
        code_form: where code was asked for in place of calls, the form in which it came.
    """

    payload: Any
    problem: str | None
    conversation: tuple[Message, ...]
    usage: Usage
    form: str = ""
    spoken: bool = False
    code_form: str = ""

    @property
    def cut_off(self) -> bool:
        """Whether the payload is the beginning of an answer that was cut off."""
        return self.problem is not None and self.payload is not None

    @property
    def ways(self) -> str:
        """How the answer was had, for the trace."""
        code_form = self.code_form if self.form == REPL_FORM else ""
        return ", ".join(
            way for way in (self.form, code_form, SPOKEN_FORM if self.spoken else "") if way
        )


async def run_agent(
    model: Model,
    messages: Sequence[Message],
    *,
    submission: Submission,
    phase: Phase,
    tools: Sequence[AgentTool] = (),
    max_steps: int = 6,
    window: Window | None = None,
) -> Answer:
    """Let the model work: with tools for at most ``max_steps`` turns, then one forced turn without.

    Without tools the first turn is the last, and its answer follows the schema. Where code alone can hand in, the last
    turn is one more cell. An agent whose only tool is the REPL writes code as its answers where the server makes no
    calls. With a ``window`` the conversation is kept within it.

    Raises:
        ModelError: the service failed, or the conversation does not fit the window; nothing of the model's was wrong.
    """
    talk = _Talk(model, submission, phase, tuple(tools), window, list(messages))
    for _ in range(max_steps if tools else 0):
        answer = await talk.work()
        if answer is not None:
            return answer
        if talk.is_over:
            break
    return await talk.finish()


@dataclass(slots=True)
class _Talk:
    """An agent's conversation as it goes.

    Attributes:
        conversation: all messages until now.
        usage: what its turns took.
        spoken: whether a call was written as text.
        is_nudged: whether it was told what to call next.
        is_over: whether no more turns with tools come.
        code_form: the form in which code came, where it was asked for in place of calls.
    """

    model: Model
    submission: Submission
    phase: Phase
    tools: tuple[AgentTool, ...]
    window: Window | None
    conversation: list[Message]
    usage: Usage = field(default_factory=Usage)
    spoken: bool = False
    is_nudged: bool = False
    is_over: bool = False
    code_form: str = ""

    @property
    def repl(self) -> Repl | None:
        """The agent's REPL."""
        return next((tool for tool in self.tools if isinstance(tool, Repl)), None)

    @property
    def hands_in_by_code(self) -> bool:
        """Whether nothing but code can hand in."""
        return self.repl is not None and self.repl.hands_in_alone

    @property
    def code(self) -> CodeUse | None:
        """Whether code is asked for in place of calls; None if it cannot be, since there is more to call."""
        return self.repl.code if self.repl is not None and len(self.tools) == 1 else None

    @property
    def writes_code(self) -> bool:
        """Whether code is asked for now."""
        return self.code in {"declared", "found"}

    @property
    def may_write_code(self) -> bool:
        """Whether code is worth asking for: it can be, and no tool was ever called."""
        return self.code == "possible" and not any(
            message.tool_calls for message in self.conversation
        )

    async def work(self) -> Answer | None:
        """One turn with tools; None if another one is to follow."""
        reply = await self._ask(self.tools)
        message = self._say(self._with_calls(reply))
        if message.tool_calls:
            return await self._answer_calls(message.tool_calls, reply)
        payload, problem = self._read(message, reply)
        if problem is None and self.submission.is_shaped(payload) and not self.hands_in_by_code:
            return self._answer(payload, None, reply.form)
        is_code_wanted = self.hands_in_by_code or self.writes_code or self.may_write_code
        if problem is not None and not is_code_wanted:
            self.is_over = True
        else:
            self._nudge()
        return None

    def _with_calls(self, reply: Reply) -> Message:
        """What the model said, with the calls that it wrote as text made calls."""
        message = reply.message
        if self.writes_code:
            self.code_form = reply.form
            coded = read_code(message, reply.finish_reason, self._is_quoted)
            if coded is not None:
                return coded
        spoken = None if message.tool_calls else self._spoken(message, reply.finish_reason)
        if spoken is not None:
            self.spoken = True
            return _as_calls(message, spoken)
        if (
            self.hands_in_by_code and not message.tool_calls
        ):  # where no text is an answer, code alone is a cell
            coded = read_code(message, reply.finish_reason, self._is_quoted)
            self.spoken |= coded is not None
            return coded or message
        return message

    async def finish(self) -> Answer:
        """The last turn: without tools, an answer that follows the schema; or the last cell of code."""
        if self.hands_in_by_code:
            return await self._finish_by_code()
        if self.tools:
            self.conversation.append(Message("user", FORCED))
        reply = await self._ask(())
        message = self._say(reply.message)
        submitted = self._submitted(message.tool_calls, reply)
        for call in message.tool_calls:
            text = submitted[call.id].text if call.id in submitted else NOT_OPEN
            self.conversation.append(Message("tool", text, tool_call_id=call.id))
        if submitted:
            return self._together(list(submitted.values()), reply.form)
        if message.tool_calls and not message.content:
            return self._answer(None, CALLS_TOOLS, reply.form)
        payload, problem = self._read(message, reply)
        if not self.submission.is_shaped(payload):
            is_cut = reply.finish_reason == "length"
            written = read_calls(
                message.content, (self.submission.tool,), self._is_quoted, is_cut=is_cut
            )
            if (
                written is not None
            ):  # the history keeps its text: a server without tools takes no calls
                self.spoken = True
                return self._together(
                    [_Submitted(RECEIVED, call.arguments) for call in written.calls], reply.form
                )
        return self._answer(payload, problem, reply.form)

    async def _finish_by_code(self) -> Answer:
        """One more cell, where code alone can hand in: no model is asked to type the findings of rows it has not read.

        Nothing handed in is the agent's failure, with that reason.
        """
        repl = self.repl
        assert repl is not None
        if self.may_write_code:
            repl.code = "found"
        say = prompts.code_nudge if self.writes_code else prompts.last_cell
        self.conversation.append(Message("user", say(repl.line)))
        self.tools = (repl,)
        reply = await self._ask(self.tools)
        message = self._say(self._with_calls(reply))
        answer = await self._answer_calls(message.tool_calls, reply) if message.tool_calls else None
        return self._answer(None, NO_SUBMISSION, reply.form) if answer is None else answer

    async def _ask(self, tools: Sequence[AgentTool]) -> Reply:
        request = turn_request(
            self.conversation, submission=self.submission, phase=self.phase, tools=tools
        )
        if self.window is not None:
            self.conversation = self.window.fit(request)
        try:
            reply = await self.model.complete(self._request(tools))
        except CallsNoTools as error:
            assert self.repl is not None
            self.usage += Usage(tries=error.attempts)
            self.repl.code = "found"
            return await self._ask(tools)
        except ModelRejected as error:
            refused = _refused_keys(str(error), self.conversation)
            if not refused:
                raise
            self.usage += Usage(tries=error.attempts)
            self.conversation = [_without_extra(message, refused) for message in self.conversation]
            reply = await self.model.complete(self._request(tools))
        self.usage += reply.usage
        return reply

    def _request(self, tools: Sequence[AgentTool]) -> Request:
        """The turn as it is sent."""
        return turn_request(
            self.conversation,
            submission=self.submission,
            phase=self.phase,
            tools=tools,
            repl=self.repl,
        )

    def _say(self, message: Message) -> Message:
        """Add what the model said; of nothing said there is nothing to add, and many servers refuse it."""
        message = _with_ids(
            message, {call.id for one in self.conversation for call in one.tool_calls}
        )
        if message.tool_calls or (message.content or "").strip():
            self.conversation.append(message)
        return message

    def _read(self, message: Message, reply: Reply) -> tuple[Any, str | None]:
        is_quoted = partial(is_text_in_data, messages=self.conversation)
        return decoded(message.content, reply.finish_reason, is_quoted=is_quoted)

    def _spoken(self, message: Message, finish_reason: str) -> Spoken | None:
        """The calls that the model wrote as text; what has the form of an answer is one."""
        payload, _ = decoded(message.content)
        if self.submission.is_shaped(payload):
            return None
        tools = tool_specs(self.submission, self.tools)
        return read_calls(message.content, tools, self._is_quoted, is_cut=finish_reason == "length")

    def _is_quoted(self, call: WrittenCall) -> bool:
        """Whether a call stands in the data, or the code that it would run."""
        code = call.arguments.get(CODE) if call.name == REPL else None
        if isinstance(code, str) and is_in_data(
            replace(call, text=without_fence(code)), self.conversation
        ):
            return True
        return is_in_data(call, self.conversation)

    async def _answer_calls(self, calls: Sequence[ToolCall], reply: Reply) -> Answer | None:
        """Run a turn's calls; each gets its answer, whatever comes of the turn."""
        submitted = self._submitted(calls, reply)
        messages, by_code = await dispatch(
            [call for call in calls if call.id not in submitted], self.tools
        )
        answers = {message.tool_call_id: message for message in messages}
        for call_id, one in submitted.items():
            answers[call_id] = Message("tool", one.text, tool_call_id=call_id)
        self.conversation += [answers[call.id] for call in calls]
        given = list(submitted.values())
        if by_code is not None:
            good = [one for one in given if one.is_good]
            return self._together([*good, _Submitted(by_code.text, by_code.payload)], REPL_FORM)
        is_hand_in = any(one.is_shaped for one in given)
        if self.hands_in_by_code:
            return None
        if given and (is_hand_in or self.is_nudged):
            return self._together(given, reply.form)
        self.is_nudged |= bool(given)  # the calls' answers say what to call
        return None

    def _submitted(self, calls: Sequence[ToolCall], reply: Reply) -> dict[str, _Submitted]:
        """What the calls of the tool that hands in hold, by their ids."""
        name = self.submission.tool.name
        submitted: dict[str, _Submitted] = {}
        for call in calls:
            if tool_meant(call.name, [name, *(tool.name for tool in self.tools)]) != name:
                continue
            if self.hands_in_by_code:
                submitted[call.id] = _Submitted(self._what_next(), None, is_shaped=False)
                continue
            payload, problem = decoded(argument_text(call.arguments), reply.finish_reason)
            if problem is not None:
                submitted[call.id] = _Submitted(f"{name}: {problem}.", payload, problem)
            elif self.submission.is_shaped(payload):
                submitted[call.id] = _Submitted(RECEIVED, payload)
            else:
                submitted[call.id] = _Submitted(
                    f"{name}: {self._what_next()}", payload, is_shaped=False
                )
        return submitted

    def _together(self, given: Sequence[_Submitted], form: str) -> Answer:
        """What a turn handed in, in one call or several; what cannot be read counts where nothing else was."""
        last = given[-1]
        parts = [one.payload for one in given if one.is_good]
        if (
            last.problem is not None and last.payload is not None
        ):  # it was cut off, and is the end of all
            return self._answer(_merged_payload([*parts, last.payload]), last.problem, form)
        if form != REPL_FORM and _is_contradictory(parts):
            return self._answer(None, CONTRADICTS, form)
        if parts:
            return self._answer(_merged_payload(parts), None, form)
        return self._answer(last.payload, last.problem, form)

    def _nudge(self) -> None:
        """Tell what to call next, once; after that code is asked for in place of calls, or the last turn follows."""
        if self.is_nudged and not self.may_write_code:
            self.is_over = True
            return
        if self.is_nudged and self.repl is not None:
            self.repl.code = "found"
        self.is_nudged = True
        self.conversation.append(Message("user", self._what_next()))

    def _what_next(self) -> str:
        line = self.repl.line if self.repl is not None else ""
        if self.writes_code:
            return prompts.code_nudge(line)
        if self.hands_in_by_code:
            return prompts.code_only_nudge(line)
        return prompts.nudge(
            self.submission.tool.name,
            self.submission.keys,
            [tool.name for tool in self.tools],
            line=line,
        )

    def _answer(self, payload: Any, problem: str | None, form: str) -> Answer:
        payload = self.submission.wire.read(payload)
        return Answer(
            payload,
            problem,
            tuple(self.conversation),
            self.usage,
            form,
            self.spoken,
            self.code_form,
        )


@dataclass(frozen=True, slots=True)
class _Submitted:
    """What one call handed in, or why it did not; ``text`` is what the model is told of it."""

    text: str
    payload: Any
    problem: str | None = None
    is_shaped: bool = True

    @property
    def is_good(self) -> bool:
        """Whether it can be read, and is meant as what is handed in."""
        return self.problem is None and self.is_shaped


def _merged_payload(payloads: Sequence[Any]) -> Any:
    whole = merged([HandedIn(RECEIVED, payload) for payload in payloads])
    return whole.payload if whole is not None else None


def _is_contradictory(payloads: Sequence[Any]) -> bool:
    """Whether there are several answers that are no lists, of which which one counts would be a guess."""
    if any(
        isinstance(payload.get("findings"), list)
        for payload in payloads
        if isinstance(payload, dict)
    ):
        return False
    return any(payload != payloads[0] for payload in payloads)


def _as_calls(message: Message, spoken: Spoken) -> Message:
    """A message whose calls were written as text, as if its server had made calls of them."""
    calls = [
        ToolCall("", call.name, json.dumps(call.arguments, ensure_ascii=False))
        for call in spoken.calls
    ]
    extra = {key: value for key, value in message.extra.items() if key != "content"}
    return replace(message, content=spoken.rest or None, tool_calls=tuple(calls), extra=extra)


def _with_ids(message: Message, taken: Collection[str]) -> Message:
    """A message whose calls all have an id of their own; those that its server gave stay."""
    used: set[str] = set()
    calls: list[ToolCall] = []
    for call in message.tool_calls:
        id_, number = call.id, len(taken)
        while not id_ or id_ in used:
            candidate = f"call{number:05d}"  # nine letters and digits, as Mistral wants them
            id_ = candidate if candidate not in taken else ""
            number += 1
        used.add(id_)
        calls.append(replace(call, id=id_))
    return replace(message, tool_calls=tuple(calls))


def _refused_keys(said: str, conversation: Sequence[Message]) -> set[str]:
    """What a server put into its messages and does not take back, as the first DeepSeek-R1 did its reasoning."""
    keys = {key for message in conversation for key in message.extra}
    keys |= {key for message in conversation for call in message.tool_calls for key in call.extra}
    return {
        key for key in keys - {"content", "function"} if re.search(rf"\b{re.escape(key)}\b", said)
    }


def _without_extra(message: Message, keys: Collection[str]) -> Message:
    calls = tuple(
        replace(call, extra=_without_keys(call.extra, keys)) for call in message.tool_calls
    )
    return replace(message, tool_calls=calls, extra=_without_keys(message.extra, keys))


def _without_keys(extra: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in extra.items() if key not in keys}


def tool_specs(submission: Submission, tools: Sequence[AgentTool]) -> tuple[ToolSpec, ...]:
    """The tools in play; that which hands in is the last of them, unless code alone can."""
    specs = [ToolSpec(tool.name, tool.description, tool.wire.schema) for tool in tools]
    if any(isinstance(tool, Repl) and tool.hands_in_alone for tool in tools):
        return tuple(specs)
    return (*specs, submission.tool)


def turn_request(
    conversation: Sequence[Message],
    *,
    submission: Submission,
    phase: Phase,
    tools: Sequence[AgentTool] = (),
    repl: Repl | None = None,
) -> Request:
    """A turn: with tools the submission is one of them, without it is the form of the answer.

    An agent that writes code in place of calls of its ``repl`` is asked for that, in a conversation without calls.
    """
    writes_code = repl is not None and repl.code != "possible"
    messages = tuple(conversation)
    if repl is not None and writes_code:
        messages = as_texts(conversation, repl, is_open=bool(tools))
    if not tools:
        return Request(messages, phase=phase, schema=submission.response)
    code = repl.code if repl is not None and len(tools) == 1 else None
    if code is not None and code != "possible":
        return Request(messages, phase=phase, schema=code_response(), code=code)
    return Request(messages, phase=phase, tools=tool_specs(submission, tools), code=code)
