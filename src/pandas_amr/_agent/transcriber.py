"""Take down the conversation of an agent, for ``result.look(...)``."""

from __future__ import annotations

import contextlib
import json
import re
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from pandas_amr._records.code_masks import describe_cell_error, mask_code
from pandas_amr._records.cut import cut_middle
from pandas_amr._records.recorder import TEXT_CHARACTERS
from pandas_amr._records.trace import recorder_here
from pandas_amr._records.transcript import Conversation, Step, make_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pandas_amr._records.recorder import RecordedNode, Recorder
    from pandas_amr._records.transcript import Purpose, StepKind
    from pandas_amr.models.base import Message, Reply, ToolCall

FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
REASONING_KEYS = ("reasoning_content", "reasoning")  # in which servers send it
CODE_KEY = "code"
UNKNOWN_TOOL = "a tool that does not exist"


@dataclass(slots=True)
class CallNote:
    """What is known of a tool call.

    Attributes:
        tool: the tool that it means.
        error: the type of the error with which it ended.
    """

    tool: str
    error: str = ""


class Transcriber(msgspec.Struct):
    """Takes down one conversation.

    Attributes:
        seen: how many of its messages are taken down.
        calls: its tool calls, by their ids.
    """

    recorder: Recorder
    node: RecordedNode
    record: Conversation
    seen: int = 0
    calls: dict[str, CallNote] = msgspec.field(default_factory=dict)

    def add_turn(
        self, reply: Reply, message: Message, messages: Sequence[Message], tools: Mapping[str, str]
    ) -> None:
        """Take down what the model read in a turn, and what it said.

        Args:
            reply: the answer of the service.
            message: its message; calls that it wrote as text are calls in it.
            messages: the conversation before it.
            tools: the name of the tool that each call means, by the call's id.
        """
        steps = self._make_read(messages)
        thought = _read_reasoning(reply.message)
        if thought:
            steps.append(self._make_text("thought", thought))
        text = reply.message.content or ""
        finish = reply.finish_reason if reply.finish_reason in FINISH_REASONS else "other"
        steps.append(Step("model", len(text), self._keep(text), finish=finish, usage=reply.usage))
        for call in message.tool_calls:
            tool = tools.get(call.id, UNKNOWN_TOOL)
            self.calls[call.id] = CallNote(tool)
            steps.append(self._make_call(tool, call, messages))
        self._add(steps)

    def add_messages(self, messages: Sequence[Message]) -> None:
        """Take down what was added to the conversation and is not answered."""
        self._add(self._make_read(messages))

    def _make_read(self, messages: Sequence[Message]) -> list[Step]:
        """Make steps of the messages since the last turn, but for the model's own."""
        steps: list[Step] = []
        for message in messages[self.seen :]:
            if message.role == "tool":
                steps.append(self._make_result(message))
            elif message.role != "assistant":
                steps.append(self._make_text(message.role, message.content or ""))
        self.seen = len(messages)
        return steps

    def _make_result(self, message: Message) -> Step:
        text = message.content or ""
        call = self.calls.get(message.tool_call_id or "", CallNote(""))
        return Step("result", len(text), self._keep(text), call.tool, error=call.error)

    def _make_call(self, tool: str, call: ToolCall, messages: Sequence[Message]) -> Step:
        text, code = None, _read_code(call.arguments)
        if code is None:
            text = self._keep(call.arguments)
        elif self.recorder.keeps_contents:
            code = self._keep(code)
        else:
            read = [one.content or "" for one in messages if one.role in {"user", "tool"}]
            code = self._fit(mask_code(code, self.recorder.words, read))
        return Step("call", len(call.arguments), text, tool, code)

    def add_error(self, error: Exception) -> None:
        """Take down that the service, or the sandbox, failed."""
        text = str(error)
        self._add([Step("error", len(text), self._keep(text), error=type(error).__name__)])

    def settle(
        self, accepted: int, problems: Mapping[int, str], fields: Iterable[str] = ()
    ) -> None:
        """Take down what came of the conversation.

        Args:
            accepted: how many findings were accepted, or 1 for an answer.
            problems: what is wrong with the others, by the positions of their units.
            fields: the names of the fields of a finding.
        """
        self.record.accepted = accepted
        if not problems:
            return
        shown: list[tuple[int, str]] = []
        for position, problem in problems.items():
            shown.append((position, self._keep(problem) or name_problem(problem, fields)))
        self.record.problems = tuple(shown)

    def _make_text(self, kind: StepKind, text: str) -> Step:
        """Make a step of which nothing but the text is known."""
        if self.recorder.keeps_contents:
            return Step(kind, len(text), self._fit(text))
        return make_step(kind, len(text))

    def _add(self, steps: Sequence[Step]) -> None:
        self.recorder.space.steps -= len(steps)
        self.record.steps += tuple(steps)

    def _keep(self, text: str) -> str | None:
        """Return as much of a text as is kept; None if contents are not."""
        return self._fit(text) if self.recorder.keeps_contents else None

    def _fit(self, text: str) -> str | None:
        """Cut a text in the middle; None if the run has taken down as much as it may."""
        kept = cut_middle(text, TEXT_CHARACTERS)
        space = self.recorder.space
        if len(kept) > space.characters:
            self.node.transcript.cut += len(kept)
            return None
        space.characters -= len(kept)
        return kept


