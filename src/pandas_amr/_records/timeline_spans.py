"""What each node of a run did at each moment: spans that do not overlap and leave no gap."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from pandas_amr._records.spans import SPAN_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Of spans at the same moment the first of these counts: a call within code is with the model, and
# a node of which one call waits, while another one is answered, goes on.
RANKS = {kind: rank for rank, kind in enumerate(SPAN_KINDS)}
OTHER = "other"  # whatever else a node does: it renders, parses, calls functions of the user's
COMPUTE = "compute"
INSIDE = "inside"  # the time of a node whose pipeline's nodes are shown themselves
KINDS = (*SPAN_KINDS, COMPUTE, OTHER, INSIDE)
WAITS = frozenset({"place", "limit", "retry", "server", "budget", "batch", "journal"})


class Span(NamedTuple):
    """A time in which a node did one thing."""

    kind: str
    start: float
    end: float


Spans: TypeAlias = "list[Span]"


@dataclass(frozen=True, slots=True)
class Lane:
    """A node, and what it did from its start to its end.

    Attributes:
        name: of the node.
        status: as in the trace.
        start: seconds since the run began.
        end: likewise.
        spans: in order, without overlaps and gaps.
        began: when it began, if its times are those since then.
    """

    name: str
    status: str
    start: float
    end: float
    spans: tuple[Span, ...]
    began: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start

    def sums(self) -> dict[str, float]:
        """Add up the seconds of each kind, in the order of ``KINDS``."""
        sums = dict.fromkeys(KINDS, 0.0)
        for span in self.spans:
            sums[span.kind] += span.end - span.start
        return {kind: seconds for kind, seconds in sums.items() if seconds > 0}


def make_lanes(
    nodes: Iterable[Mapping[Any, Any]], spans: Mapping[str, Sequence[Span]]
) -> list[Lane]:
    """Make a lane per node that took time, in the order in which they began.

    Args:
        nodes: ``id type start seconds status`` of each node.
        spans: of each node; they may overlap.
    """
    listed = list(nodes)
    outer = _find_outer(str(node["id"]) for node in listed)
    lanes: list[Lane] = []
    for node in listed:
        if node["type"] == "recalled":
            continue
        name = str(node["id"])
        status = str(node["status"])
        start = float(node["start"])
        end = start + float(node["seconds"])
        rest = OTHER
        if name in outer:
            rest = INSIDE
        elif node["type"] == COMPUTE:
            rest = COMPUTE
        flat = flatten(spans.get(name, ()))
        filled = fill_gaps(flat, start, end, rest)
        lanes.append(Lane(name, status, start, end, tuple(filled)))
    lanes.sort(key=_start_of)
    return lanes


def _find_outer(names: Iterable[str]) -> set[str]:
    """Find the nodes that others are part of: ``map-1`` of ``map-1/row-2/1-map/map-1``."""
    outer: set[str] = set()
    for name in names:
        place = name.find("/")
        while place >= 0:
            outer.add(name[:place])
            place = name.find("/", place + 1)
    return outer


def _start_of(lane: Lane) -> float:
    return lane.start


def flatten(spans: Sequence[Span]) -> Spans:
    """Order spans, and cut them so that none overlap: at each moment the first of ``RANKS`` counts.

    Example:
        >>> code, model = Span("code", 0, 4), Span("model", 1, 3)
        >>> [(span.kind, span.start, span.end) for span in flatten([code, model])]
        [('code', 0, 1), ('model', 1, 3), ('code', 3, 4)]
    """
    ordered = sorted(spans, key=_by_time)
    for one, two in itertools.pairwise(ordered):
        if one.end > two.start:
            return _sweep(ordered)
    return ordered


def _by_time(span: Span) -> tuple[float, float]:
    return span.start, span.end


def _sweep(ordered: Spans) -> Spans:
    """Go through the moments at which a span begins or ends, and note what counts in between."""
    moments: list[tuple[float, int, str]] = []
    for span in ordered:
        moments.append((span.start, 1, span.kind))
        moments.append((span.end, -1, span.kind))
    moments.sort()
    running: dict[str, int] = {}
    flat: Spans = []
    before = 0.0
    for moment, change, kind in moments:
        if running and moment > before:
            first = min(running, key=RANKS.__getitem__)
            _append(flat, Span(first, before, moment))
        running[kind] = running.get(kind, 0) + change
        if not running[kind]:
            del running[kind]
        before = moment
    return flat


def _append(flat: Spans, span: Span) -> None:
    """Append a span; it is joined with the last one if that is of the same kind, and ends here."""
    if flat:
        last = flat[-1]
        if last.kind == span.kind and last.end == span.start:
            flat[-1] = Span(span.kind, last.start, span.end)
            return
    flat.append(span)


def fill_gaps(flat: Sequence[Span], start: float, end: float, kind: str) -> Spans:
    """Cut spans to a node's time, and fill the gaps between them.

    Example:
        >>> [tuple(span) for span in fill_gaps([Span("model", 1, 9)], 0, 3, "other")]
        [('other', 0, 1), ('model', 1, 3)]
    """
    filled: Spans = []
    at = start
    for span in flat:
        begin = max(span.start, at)
        until = min(span.end, end)
        if until <= begin:
            continue
        if begin > at:
            filled.append(Span(kind, at, begin))
        filled.append(Span(span.kind, begin, until))
        at = until
    if end > at:
        filled.append(Span(kind, at, end))
    return filled


def bin_spans(spans: Sequence[Span], start: float, end: float, bins: int) -> list[str]:
    """Say what took most of each bin of a time; empty if nothing did anything.

    Example:
        >>> bin_spans([Span("model", 0, 5), Span("code", 5, 6)], 0, 8, 4)
        ['model', 'model', 'model', '']
    """
    width = (end - start) / bins
    if width <= 0:
        return [""] * bins
    sums: list[defaultdict[str, float]] = [defaultdict(float) for _ in range(bins)]
    for span in spans:
        first = int((span.start - start) / width)
        last = int((span.end - start) / width)
        for place in range(max(0, first), min(bins, last + 1)):
            left = start + place * width
            right = left + width
            inside = min(span.end, right) - max(span.start, left)
            if inside > 0:
                sums[place][span.kind] += inside
    most: list[str] = []
    for by_kind in sums:
        most.append(max(by_kind, key=by_kind.__getitem__, default=""))
    return most


def count_running(lanes: Sequence[Lane], end: float, bins: int) -> dict[str, list[float]]:
    """Count how many nodes were in each kind of span, on average over each bin of the run."""
    width = end / bins
    counts: dict[str, list[float]] = {}
    for lane in lanes:
        for span in lane.spans:
            column = counts.setdefault(span.kind, [0.0] * (bins + 1))
            _add_span(column, span, width, bins)
    averages: dict[str, list[float]] = {}
    for kind, column in counts.items():
        averages[kind] = [seconds / width for seconds in column[:bins]]
    return averages


def _add_span(column: list[float], span: Span, width: float, bins: int) -> None:
    """Add to each bin the seconds of a span that are in it."""
    first = min(bins - 1, int(span.start / width))
    last = min(bins - 1, int(span.end / width))
    if first == last:
        column[first] += span.end - span.start
        return
    column[first] += (first + 1) * width - span.start
    for place in range(first + 1, last):
        column[place] += width
    column[last] += span.end - last * width
