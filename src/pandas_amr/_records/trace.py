"""The trace of a run: one ``Node`` per step, collected in a ``Trace``; and who listens to it."""

from __future__ import annotations

import contextlib
import itertools
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.events import (
    Event,
    NodeBegan,
    NodeEnded,
    NodeStatus,
    NodeType,
    Waited,
    WaitKind,
)
from pandas_amr._records.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Listener: TypeAlias = Callable[[Event], None]


@dataclass(slots=True)
class Node:
    """One node of the graph of a run.

    Attributes:
        id: unique in the run, such as ``map-3``.
        type: what the node does.
        level: 0 for maps, then counted up towards the final reduce; -1 for the plan.
        parents: ids of the nodes whose output this one reads.
        units: how many units (maps) or inputs (reduces) it got.
        start: seconds since the run began.
        seconds: how long it took.
        form: the form of structured output: ``schema``, ``tool``, ``json_object`` or ``prompt``;
            ``code`` if the findings were submitted from a sandbox.
        sandbox: the tier in which the agent's code ran.
        status: ``partial`` if some units failed, ``passed`` if a group of one needed no call.
    """

    id: str
    type: NodeType
    level: int
    parents: tuple[str, ...] = ()
    units: int = 0
    start: float = 0.0
    seconds: float = 0.0
    usage: Usage = field(default_factory=Usage)
    form: str = ""
    sandbox: str = ""
    status: NodeStatus = "running"


@dataclass(slots=True)
class Trace:
    """The nodes of one run, in the order in which they began.

    Attributes:
        began: when the run began.
        nodes: its nodes.
        listeners: are called with each event, on the engine's thread, in the task in which it
            happens; they must be quick and raise nothing.
        calls: counts the calls of the run.
        tools: counts its tool calls.
    """

    began: float = field(default_factory=CLOCK.now)
    nodes: list[Node] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)
    calls: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    tools: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _by_prefix: dict[str, list[Node]] = field(default_factory=dict)

    def part(self) -> Trace:
        """Make the trace of a part of the run, whose nodes are its own and are not collected here.

        Whoever listens hears of them, too.
        """
        return replace(self, nodes=[], _by_prefix={})

    def at(self, prefix: str) -> list[Node]:
        """Give the nodes of one run; those of its sub-runs have a longer prefix."""
        return self._by_prefix.get(prefix, [])

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return CLOCK.now() - self.began

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
        with use_place(Place(self, node)) as outer:
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
                self._tell_end(node, name, error)

    def _tell_begin(self, node: Node, outer: Place | None) -> None:
        if not self.listeners:
            return
        within = outer.node.id if outer is not None and outer.node is not None else ""
        self.emit(
            NodeBegan(
                node.start,
                node.id,
                type=node.type,
                level=node.level,
                parents=node.parents,
                units=node.units,
                within=within,
            )
        )

    def _tell_end(self, node: Node, name: str, error: str) -> None:
        """Tell that a node ended; ``name`` is the id with which it began."""
        if not self.listeners:
            return
        self.emit(
            NodeEnded(
                node.start + node.seconds,
                name,
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


@dataclass(slots=True)
class CallRecord:
    """A call of a model that goes on.

    Attributes:
        number: its number in the run.
        usage: what it has spent.
        waited: seconds that it has waited, and was not sent.
    """

    number: int
    usage: Usage = field(default_factory=Usage)
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a run some code runs.

    Attributes:
        trace: the run's.
        node: the node; None outside of any.
        call: the call of a model that goes on; None outside of any.
        tool: the number of the tool call that goes on; 0 outside of any.
    """

    trace: Trace
    node: Node | None = None
    call: CallRecord | None = None
    tool: int = 0

    @property
    def at(self) -> tuple[float, str]:
        """What each event begins with: the time and the node."""
        return self.trace.seconds, "" if self.node is None else self.node.id

    def emit(self, event: Event) -> None:
        """Give an event to whoever listens."""
        self.trace.emit(event)


_place: ContextVar[Place | None] = ContextVar("pandas_amr_place", default=None)


@contextlib.contextmanager
def use_place(place: Place) -> Iterator[Place | None]:
    """Let the block run at a place; whatever is begun in it runs there, too. Give the outer one."""
    outer = _place.get()
    token = _place.set(place)
    try:
        yield outer
    finally:
        _place.reset(token)


def current_place() -> Place | None:
    """Return where this code runs; None outside of any run."""
    return _place.get()


def current_node() -> Node | None:
    """Return the node in which this code runs; None outside of any."""
    place = _place.get()
    return None if place is None else place.node


def listened() -> Place | None:
    """Return where this code runs if somebody listens, so that an event is worth being built.

    ``if (place := listened()) is not None: place.emit(Recalled(*place.at, answers=3))``
    """
    place = _place.get()
    return place if place is not None and place.trace.listeners else None


def record_event(make: Callable[[float, str], Event]) -> None:
    """Record an event here, made of the time and the node; it is made only if somebody listens."""
    place = listened()
    if place is not None:
        place.emit(make(*place.at))


@contextlib.contextmanager
def record_wait(kind: WaitKind) -> Iterator[None]:
    """Record that the block is a wait, whatever way it ends."""
    place = listened()
    if place is None:
        yield
        return
    began = CLOCK.now()
    try:
        yield
    finally:
        end_wait(place, kind, began)


def end_wait(place: Place, kind: WaitKind, began: float) -> None:
    """Record a wait that began at some time by the clock and ends now."""
    seconds, number = CLOCK.now() - began, 0
    if place.call is not None:
        place.call.waited += seconds
        number = place.call.number
    place.emit(Waited(*place.at, kind=kind, seconds=seconds, call=number))