def _read_reasoning(message: Message) -> str:
    """Return what the model thought before it answered; empty if the server does not send it."""
    if not message.extra:
        return ""
    for key in REASONING_KEYS:
        thought = message.extra.get(key)
        if isinstance(thought, str) and thought:
            return thought
    return ""


def _read_code(arguments: str) -> str | None:
    """Return the code in the arguments of a call, if there is some."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    code = value.get(CODE_KEY) if isinstance(value, dict) else None
    return code if isinstance(code, str) else None


# The conversation, and the tool call, in which code runs.
_current: ContextVar[Transcriber | None] = ContextVar("pandas_amr_transcriber", default=None)
_call_id: ContextVar[str] = ContextVar("pandas_amr_tool_call", default="")


def begin_transcript(purpose: Purpose, messages: Sequence[Message]) -> Transcriber | None:
    """Begin to take down a conversation; None if nothing is taken down of it.

    One that code of another conversation has begun stands within that one.
    """
    here = recorder_here()
    if here is None:
        return None
    recorder, node = here
    if recorder.space.steps <= 0:
        node.transcript.dropped += 1
        return None
    record = Conversation(purpose)
    outer = _current.get()
    if outer is None:
        node.transcript.conversations += (record,)
    else:
        outer.record.steps += (record,)
    transcriber = Transcriber(recorder, node, record)
    if purpose.is_repair:
        transcriber.seen = len(messages) - 1
    return transcriber


@contextlib.contextmanager
def use_transcriber(transcriber: Transcriber | None) -> Iterator[None]:
    """Let what is asked in the block stand within a conversation."""
    token = _current.set(transcriber)
    try:
        yield
    finally:
        _current.reset(token)


def name_call(call_id: str) -> None:
    """Note which tool call runs in this task."""
    if _current.get() is not None:
        _call_id.set(call_id)


def transcribe_error(kind: str) -> None:
    """Take down the type of the error with which the tool call of this task ended."""
    transcriber = _current.get()
    if transcriber is not None:
        transcriber.calls.setdefault(_call_id.get(), CallNote("")).error = kind


def transcribe_cell_error(text: str) -> None:
    """Take down the error with which a cell ended, by its traceback."""
    if _current.get() is not None:
        transcribe_error(describe_cell_error(text))


# -- what came of a conversation -------------------------------------------------------------------

# Problems in the words of this library, which hold nothing of an answer, by how they begin.
OWN_PROBLEMS = (
    "no finding",
    "the answer is empty",
    "the answer is not a JSON object",
    "the answer holds several JSON objects",
    "the answer was cut off",
    "it is not JSON",
    "the answer calls a tool, and no tool can be called any more",
    "the answer has no `output`",
    "several calls hand in different answers",
    "nothing was handed in",
)
TWICE = re.compile(r"\d+ findings, not one")


def name_problem(problem: str, fields: Iterable[str]) -> str:
    """Name what is wrong with an answer, without words of it.

    Args:
        problem: what is wrong, in words that may quote the answer.
        fields: the names of the fields of a finding.

    Example:
        >>> name_problem("level: 'from Jane' is not one of 1, 2", ["level"])
        'level does not fit its type'
        >>> name_problem("the answer names unit 'Jane'; units are 0 to 3", ["level"])
        'the answer does not fit'
    """
    for known in OWN_PROBLEMS:
        if problem.startswith(known):
            return known
    if TWICE.fullmatch(problem):
        return problem
    place = problem.partition(":")[0].partition(".")[0]
    return f"{place} does not fit its type" if place in fields else "the answer does not fit"


# -- what the journal has to do with a node --------------------------------------------------------


def writes_transcripts() -> bool:
    """Whether what is taken down here goes to a file, so that its rows have to be known."""
    here = recorder_here()
    return here is not None and here[0].writes_file


def note_keys(keys: Mapping[bytes, int | None]) -> None:
    """Note the keys under which the journal has what comes of this node, by units' positions.

    What code has asked is about texts, and not about units.
    """
    here = recorder_here()
    if here is None or not here[0].writes_file:
        return
    if _current.get() is not None:
        keys = dict.fromkeys(keys)
    node = here[1]
    if node.keys is None:
        node.keys = {}
    node.keys.update(keys)


def note_origins(origins: Iterable[bytes]) -> None:
    """Note the rows that the agents of this node may read, by their fingerprints."""
    here = recorder_here()
    if here is not None and here[0].writes_file:
        here[1].origins = here[1].origins.union(origins)


def note_recalled(key: bytes) -> None:
    """Note that the journal had the answer of this node."""
    here = recorder_here()
    if here is not None:
        transcript = here[1].transcript
        transcript.recalled = (*transcript.recalled, key.hex())
