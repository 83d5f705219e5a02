"""What happens in a run, as it happens: frozen records, in order, without the text of cells.

There are six for each call of a model, and a frozen dataclass takes ten times as long to make.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from pandas_amr._records.usage import Phase, Usage  # noqa: TC001 (msgspec reads the annotations)

NodeType = Literal["plan", "map", "reduce", "final-reduce", "direct", "compute", "recalled"]
NodeStatus = Literal["running", "ok", "partial", "failed", "passed", "cancelled"]
RunStatus = Literal["ok", "partial", "stopped", "failed", "cancelled"]
# What a request, or a shard, waited for:
# place: among the requests in flight, by the plan, the pace or a limit that is known;
# limit: the server said 429, or when to come again;  retry: the wait before the next try;
# server: it is not reached, or loads its model;  budget: requests in flight might use it up;
# batch: the answer of a batch;  journal: another shard, run or process asks the same.
WaitKind = Literal["place", "limit", "retry", "server", "budget", "batch", "journal"]


# Not tracked by the collector: nothing that an event refers to refers to an event.
class BaseEvent(msgspec.Struct, frozen=True, gc=False, tag=True, tag_field="event"):
    """What all events have.

    Attributes:
        time: seconds since the run began.
        node: the id of the node in which it happened, as in ``result.trace``; empty outside of any.
        run: names the run: one listener may listen to several.
    """

    time: float
    node: str
    run: str


class RunBegan(BaseEvent, frozen=True, gc=False, kw_only=True):
    """The run began.

    Attributes:
        verb: ``map_reduce``, ``map``, ``filter``, ``reduce``, ``plan`` or ``recipe``.
        task: the user's task; None if there is none.
        rows: how many rows it is about; None if that is not known yet.
    """

    verb: str
    task: str | None = None
    rows: int | None = None


class RunEnded(BaseEvent, frozen=True, gc=False, kw_only=True):
    """The run ended; nothing follows.

    Attributes:
        status: ``partial`` if units or the reduce failed, ``stopped`` if it ended early with a
            result, ``failed`` if it raised.
        usage: all that it spent.
        seconds: how long it took.
        error: the name of the exception's class; empty if it raised nothing.
    """

    status: RunStatus
    usage: Usage
    seconds: float
    error: str = ""


class NodeBegan(BaseEvent, frozen=True, gc=False, kw_only=True):
    """A node of the graph began.

    Attributes:
        type: what it does.
        level: 0 for maps, then counted up towards the final reduce; -1 for the plan.
        parents: ids of the nodes whose output it reads.
        units: how many units (maps) or inputs (reduces) it got.
        within: the id of the node that it is part of, if a pipeline runs inside of a map or a part.
    """

    type: NodeType
    level: int
    parents: tuple[str, ...] = ()
    units: int = 0
    within: str = ""


class NodeEnded(BaseEvent, frozen=True, gc=False, kw_only=True):
    """A node of the graph ended.

    Attributes:
        id: its id in ``result.trace``.
        type: what it did.
        parents: as in ``result.trace``: the ends of pipelines inside of it are among them.
        status: as in ``result.trace``.
        usage: what it spent.
        seconds: how long it took.
        form: the form of structured output, as in ``result.trace``.
        sandbox: the tier in which its code ran.
        error: the name of the exception's class; empty if it raised nothing.
    """

    id: str
    type: NodeType
    parents: tuple[str, ...]
    status: NodeStatus
    usage: Usage
    seconds: float
    form: str = ""
    sandbox: str = ""
    error: str = ""


class CallBegan(BaseEvent, frozen=True, gc=False, kw_only=True):
    """A turn of a conversation with a model began: it waits for its place, then it is sent.

    Attributes:
        call: its number in the run, from 1. One call may take several requests: retries, forms of
            structured output that the server refuses, a second request by ``LM(hedge=True)``.
        phase: ``plan``, ``map`` or ``reduce``.
        model: the model's name, as it is asked for.
        server: the server's host and port.
        tool: the number of the tool call whose code asks; 0 if an agent does.
    """

    call: int
    phase: Phase
    model: str
    server: str
    tool: int = 0


class CallEnded(BaseEvent, frozen=True, gc=False, kw_only=True):
    """A turn of a conversation with a model ended.

    Attributes:
        call: its number.
        phase: as in ``CallBegan``; so are ``model`` and ``server``.
        usage: what it spent, failed tries included.
        seconds: how long it took, waits included.
        waited: seconds of them that it waited, and was not sent.
        finish_reason: as the server says, such as ``stop``; empty if no answer could be used.
        error: the name of the exception's class; empty if it was answered.
        answered_by: the name of the model as the server says; empty if it says none.
        response: the answer's id, as the server gives it.
    """

    call: int
    phase: Phase
    model: str
    server: str
    usage: Usage
    seconds: float
    waited: float = 0.0
    finish_reason: str = ""
    error: str = ""
    answered_by: str = ""
    response: str = ""

    @property
    def tries(self) -> int:
        """How many requests were sent."""
        return self.usage.tries


class Waited(BaseEvent, frozen=True, gc=False, kw_only=True):
    """Something waited, and goes on now.

    Attributes:
        kind: what it waited for: ``place``, ``limit`` (429, or a wait that the server asks for),
            ``retry``, ``server`` (not reached), ``budget``, ``batch`` or ``journal``.
        seconds: how long.
        call: the number of the call that waited; 0 outside of any.
    """

    kind: WaitKind
    seconds: float
    call: int = 0


class ToolBegan(BaseEvent, frozen=True, gc=False, kw_only=True):
    """A tool began that a model called.

    Attributes:
        tool: its name.
        number: its number among the tool calls of the run, from 1.
        call: the number of the call in whose answer it stands.
        is_code: whether it is the REPL, which runs code of the model.
    """

    tool: str
    number: int
    call: int
    is_code: bool = False


class ToolEnded(BaseEvent, frozen=True, gc=False, kw_only=True):
    """A tool ended.

    Attributes:
        tool: its name.
        number: its number.
        call: the number of the call in whose answer it stands.
        is_code: whether it is the REPL.
        seconds: how long it took.
        error: the name of the exception's class: of the tool's, ``ValidationError`` if its
            arguments did not fit, ``CodeError`` if the model's code raised; empty if all went well.
    """

    tool: str
    number: int
    call: int
    seconds: float
    is_code: bool = False
    error: str = ""


class Repaired(BaseEvent, frozen=True, gc=False, kw_only=True):
    """Findings were accepted that came in a repair turn; or a reduction was, which counts as one.

    Attributes:
        units: how many.
    """

    units: int


class Halved(BaseEvent, frozen=True, gc=False, kw_only=True):
    """What failed of a shard is asked about once more, in halves.

    Attributes:
        units: how many units failed.
    """

    units: int


class Landed(BaseEvent, frozen=True, gc=False, kw_only=True):
    """Findings are there: of a shard, or out of the journal.

    Attributes:
        units: how many.
        rows: how many rows they are findings of: equal rows are one unit.
    """

    units: int
    rows: int


class Failed(BaseEvent, frozen=True, gc=False, kw_only=True):
    """Units failed.

    Attributes:
        units: how many.
        rows: how many rows these are.
        who: who failed, as in ``result.failures``: ``model``, ``schema``, ``callable``,
            ``sandbox``.
    """

    units: int
    rows: int
    who: str


class Recalled(BaseEvent, frozen=True, gc=False, kw_only=True):
    """Answers came from the journal, and cost nothing.

    Attributes:
        answers: how many.
    """

    answers: int


# Reprs and pickles name the public module: pandas_amr.events.RunBegan.
for _kind in BaseEvent.__subclasses__():
    _kind.__module__ = "pandas_amr.events"

Event: TypeAlias = (
    RunBegan
    | RunEnded
    | NodeBegan
    | NodeEnded
    | CallBegan
    | CallEnded
    | Waited
    | ToolBegan
    | ToolEnded
    | Repaired
    | Halved
    | Landed
    | Failed
    | Recalled
)
