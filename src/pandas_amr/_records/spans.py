"""When the nodes of a run were with the model, waited, retried or ran code: kept in few bytes."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
MOST_SPANS = 1_000_000  # in memory: 32 bytes each
WIDTH = 4  # numbers of a span: of its node, of its kind, its start, its seconds
LEFT_OUT = "left_out"  # in the attrs of a frame of spans: how many more there were


@dataclass(slots=True)
class SpanLog:
    """The spans of a run, one after the other. A span is added when it ends.

    Attributes:
        left_out: how many were not kept, since there are too many.
    """

    left_out: int = 0
    _nodes: dict[str, int] = field(default_factory=dict)
    _numbers: array[float] = field(default_factory=lambda: array("d"))
    _waits: dict[int, list[tuple[float, float]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._numbers) // WIDTH

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
        if call in self._waits:
            for wait_start, wait_end in sorted(self._waits.pop(call)):
                if wait_start - at >= LEAST_SECONDS:
                    self.add(node, "model", at, wait_start - at)
                at = max(at, wait_end)
        if end - at >= LEAST_SECONDS:
            self.add(node, "model", at, end - at)

    def add(self, node: str, kind: str, start: float, seconds: float) -> None:
        """Keep a span."""
        if len(self._numbers) >= MOST_SPANS * WIDTH:
            self.left_out += 1
            return
        number = self._nodes.setdefault(node, len(self._nodes))
        self._numbers.extend((number, NUMBERS[kind], max(0.0, start), seconds))

    def columns(self, nodes: Container[str], count: int | None = None) -> dict[str, list[Any]]:
        """Return the spans of some nodes; the spans of a node within one of them are that one's.

        The log may go on meanwhile, in another thread.

        Args:
            nodes: their ids.
            count: only the first spans; None for all.
        """
        count = len(self) if count is None else count
        shown = [_find_shown(name, nodes) for name in list(self._nodes)]
        columns: dict[str, list[Any]] = {"node": [], "kind": [], "start": [], "seconds": []}
        for place in range(0, count * WIDTH, WIDTH):
            number, kind, start, seconds = self._numbers[place : place + WIDTH]
            node = shown[int(number)]
            if node:
                columns["node"].append(node)
                columns["kind"].append(SPAN_KINDS[int(kind)])
                columns["start"].append(start)
                columns["seconds"].append(seconds)
        return columns


def _find_shown(name: str, nodes: Container[str]) -> str:
    """Find the node itself, or the closest one that it is part of; empty if there is none."""
    while name and name not in nodes:
        name = name.rpartition("/")[0]
    return name
