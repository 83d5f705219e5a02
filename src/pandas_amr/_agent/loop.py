"""The turns of an agent: the model answers or calls tools, until it submits or may call no more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pandas_amr._agent import prompts
from pandas_amr._agent.answers import decode_answer
from pandas_amr._agent.call_submissions import (
    RECEIVED,
    CallSubmission,
    are_contradictory,
    merge_payloads,
)
from pandas_amr._agent.coding import CODE, read_code
from pandas_amr._agent.dispatch import argument_text, dispatch, find_tool
from pandas_amr._agent.messages import (
    rejected_keys,
    with_ids,
    with_written_calls,
    without_extra,
)
from pandas_amr._agent.quotes import is_in_data, is_text_in_data
from pandas_amr._agent.repl import REPL, Repl, without_fence
from pandas_amr._agent.requests import tool_specs, turn_request
from pandas_amr._agent.submission import REPL_FORM, Answer, Submission
from pandas_amr._agent.transcriber import begin_transcript, use_transcriber
from pandas_amr._agent.written_calls import read_calls
from pandas_amr._records.transcript import Purpose
from pandas_amr._records.usage import NO_USAGE, Phase, Usage
from pandas_amr.errors import ModelError, ModelRejected, SandboxError
from pandas_amr.models.base import CallsNoTools, Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._agent.dispatch import AgentTool, ToolSubmission
    from pandas_amr._agent.transcriber import Transcriber
    from pandas_amr._agent.window import Window
    from pandas_amr._agent.written_calls import WrittenCall, WrittenCalls
    from pandas_amr.models.base import CodeUse, Model, Reply, Request, ToolCall

FORCED = "No more tool calls are possible. Answer now, with what you know."
NOT_OPEN = "No tool can be called any more."
CONTRADICTS = "several calls hand in different answers, not one"
CALLS_TOOLS = "the answer calls a tool, and no tool can be called any more"
NO_SUBMISSION = "nothing was handed in: no code called submit(...), not even in the last turn"


async def run_agent(
    model: Model,
    messages: Sequence[Message],
    *,
    submission: Submission,
    phase: Phase,
    tools: Sequence[AgentTool] = (),
    max_steps: int = 6,
    window: Window | None = None,
    purpose: Purpose | None = None,
) -> Answer:
    """Run the turns of an agent: at most ``max_steps`` with tools, then one without.

    Without tools the first turn is the last one, and its answer follows the schema. If only code
    can submit, the last turn is one more cell. An agent whose only tool is the REPL writes code as
    its answers, if the server makes no calls. With a ``window`` the conversation is shortened to
    fit into it. The transcript says the ``purpose``; default: the phase.

    Raises:
        ModelError: the service failed, or the conversation does not fit the window. What the model
            does wrong is in the answer instead.
    """
    transcriber = begin_transcript(purpose or Purpose(phase), messages)
    conversation = _Conversation(
        model, submission, phase, tuple(tools), window, list(messages), transcriber
    )
    if not tools:
        return await conversation.take_last_turn()
    with use_transcriber(transcriber):
        try:
            return await _take_turns(conversation, max_steps)
        except SandboxError as error:
            if transcriber is not None:
                transcriber.add_error(error)
            raise


async def _take_turns(conversation: _Conversation, max_steps: int) -> Answer:
    """Take turns with tools until one is an answer, and then one without."""
    for _ in range(max_steps):
        answer = await conversation.take_turn()
        if answer is not None:
            return answer
        if conversation.is_over:
            break
    return await conversation.take_last_turn()


@dataclass(slots=True)
class _Conversation:
    """The conversation of an agent, and its state.

    Attributes:
        messages: all messages so far.
        transcriber: takes them down; None if nothing does.
        usage: what the turns used so far.
        has_written_calls: whether a call was written as text.
        is_nudged: whether the model was reminded of what to call.
        is_over: whether no more turns with tools follow.
        code_form: the form in which code came, if the model wrote code in place of calls.
    """

    model: Model
    submission: Submission
    phase: Phase
    tools: tuple[AgentTool, ...]
    window: Window | None
    messages: list[Message]
    transcriber: Transcriber | None = None
    usage: Usage = NO_USAGE
    has_written_calls: bool = False
    is_nudged: bool = False
    is_over: bool = False
    code_form: str = ""

    @property
    def repl(self) -> Repl | None:
        """The agent's REPL."""
        return next((tool for tool in self.tools if isinstance(tool, Repl)), None)

    @property
    def only_code_submits(self) -> bool:
        """Whether nothing but code can submit."""
        return self.repl is not None and self.repl.hands_in_alone

    @property
    def code(self) -> CodeUse | None:
        """Whether the model writes code in place of calls; None if it has other tools, too."""
        return self.repl.code if self.repl is not None and len(self.tools) == 1 else None

    @property
    def writes_code(self) -> bool:
        """Whether the model writes code in place of calls now."""
        return self.code in {"declared", "found"}

    @property
    def may_write_code(self) -> bool:
        """Whether to try code in place of calls: it is possible, and no tool was ever called."""
        if self.code != "possible":
            return False
        return not any(message.tool_calls for message in self.messages)

    async def take_turn(self) -> Answer | None:
        """Take one turn with tools; return None if another one follows."""
        reply = await self._complete(self.tools)
        message = self._append(self._with_calls(reply), reply)
        if message.tool_calls:
            return await self._run_calls(message.tool_calls, reply)
        payload, problem = self._decode(message, reply)
        is_answer = problem is None and self.submission.is_shaped(payload)
        if is_answer and not self.only_code_submits:
            return self._answer(payload, None, reply.form)
        wants_code = self.only_code_submits or self.writes_code or self.may_write_code
        if problem is not None and not wants_code:
            self.is_over = True
        else:
            self._nudge()
        return None

    def _with_calls(self, reply: Reply) -> Message:
        """Return the model's message; calls and code that it wrote as text become calls."""
        message = reply.message
        if self.writes_code:
            self.code_form = reply.form
            call = read_code(message, reply.finish_reason, self._is_quoted)
            if call is not None:
                return call
        if message.tool_calls:
            return message
        written = self._find_written_calls(message, reply.finish_reason)
        if written is not None:
            self.has_written_calls = True
            return with_written_calls(message, written)
        if self.only_code_submits:  # no text is an answer then: code without a call is a cell
            call = read_code(message, reply.finish_reason, self._is_quoted)
            if call is not None:
                self.has_written_calls = True
                return call
        return message

    async def take_last_turn(self) -> Answer:
        """Take the last turn: without tools, with an answer by the schema; or one more cell."""
        if self.only_code_submits:
            return await self._take_last_cell()
        if self.tools:
            self.messages.append(Message("user", FORCED))
        reply = await self._complete(())
        message = self._append(reply.message, reply)
        submissions = self._submissions(message.tool_calls, reply)
        for call in message.tool_calls:
            text = submissions[call.id].text if call.id in submissions else NOT_OPEN
            self.messages.append(Message("tool", text, tool_call_id=call.id))
        if submissions:
            return self._combine(list(submissions.values()), reply.form)
        if message.tool_calls and not message.content:
            return self._answer(None, CALLS_TOOLS, reply.form)
        return self._last_answer(message, reply)

    def _last_answer(self, message: Message, reply: Reply) -> Answer:
        """Read the last answer; it may be written as a call of the tool that submits.

        The message stays a text in the conversation: a server without tools accepts no calls.
        """
        payload, problem = self._decode(message, reply)
        if self.submission.is_shaped(payload):
            return self._answer(payload, problem, reply.form)
        tools = (self.submission.tool,)
        is_cut = reply.finish_reason == "length"
        written = read_calls(message.content, tools, self._is_quoted, is_cut=is_cut)
        if written is None:
            return self._answer(payload, problem, reply.form)
        self.has_written_calls = True
        submissions = [CallSubmission(RECEIVED, call.arguments) for call in written.calls]
        return self._combine(submissions, reply.form)

    async def _take_last_cell(self) -> Answer:
        """Take one more turn with code, if only code can submit.

        No model is asked to type the findings of rows that it has not read.
        """
        repl = self.repl
        assert repl is not None
        if self.may_write_code:
            repl.code = "found"
        prompt = prompts.code_nudge if self.writes_code else prompts.last_cell
        self.messages.append(Message("user", prompt(repl.line)))
        self.tools = (repl,)
        reply = await self._complete(self.tools)
        message = self._append(self._with_calls(reply), reply)
        if message.tool_calls:
            answer = await self._run_calls(message.tool_calls, reply)
            if answer is not None:
                return answer
        return self._answer(None, NO_SUBMISSION, reply.form)

    async def _complete(self, tools: Sequence[AgentTool]) -> Reply:
        """Send the conversation, and take it down."""
        if self.transcriber is None:
            return await self._send(tools)
        try:
            return await self._send(tools)
        except BaseException as error:
            self.transcriber.add_messages(self.messages)
            if isinstance(error, ModelError):
                self.transcriber.add_error(error)
            raise

    async def _send(self, tools: Sequence[AgentTool]) -> Reply:
        """Send the conversation; without what the server rejects, if it rejects that."""
        request = turn_request(
            self.messages, submission=self.submission, phase=self.phase, tools=tools
        )
        if self.window is not None:
            self.messages = self.window.fit(request)
        try:
            reply = await self.model.complete(self._request(tools))
        except CallsNoTools as error:
            assert self.repl is not None
            self.usage += Usage(tries=error.attempts)
            self.repl.code = "found"
            return await self._send(tools)
        except ModelRejected as error:
            keys = rejected_keys(str(error), self.messages)
            if not keys:
                raise
            self.usage += Usage(tries=error.attempts)
            self.messages = [without_extra(message, keys) for message in self.messages]
            reply = await self.model.complete(self._request(tools))
        self.usage += reply.usage
        return reply

    def _request(self, tools: Sequence[AgentTool]) -> Request:
        return turn_request(
            self.messages,
            submission=self.submission,
            phase=self.phase,
            tools=tools,
            repl=self.repl,
        )

    def _append(self, message: Message, reply: Reply) -> Message:
        """Append the model's message, unless it is empty: many servers reject an empty one."""
        message = with_ids(message, self.messages)
        if self.transcriber is not None:
            tools = self._name_tools(message.tool_calls) if message.tool_calls else {}
            self.transcriber.add_turn(reply, message, self.messages, tools)
        if message.tool_calls or (message.content or "").strip():
            self.messages.append(message)
        return message

    def _name_tools(self, calls: Sequence[ToolCall]) -> dict[str, str]:
        """Return the name of the tool that each call means, by the call's id."""
        known = [self.submission.tool.name, *(tool.name for tool in self.tools)]
        names: dict[str, str] = {}
        for call in calls:
            name = find_tool(call.name, known)
            if name is not None:
                names[call.id] = name
        return names

    def _decode(self, message: Message, reply: Reply) -> tuple[Any, str | None]:
        is_quoted = partial(is_text_in_data, messages=self.messages)
        return decode_answer(
            message.content,
            reply.finish_reason,
            is_quoted=is_quoted,
            lists_findings=self.submission.lists_findings,
        )

    def _find_written_calls(self, message: Message, finish_reason: str) -> WrittenCalls | None:
        """Return the calls that the model wrote as text; an answer is not a call."""
        payload, _ = decode_answer(message.content)  # a bare list may be one of calls
        if self.submission.is_shaped(payload):
            return None
        tools = tool_specs(self.submission, self.tools)
        return read_calls(message.content, tools, self._is_quoted, is_cut=finish_reason == "length")

    def _is_quoted(self, call: WrittenCall) -> bool:
        """Whether a call is in the data, or the code that it would run."""
        code = call.arguments.get(CODE) if call.name == REPL else None
        if isinstance(code, str):
            without_arguments = replace(call, text=without_fence(code))
            if is_in_data(without_arguments, self.messages):
                return True
        return is_in_data(call, self.messages)

    async def _run_calls(self, calls: Sequence[ToolCall], reply: Reply) -> Answer | None:
        """Run the calls of a turn, and append an answer to each of them."""
        submissions = self._submissions(calls, reply)
        others = [call for call in calls if call.id not in submissions]
        results, submitted_by_code = await dispatch(others, self.tools, reply.call)
        answers = {message.tool_call_id: message for message in results}
        for call_id, submission in submissions.items():
            answers[call_id] = Message("tool", submission.text, tool_call_id=call_id)
        self.messages += [answers[call.id] for call in calls]
        return self._answer_to_turn(list(submissions.values()), submitted_by_code, reply)

    def _answer_to_turn(
        self,
        submissions: list[CallSubmission],
        submitted_by_code: ToolSubmission | None,
        reply: Reply,
    ) -> Answer | None:
        """Return the answer of a turn with calls; None if another turn follows."""
        if submitted_by_code is not None:
            usable = [submission for submission in submissions if submission.is_usable]
            by_code = CallSubmission(submitted_by_code.text, submitted_by_code.payload)
            return self._combine([*usable, by_code], REPL_FORM)
        if self.only_code_submits or not submissions:
            return None
        if self.is_nudged or any(submission.is_shaped for submission in submissions):
            return self._combine(submissions, reply.form)
        self.is_nudged = True  # the results of the calls say what to call
        return None

    def _submissions(self, calls: Sequence[ToolCall], reply: Reply) -> dict[str, CallSubmission]:
        """Read the calls of the tool that submits, by their ids."""
        name = self.submission.tool.name
        names = [name, *(tool.name for tool in self.tools)]
        submissions: dict[str, CallSubmission] = {}
        for call in calls:
            if find_tool(call.name, names) == name:
                submissions[call.id] = self._read_submission(call, reply)
        return submissions

    def _read_submission(self, call: ToolCall, reply: Reply) -> CallSubmission:
        if self.only_code_submits:
            return CallSubmission(self._reminder(), None, is_shaped=False)
        name = self.submission.tool.name
        arguments = argument_text(call.arguments)
        payload, problem = decode_answer(
            arguments, reply.finish_reason, lists_findings=self.submission.lists_findings
        )
        if problem is not None:
            return CallSubmission(f"{name}: {problem}.", payload, problem)
        if self.submission.is_shaped(payload):
            return CallSubmission(RECEIVED, payload)
        return CallSubmission(f"{name}: {self._reminder()}", payload, is_shaped=False)

    def _combine(self, submissions: Sequence[CallSubmission], form: str) -> Answer:
        """Make one answer of the submissions of a turn.

        A submission that cannot be read counts only if no other one can.
        """
        last = submissions[-1]
        payloads = [submission.payload for submission in submissions if submission.is_usable]
        if last.problem is not None and last.payload is not None:
            # The turn was cut off within its last call: what precedes the cut is used.
            return self._answer(merge_payloads([*payloads, last.payload]), last.problem, form)
        if form != REPL_FORM and are_contradictory(payloads):
            return self._answer(None, CONTRADICTS, form)
        if payloads:
            return self._answer(merge_payloads(payloads), None, form)
        return self._answer(last.payload, last.problem, form)

    def _nudge(self) -> None:
        """Remind the model once what to call.

        The second time, it writes code in place of calls; or the last turn follows.
        """
        if self.is_nudged and not self.may_write_code:
            self.is_over = True
            return
        if self.is_nudged and self.repl is not None:
            self.repl.code = "found"
        self.is_nudged = True
        self.messages.append(Message("user", self._reminder()))

    def _reminder(self) -> str:
        line = self.repl.line if self.repl is not None else ""
        if self.writes_code:
            return prompts.code_nudge(line)
        if self.only_code_submits:
            return prompts.code_only_nudge(line)
        return prompts.nudge(
            self.submission.tool.name,
            self.submission.keys,
            [tool.name for tool in self.tools],
            line=line,
        )

    def _answer(self, payload: object, problem: str | None, form: str) -> Answer:
        if self.transcriber is not None and self.messages[-1].role == "tool":
            self.transcriber.add_messages(self.messages)
        return Answer(
            self.submission.read(payload),
            problem,
            tuple(self.messages),
            self.usage,
            form,
            self.has_written_calls,
            self.code_form,
            self.transcriber,
        )
