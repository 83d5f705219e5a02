"""When the nodes of a run were with the model, waited, retried or ran code: kept in few bytes."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from pandas_amr._records.events import WaitKind

    Interval: TypeAlias = tuple[float, float]  # from when until when


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
LEAST_SECONDS = 0.0005  # what is shorter is no span: every call passes a place that is free
MOST_SPANS = 1_000_000  # in memory: 40 bytes each
WIDTH = 5  # numbers of a span: of its node, of its kind, its start, its seconds, of its call
LEFT_OUT = "left_out"  # in the attrs of a frame of spans: how many more there were


@dataclass(slots=True)
class SpanLog:
    """The spans of a run, one after the other. A span is added when it ends.

    Each call adds to it, and few people look: so what a call waited is taken off when they do.

    Attributes:
        left_out: how many were not kept, since there are too many.
    """

    left_out: int = 0
    _nodes: dict[str, int] = field(default_factory=dict)
    _numbers: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self._numbers) // WIDTH

    def add(self, node: str, kind: str, start: float, seconds: float, call: int = 0) -> None:
        """Keep a span.

        Args:
            node: the id of its node.
            kind: what it is; ``model`` is a whole call, with its waits.
            start: when it began.
            seconds: how long it was.
            call: the number of the call that it is, or that waited; 0 if it is about none.
        """
        numbers = self._numbers
        if len(numbers) >= MOST_SPANS * WIDTH:
            self.left_out += 1
            return
        nodes = self._nodes
        place = nodes.setdefault(node, len(nodes))
        numbers.extend((place, NUMBERS[kind], start, seconds, call))

    def add_wait(self, node: str, kind: WaitKind, start: float, seconds: float, call: int) -> None:
        """Keep a wait, if it is long enough."""
        if seconds >= LEAST_SECONDS:
            self.add(node, kind, start, seconds, call)

    def columns(self, nodes: Container[str], count: int | None = None) -> dict[str, list[Any]]:
        """Return the spans of some nodes; the spans of a node within one of them are that one's.

        The log may go on meanwhile, in another thread.

        Args:
            nodes: their ids.
            count: only what the first so many spans say; None for all.
        """
        count = len(self) if count is None else count
        shown = [_find_shown(name, nodes) for name in list(self._nodes)]
        columns: dict[str, list[Any]] = {"node": [], "kind": [], "start": [], "seconds": []}
        for number, kind, start, seconds in self._list_spans(count):
            node = shown[number]
            if node:
                columns["node"].append(node)
                columns["kind"].append(SPAN_KINDS[kind])
                columns["start"].append(max(0.0, start))
                columns["seconds"].append(seconds)
        return columns

    def _list_spans(self, count: int) -> Iterator[tuple[int, int, float, float]]:
        """Give node, kind, start and seconds of spans; of a call those between its waits."""
        waits: dict[float, list[Interval]] = {}  # of calls that go on, by their numbers
        for place in range(0, count * WIDTH, WIDTH):
            number, kind, start, seconds, call = self._numbers[place : place + WIDTH]
            interval = (start, start + seconds)
            if kind == NUMBERS["model"]:
                for at, end in _find_gaps(interval, waits.pop(call, [])):
                    yield int(number), int(kind), at, end - at
                continue
            if call:
                waits.setdefault(call, []).append(interval)
            yield int(number), int(kind), start, seconds


def _find_gaps(call: Interval, waits: list[Interval]) -> list[Interval]:
    """Find when a call was with the model: between its waits, if for long enough."""
    at, end = call
    gaps: list[Interval] = []
    for wait_start, wait_end in sorted(waits):
        gaps.append((at, wait_start))
        at = max(at, wait_end)
    gaps.append((at, end))
    return [(begin, stop) for begin, stop in gaps if stop - begin >= LEAST_SECONDS]


def _find_shown(name: str, nodes: Container[str]) -> str:
    """Find the node itself, or the closest one that it is part of; empty if there is none."""
    while name and name not in nodes:
        name = name.rpartition("/")[0]
    return name
