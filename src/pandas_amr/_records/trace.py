"""The trace of a run: one ``Node`` per step, collected in a ``Trace``; and who listens to it."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import secrets
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Self, TypeAlias

import msgspec

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.events import (
    Event,
    NodeBegan,
    NodeEnded,
    NodeStatus,
    NodeType,
    ToolBegan,
    ToolEnded,
    Waited,
    WaitKind,
)
from pandas_amr._records.spans import SpanLog
from pandas_amr._records.usage import NO_USAGE, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pandas_amr._records.recorder import AnswerKind, RecordedNode, Recorder

    Listener: TypeAlias = Callable[[Event], None]

# Of findings that were there before the map: the names of their nodes, after the run's prefix.
JOURNAL_NODE, EARLIER_NODE = "journal", "earlier-run"


ANSWER_KINDS: Mapping[NodeType, AnswerKind] = {  # as the journal calls what comes of a node
    "plan": "plan",
    "map": "finding",
    "reduce": "reduction",
    "final-reduce": "reduction",
    "direct": "reduction",
}
REPL_TOOL = "python_repl"  # the tool that runs code of a model; no other has its name


@dataclass(slots=True)
class Node:
    """One node of the graph of a run.

    Attributes:
        id: unique in the run, such as ``map-3``.
        type: what the node does; ``compute`` if no agent reduces, ``recalled`` of findings that
            were there before the map.
        level: 0 for maps, then counted up towards the final reduce; -1 for the plan.
        parents: ids of the nodes whose output this one reads.
        units: how many units (maps) or inputs (reduces) it got.
        start: seconds since the run began.
        seconds: how long it took.
        form: the form of structured output: ``schema``, ``tool``, ``json_object`` or ``prompt``;
            ``code`` if the findings were submitted from a sandbox. ``pandas``, ``function`` or
            ``recipe`` of what no agent writes; ``journal`` or ``result`` of what is recalled.
        sandbox: the tier in which the agent's code ran.
        status: ``partial`` if some units failed, ``passed`` if a group of one needed no call.
        recorded: what its agents did; None if nothing is taken down of it.
    """

    id: str
    type: NodeType
    level: int
    parents: tuple[str, ...] = ()
    units: int = 0
    start: float = 0.0
    seconds: float = 0.0
    usage: Usage = NO_USAGE
    form: str = ""
    sandbox: str = ""
    status: NodeStatus = "running"
    recorded: RecordedNode | None = None


@dataclass(slots=True)
class Trace:
    """The nodes of one run, in the order in which they began.

    Attributes:
        began: when the run began, by the clock of durations.
        started: when it began, in seconds since 1970.
        nodes: its nodes.
        run: names the run in its events.
        listeners: are called with each event, on the engine's thread, in the task in which it
            happens; they must be quick and raise nothing.
        calls: counts the calls of the run.
        tools: counts its tool calls.
        recorder: takes down what agents do; None if nothing does.
        spans: when its nodes were with the model, waited or ran code; None if nobody keeps that.
    """

    began: float = field(default_factory=CLOCK.now)
    started: float = field(default_factory=CLOCK.wall)
    nodes: list[Node] = field(default_factory=list)
    run: str = field(default_factory=partial(secrets.token_hex, 4))
    listeners: list[Listener] = field(default_factory=list)
    calls: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    tools: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    recorder: Recorder | None = None
    spans: SpanLog | None = None
    _by_prefix: dict[str, list[Node]] = field(default_factory=dict)

    def keep_spans(self) -> None:
        """Keep from now on what the nodes do."""
        self.spans = SpanLog()

    def part(self) -> Trace:
        """Make the trace of a part of the run, whose nodes are its own and are not collected here.

        Whoever listens hears of them, too.
        """
        return replace(self, nodes=[], _by_prefix={})

    def at(self, prefix: str) -> list[Node]:
        """Give the nodes of one run; those of its sub-runs have a longer prefix."""
        return self._by_prefix.get(prefix, [])

    @property
    def date(self) -> dt.datetime:
        """When the run began, in UTC."""
        return dt.datetime.fromtimestamp(self.started, dt.UTC)

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return CLOCK.now() - self.began

    def at_node(self, node: str | None) -> tuple[float, str, str]:
        """Give what an event of a node begins with; None is the node in which this code runs."""
        if node is None:
            here = current_node()
            node = "" if here is None else here.id
        return self.seconds, node, self.run

    def emit(self, event: Event) -> None:
        """Give an event to whoever listens."""
        for listener in self.listeners:
            listener(event)

    @contextlib.contextmanager
    def node(
        self,
        type: NodeType,
        *,
        id: str | None = None,
        level: int = 0,
        parents: tuple[str, ...] = (),
        units: int = 0,
    ) -> Iterator[Node]:
        """Record a node for the time of the block.

        Its status is ``ok`` unless the block sets another one or raises.
        """
        name = id or f"{type}-{sum(node.type == type for node in self.nodes)}"
        node = Node(name, type, level=level, parents=parents, units=units, start=self.seconds)
        self.nodes.append(node)
        prefix = name[: name.rfind("/") + 1]
        self._by_prefix.setdefault(prefix, []).append(node)
        error = ""
        with use_scope(Scope(self, node)) as outer:
            if self.listeners:
                self._tell_begin(node, outer)
            try:
                yield node
            except BaseException as raised:
                node.status = "failed" if isinstance(raised, Exception) else "cancelled"
                error = type_name(raised)
                raise
            finally:
                node.seconds = self.seconds - node.start
                if node.status == "running":
                    node.status = "ok"
                self._end_node(node, name, error)

    def _end_node(self, node: Node, name: str, error: str) -> None:
        if self.listeners:
            self._tell_end(node, name, error)
        if node.recorded is not None and self.recorder is not None:
            self.recorder.end_node(node.recorded, node.id)

    def _tell_begin(self, node: Node, outer: Scope | None) -> None:
        within = "" if outer is None else outer.node_id
        self.emit(
            NodeBegan(
                node.start,
                node.id,
                self.run,
                type=node.type,
                level=node.level,
                parents=node.parents,
                units=node.units,
                within=within,
            )
        )

    def _tell_end(self, node: Node, name: str, error: str) -> None:
        """Tell that a node ended; ``name`` is the id with which it began."""
        self.emit(
            NodeEnded(
                node.start + node.seconds,
                name,
                self.run,
                id=node.id,
                type=node.type,
                parents=node.parents,
                status=node.status,
                usage=node.usage,
                seconds=node.seconds,
                form=node.form,
                sandbox=node.sandbox,
                error=error,
            )
        )


def type_name(error: BaseException) -> str:
    """Name the class of an error, as events show it."""
    return type(error).__name__


# Each call of a model makes some of these structs; a dataclass takes several times as long to make.


class CallRecord(msgspec.Struct):
    """A call of a model that goes on.

    Attributes:
        number: its number in the run.
        began: when it began, in seconds since the run did.
        usage: what it has spent.
        waited: seconds that it has waited, and was not sent.
    """

    number: int
    began: float
    usage: Usage = NO_USAGE
    waited: float = 0.0


@dataclass(slots=True)
class ToolRecord:
    """A tool call that goes on.

    Attributes:
        number: its number among the tool calls of the run.
        tool: the tool's name.
        call: the number of the model's call in whose answer it stands.
        error: what went wrong, as ``ToolEnded`` says it.
    """

    number: int
    tool: str
    call: int
    error: str = ""

    @property
    def is_code(self) -> bool:
        """Whether the tool is the REPL."""
        return self.tool == REPL_TOOL


class Scope(msgspec.Struct, frozen=True):
    """Where in a run some code runs.

    Attributes:
        trace: the run's.
        node: the node; None outside of any.
        call: the call of a model that goes on; None outside of any.
        tool: the tool call that goes on; None outside of any.
    """

    trace: Trace
    node: Node | None = None
    call: CallRecord | None = None
    tool: ToolRecord | None = None

    @property
    def node_id(self) -> str:
        """The node's id; empty outside of any."""
        return "" if self.node is None else self.node.id

    @property
    def at(self) -> tuple[float, str, str]:
        """What each event begins with: the time, the node and the run."""
        return self.trace.seconds, self.node_id, self.trace.run

    def emit(self, event: Event) -> None:
        """Give an event to whoever listens."""
        self.trace.emit(event)


