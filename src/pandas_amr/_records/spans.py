"""When the nodes of a run were with the model, waited, retried or ran code: kept in few bytes."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pandas_amr._records.events import CallEnded, ToolEnded, Waited

if TYPE_CHECKING:
    from collections.abc import Container

    from pandas_amr._records.events import Event

# What a span is: with the model, a wait (``events.WaitKind``), code of the model, another tool.
SPAN_KINDS = (
    "model",
    "place",
    "limit",
    "retry",
    "server",
    "budget",
    "batch",
    "journal",
    "code",
    "tool",
)
NUMBERS = {kind: number for number, kind in enumerate(SPAN_KINDS)}
LEAST_SECONDS = 0.0005  # a shorter wait is none: every call passes a place that is free
MOST_SPANS = 1_000_000  # in memory: 21 bytes each


@dataclass(slots=True)
class SpanLog:
    """The spans of a run, as columns. It listens to the events of the run's trace.

    Attributes:
        left_out: how many were not kept, since there are too many.
    """

    left_out: int = 0
    _nodes: dict[str, int] = field(default_factory=dict)
    _node: array[int] = field(default_factory=lambda: array("I"))
    _kind: array[int] = field(default_factory=lambda: array("B"))
    _start: array[float] = field(default_factory=lambda: array("d"))
    _seconds: array[float] = field(default_factory=lambda: array("d"))
    _waits: dict[int, list[tuple[float, float]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._seconds)

    def hear(self, event: Event) -> None:
        """Keep what an event says of a span that has ended."""
        if isinstance(event, Waited):
            self._add_wait(event)
        elif isinstance(event, CallEnded):
            self._add_call(event)
        elif isinstance(event, ToolEnded):
            kind = "code" if event.is_code else "tool"
            self.add(event.node, kind, event.time - event.seconds, event.seconds)

    def _add_wait(self, event: Waited) -> None:
        if event.seconds < LEAST_SECONDS:
            return
        start = event.time - event.seconds
        self.add(event.node, event.kind, start, event.seconds)
        if event.call:
            self._waits.setdefault(event.call, []).append((start, event.time))

    def _add_call(self, event: CallEnded) -> None:
        """Add the time that a call was with the model: all but its waits."""
        at = event.time - event.seconds
        for start, end in sorted(self._waits.pop(event.call, ())):
            if start - at >= LEAST_SECONDS:
                self.add(event.node, "model", at, start - at)
            at = max(at, end)
        if event.time - at >= LEAST_SECONDS:
            self.add(event.node, "model", at, event.time - at)

    def add(self, node: str, kind: str, start: float, seconds: float) -> None:
        """Keep a span."""
        if len(self._seconds) >= MOST_SPANS:
            self.left_out += 1
            return
        self._node.append(self._nodes.setdefault(node, len(self._nodes)))
        self._kind.append(NUMBERS[kind])
        self._start.append(max(0.0, start))
        self._seconds.append(seconds)

    def columns(
        self, nodes: Container[str], count: int | None = None
    ) -> dict[str, list[str] | list[float]]:
        """Return the spans of some nodes; the spans of a node within one of them are that one's.

        The log may go on meanwhile, in another thread.

        Args:
            nodes: their ids.
            count: only the first spans; None for all.
        """
        count = len(self) if count is None else count
        shown = [_find_shown(name, nodes) for name in list(self._nodes)]
        places = [place for place in range(count) if shown[self._node[place]]]
        return {
            "node": [shown[self._node[place]] for place in places],
            "kind": [SPAN_KINDS[self._kind[place]] for place in places],
            "start": [self._start[place] for place in places],
            "seconds": [self._seconds[place] for place in places],
        }


def _find_shown(name: str, nodes: Container[str]) -> str:
    """Find the node itself, or the closest one that it is part of; empty if there is none."""
    while name and name not in nodes:
        name = name.rpartition("/")[0]
    return name
