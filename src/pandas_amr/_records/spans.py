"""When the nodes of a run were with the model, waited, retried or ran code: kept in few bytes."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

    from pandas_amr._records.events import WaitKind

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
LEFT_OUT = "left_out"  # in the attrs of a frame of spans: how many more there were


@dataclass(slots=True)
class SpanLog:
    """The spans of a run, as columns. A span is added when it ends.

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

    def add_wait(
        self, node: str, kind: WaitKind, *, end: float, seconds: float, call: int = 0
    ) -> None:
        """Add a wait; ``call`` is the number of the call that waited, 0 if none did."""
        if seconds < LEAST_SECONDS:
            return
        self.add(node, kind, end - seconds, seconds)
        if call:
            self._waits.setdefault(call, []).append((end - seconds, end))

    def add_call(self, node: str, call: int, *, end: float, seconds: float) -> None:
        """Add the time that a call was with the model: all but its waits."""
        at = end - seconds
        for wait_start, wait_end in sorted(self._waits.pop(call, ())):
            if wait_start - at >= LEAST_SECONDS:
                self.add(node, "model", at, wait_start - at)
            at = max(at, wait_end)
        if end - at >= LEAST_SECONDS:
            self.add(node, "model", at, end - at)

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