_scope: ContextVar[Scope | None] = ContextVar("pandas_amr_scope", default=None)


class use_scope:  # noqa: N801 (used as `with use_scope(...)`; a generator takes twice as long)
    """Let the block run in a scope, and whatever is begun in it; give the outer one."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __enter__(self) -> Scope | None:
        outer = _scope.get()
        self._token = _scope.set(self._scope)
        return outer

    def __exit__(self, *raised: object) -> None:
        _scope.reset(self._token)


def current_node() -> Node | None:
    """Return the node in which this code runs; None outside of any."""
    scope = _scope.get()
    return None if scope is None else scope.node


def recorder_here() -> tuple[Recorder, RecordedNode] | None:
    """Return what takes down what agents do in this node; None if nothing does."""
    scope = _scope.get()
    if scope is None or scope.node is None:
        return None
    recorder, node = scope.trace.recorder, scope.node
    if recorder is None:
        return None
    if node.recorded is None:
        node.recorded = recorder.open_node(node.id, ANSWER_KINDS[node.type])
    return recorder, node.recorded


def find_listened_scope() -> Scope | None:
    """Return where this code runs if somebody listens, so that an event is worth being built.

    ``if (scope := find_listened_scope()) is not None: scope.emit(Recalled(*scope.at, answers=3))``
    """
    scope = _scope.get()
    return scope if scope is not None and scope.trace.listeners else None


def find_timed_scope() -> Scope | None:
    """Return where this code runs if it matters how long it takes: for events, or for spans."""
    scope = _scope.get()
    if scope is None or not (scope.trace.listeners or scope.trace.spans is not None):
        return None
    return scope


def record_event(make: Callable[[float, str, str], Event]) -> None:
    """Record an event here, made of time, node and run; it is made only if somebody listens."""
    scope = find_listened_scope()
    if scope is not None:
        scope.emit(make(*scope.at))


def add_to_call(usage: Usage) -> None:
    """Add to what the call that goes on has spent, if somebody listens."""
    scope = find_listened_scope()
    if scope is not None and scope.call is not None:
        first = not scope.call.usage.tries
        scope.call.usage = usage if first else scope.call.usage + usage


@contextlib.contextmanager
def use_scope_of_second_request() -> Iterator[None]:
    """Let what is begun in the block be a second request of the same call.

    While it waits for its place the first one is under way, so that the call does not wait.
    """
    scope = find_listened_scope()
    if scope is None or scope.call is None:
        yield
        return
    second = CallRecord(scope.call.number, scope.trace.seconds)
    with use_scope(msgspec.structs.replace(scope, call=second)):
        yield


@contextlib.contextmanager
def record_tool(tool: str, call: int) -> Iterator[None]:
    """Record that a tool runs in the block.

    Args:
        tool: its name.
        call: the number of the model's call in whose answer the tool's call stands.
    """
    scope = find_timed_scope()
    if scope is None:
        yield
        return
    record = ToolRecord(next(scope.trace.tools), tool=tool, call=call)
    _tell_tool_begin(scope, record)
    began = CLOCK.now()
    try:
        with use_scope(msgspec.structs.replace(scope, call=None, tool=record)):
            yield
    except BaseException as raised:
        record.error = type_name(raised)
        raise
    finally:
        _end_tool(scope, record, CLOCK.now() - began)


def _tell_tool_begin(scope: Scope, record: ToolRecord) -> None:
    if scope.trace.listeners:
        scope.emit(
            ToolBegan(
                *scope.at,
                tool=record.tool,
                number=record.number,
                call=record.call,
                is_code=record.is_code,
            )
        )


def _end_tool(scope: Scope, record: ToolRecord, seconds: float) -> None:
    time, node, run = scope.at
    if scope.trace.spans is not None:
        kind = "code" if record.is_code else "tool"
        scope.trace.spans.add(node, kind, time - seconds, seconds)
    if scope.trace.listeners:
        scope.emit(
            ToolEnded(
                time,
                node,
                run,
                tool=record.tool,
                number=record.number,
                call=record.call,
                seconds=seconds,
                is_code=record.is_code,
                error=record.error,
            )
        )


def note_tool_error(name: str) -> None:
    """Note what went wrong in the tool call that goes on, of which the agent is told."""
    scope = _scope.get()
    if scope is not None and scope.tool is not None:
        scope.tool.error = name


class record_wait:  # noqa: N801 (used as `with record_wait(...)`; a generator takes twice as long)
    """Record that the block is a wait, whatever way it ends.

    Attributes:
        kind: what it is for, as it is known by now.
        is_told: whether it is worth an event.
    """

    __slots__ = ("_began", "_scope", "is_told", "kind")

    def __init__(self, kind: WaitKind) -> None:
        self.kind = kind
        self.is_told = True

    def __enter__(self) -> Self:
        self._scope = find_timed_scope()
        self._began = CLOCK.now()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._scope is not None and self.is_told:
            self._tell(self._scope)

    def _tell(self, scope: Scope) -> None:
        seconds = CLOCK.now() - self._began
        call = 0
        if scope.call is not None:
            call = scope.call.number
            if self.kind != "batch":  # whose requests are sent
                scope.call.waited += seconds
        time, node, run = scope.at
        if scope.trace.spans is not None:
            scope.trace.spans.add_wait(node, self.kind, time - seconds, seconds, call)
        if scope.trace.listeners:
            scope.trace.emit(Waited(time, node, run, kind=self.kind, seconds=seconds, call=call))
