"""The lanes of a timeline: a node each; which of them are shown, and what is said of all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pandas_amr._records.counts import counted
from pandas_amr._records.spans import MOST_SPANS
from pandas_amr._records.svg import count_columns, show_seconds
from pandas_amr._records.timeline_spans import KINDS, WAITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._records.timeline_spans import Lane, Span

MOST_LANES = 30  # with more nodes, those that failed and the slowest have lanes
LANES_OF_MANY = 12
MOST_FAILED = 6  # among these
MOST_WAITS = 5  # that are named
LEAST_WAIT_S = 0.05
NAME_COLUMNS = 22

NAMES = {
    "model": "in the model",
    "place": "waiting for a place",
    "limit": "waiting for a rate limit",
    "retry": "waiting for a retry",
    "server": "waiting for the server",
    "budget": "waiting for the budget",
    "batch": "waiting for a batch",
    "journal": "waiting for the journal",
    "code": "in code",
    "tool": "in a tool",
    "compute": "computing",
    "other": "other work",
    "inside": "in the nodes inside",
}
BAD = frozenset({"failed", "cancelled"})
NO_SPANS = (
    'what the nodes did is not known: the run recorded no spans (trace="off"), or its result was '
    "saved by an earlier version"
)


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait of a node."""

    node: str
    span: Span

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.span.end - self.span.start

    def __str__(self) -> str:
        name = shorten_name(self.node)
        seconds = show_seconds(self.seconds)
        kind = NAMES[self.span.kind]
        start = show_seconds(self.span.start)
        return f"{name}: {seconds} {kind}, from {start}"


@dataclass(frozen=True)
class Lanes:
    """What the nodes of a run did.

    Attributes:
        all: a lane per node, in the order in which they began.
        seconds: how long the run took.
        has_spans: whether it is known what the nodes did, and not only when they ran.
        left_out: how many spans of the run are not known, since there were too many.
    """

    all: Sequence[Lane]
    seconds: float
    has_spans: bool
    left_out: int = 0

    @cached_property
    def shown(self) -> Sequence[Lane]:
        """The lanes that are shown: all, or some that failed and the slowest."""
        if len(self.all) <= MOST_LANES:
            return self.all
        slowest = sorted(self.all, key=_seconds_of, reverse=True)
        chosen = [lane for lane in slowest if lane.status in BAD][:MOST_FAILED]
        for lane in slowest:
            if len(chosen) >= LANES_OF_MANY:
                break
            if lane not in chosen:
                chosen.append(lane)
        return sorted(chosen, key=_start_of)

    @cached_property
    def end(self) -> float:
        """The seconds that are shown: those of the run, or until the end of its last node."""
        return max([self.seconds, *(lane.end for lane in self.all)])

    @cached_property
    def sums(self) -> dict[str, float]:
        """The seconds of all nodes by kind, in the order of ``KINDS``."""
        sums = dict.fromkeys(KINDS, 0.0)
        for lane in self.all:
            for span in lane.spans:
                sums[span.kind] += span.end - span.start
        return {kind: seconds for kind, seconds in sums.items() if seconds > 0}

    @cached_property
    def longest_waits(self) -> list[Wait]:
        """The longest waits, the longest first."""
        waits: list[Wait] = []
        for lane in self.all:
            for span in lane.spans:
                if span.kind in WAITS and span.end - span.start >= LEAST_WAIT_S:
                    waits.append(Wait(lane.name, span))
        return sorted(waits, key=_seconds_of, reverse=True)[:MOST_WAITS]

    @property
    def note(self) -> str:
        """What is not known of what the nodes did; empty if all is."""
        if not self.has_spans:
            return NO_SPANS
        if self.left_out:
            spans = counted(self.left_out, "later span")
            return f"{spans} left out, shown as other work: a run keeps {MOST_SPANS:,}"
        return ""

    def name_kind(self, kind: str) -> str:
        """Name what nodes did."""
        return "running" if kind == "other" and not self.has_spans else NAMES[kind]

    def __str__(self) -> str:
        return f"{counted(len(self.all), 'node')} in {show_seconds(self.seconds)}"


def shorten_name(name: str) -> str:
    """Shorten the name of a node; the end of the name of a sub-run's node says more."""
    if count_columns(name) <= NAME_COLUMNS and len(name) <= 2 * NAME_COLUMNS:
        return name
    return "..." + name[3 - NAME_COLUMNS :]


def _seconds_of(one: Lane | Wait) -> float:
    return one.seconds


def _start_of(lane: Lane) -> float:
    return lane.start
