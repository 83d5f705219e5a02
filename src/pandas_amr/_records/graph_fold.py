"""What a drawing of a graph shows: boxes of single nodes, and boxes that stand for many."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from pandas_amr._records.counts import noun_for
from pandas_amr._records.svg import show_count, show_seconds

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from pandas_amr._records.graph import Graph, GraphNode

SHOWN_PER_ROW = 12
SHOWN_BESIDE_FOLD = 6  # of a row with more nodes
MOST_ROWS = 16  # of levels; those in the middle are one box

WELL = frozenset({"", "ok"})
BAD = frozenset({"failed", "cancelled"})
KINDS = {
    "plan": "plans",
    "map": "maps",
    "reduce": "reduces",
    "final-reduce": "final reduces",
    "direct": "direct answers",
    "compute": "computed",
    "recalled": "recalled",
}
STATUSES = {
    "ok": "ok",
    "partial": "partial",
    "failed": "failed",
    "cancelled": "cancelled",
    "passed": "passed on",
    "running": "running",
}


@dataclass(frozen=True)
class Fold:
    """Nodes that one box stands for.

    Attributes:
        id: of the box.
        nodes: those that are not drawn alone.
        levels: how many levels these are of.
    """

    id: str
    nodes: tuple[GraphNode, ...]
    levels: int = 1

    @cached_property
    def lines(self) -> list[str]:
        """What the box says: how many, what became of them, how much they read, and when."""
        lines = [self._count(), self._kinds(), self._statuses(), self._figures(), *self._times()]
        return [line for line in lines if line]

    def _count(self) -> str:
        count = f"{len(self.nodes):,}"
        if self.levels > 1:
            return f"{self.levels} levels: {count} nodes"
        return f"and {count} more"

    def _kinds(self) -> str:
        """Say how many nodes there are of each kind; empty if all are of one."""
        kinds = Counter(node.type for node in self.nodes)
        if len(kinds) == 1:
            return ""
        names: list[str] = []
        for kind, count in kinds.items():
            several = KINDS.get(kind, kind)
            noun = noun_for(count, several.removesuffix("s"), several)
            names.append(f"{show_count(count)} {noun}")
        return ", ".join(names)

    def _statuses(self) -> str:
        counts = Counter(node.status for node in self.nodes if node.status)
        parts: list[str] = []
        for status, name in STATUSES.items():
            count = counts[status]
            if count:
                parts.append(f"{show_count(count)} {name}")
        return ", ".join(parts)

    def _figures(self) -> str:
        units = sum(node.units for node in self.nodes)
        tokens = sum(node.tokens for node in self.nodes)
        types = {node.type for node in self.nodes}
        figures = _count_units(units, types)
        if self.about:
            figures = f"about {figures}"
        if tokens:
            figures = f"{figures}, {_count_tokens(tokens)}"
        return figures

    def _times(self) -> tuple[str, ...]:
        if not any(node.status for node in self.nodes):
            return ()
        shortest = show_seconds(min(node.seconds for node in self.nodes))
        longest = show_seconds(max(node.seconds for node in self.nodes))
        start = show_seconds(min(node.start for node in self.nodes))
        end = show_seconds(max(node.start + node.seconds for node in self.nodes))
        return f"{shortest} to {longest} each", f"from {start} to {end}"

    @cached_property
    def about(self) -> bool:
        """Whether what is found decides if there will be such nodes."""
        return any(node.about for node in self.nodes)


Box: TypeAlias = "GraphNode | Fold"


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge between two boxes.

    Attributes:
        count: for how many edges between nodes it stands.
        is_critical: whether it is one of the chain that took longest.
        about: whether what is found decides if there will be such an edge.
    """

    start: str
    end: str
    count: int
    is_critical: bool
    about: bool


@dataclass(frozen=True, slots=True)
class Folded:
    """What is drawn: rows of boxes from top to bottom, and the edges between boxes."""

    rows: list[list[Box]]
    edges: list[Edge]


def fold(graph: Graph) -> Folded:
    """Choose what is drawn of a graph.

    In a level with too many nodes those of the critical path come first, then those that did not
    end well, then those that took longest. Each node stands below its parents, so that few edges
    cross.
    """
    path = graph.critical_path
    on_path = frozenset(path)
    places: dict[str, float] = {}  # of each node in its row, from 0 to 1
    rows: list[list[Box]] = []
    for nodes in _list_levels(graph.nodes):
        row = sorted(nodes, key=partial(_middle_of_parents, places=places))
        for place, node in enumerate(row):
            places[node.id] = place / len(row)
        rows.append(_fold_row(row, on_path, f"fold-{len(rows)}"))
    return Folded(rows, _draw_edges(graph.nodes, rows, path))


def _list_levels(nodes: Sequence[GraphNode]) -> list[list[GraphNode]]:
    """List the nodes of each level; if there are too many, those in the middle as one."""
    by_level: dict[int, list[GraphNode]] = {}
    for node in nodes:
        by_level.setdefault(node.level, []).append(node)
    levels = [by_level[level] for level in sorted(by_level)]
    if len(levels) <= MOST_ROWS:
        return levels
    first = MOST_ROWS // 2
    last = len(levels) - (MOST_ROWS - first - 1)
    middle: list[GraphNode] = []
    for level in levels[first:last]:
        middle += level
    return [*levels[:first], middle, *levels[last:]]


def _fold_row(nodes: list[GraphNode], path: frozenset[str], name: str) -> list[Box]:
    """Draw nodes of a row alone, and fold the others into one box of that name."""
    levels = len({node.level for node in nodes})
    if levels > 1:
        return [Fold(name, tuple(nodes), levels)]
    if len(nodes) <= SHOWN_PER_ROW:
        return list(nodes)
    ranked = sorted(nodes, key=partial(_display_rank, path=path))
    first = {id(node) for node in ranked[:SHOWN_BESIDE_FOLD]}
    boxes: list[Box] = []
    folded: list[GraphNode] = []
    for node in nodes:
        if id(node) in first:
            boxes.append(node)
        else:
            folded.append(node)
    return [*boxes, Fold(name, tuple(folded))]


def _middle_of_parents(node: GraphNode, *, places: Mapping[str, float]) -> float:
    parents = [places[parent] for parent in node.parents if parent in places]
    if not parents:
        return 0.0
    return sum(parents) / len(parents)


def _display_rank(node: GraphNode, *, path: Container[str]) -> tuple[bool, bool, bool, float]:
    return node.id not in path, node.status not in BAD, node.status in WELL, -node.seconds


def _draw_edges(
    nodes: Sequence[GraphNode], rows: Sequence[Sequence[Box]], path: Sequence[str]
) -> list[Edge]:
    """Join the edges between nodes that stand in the same boxes; a box has none to itself."""
    box_of = _name_boxes(rows)
    on_path = set(pairwise(path))
    counts: Counter[tuple[str, str]] = Counter()
    critical: set[tuple[str, str]] = set()
    about: set[tuple[str, str]] = set()
    for node in nodes:
        end = box_of[node.id]
        for parent in node.parents:
            start = box_of.get(parent)
            if start is None or start == end:
                continue
            ends = (start, end)
            counts[ends] += 1
            if (parent, node.id) in on_path:
                critical.add(ends)
            if node.about:
                about.add(ends)
    return [Edge(*ends, count, ends in critical, ends in about) for ends, count in counts.items()]


def _name_boxes(rows: Sequence[Sequence[Box]]) -> dict[str, str]:
    """Return the box in which each node stands."""
    box_of: dict[str, str] = {}
    for row in rows:
        for box in row:
            nodes = box.nodes if isinstance(box, Fold) else (box,)
            for node in nodes:
                box_of[node.id] = box.id
    return box_of


def describe_node(node: GraphNode) -> list[list[str]]:
    """Say what a node is: its name, what it read, how it ended; each also in fewer words."""
    # Of a group's node the number says more than what all of them do.
    names = list(dict.fromkeys([node.id, node.id.replace("-final-reduce", "-final")]))
    return [names, _describe_input(node), _describe_end(node)]


def _describe_input(node: GraphNode) -> list[str]:
    """Say what a node read; nothing if nobody knows."""
    if node.about and not node.units:
        return []
    units = _count_units(node.units, {node.type})
    if node.about:
        units = f"about {units}"
    variants = [units]
    if node.tokens:
        variants.insert(0, f"{units}, {_count_tokens(node.tokens)}")
    if node.about:
        variants.append(f"~ {show_count(node.units)}")
    return variants


def _count_units(number: int, types: set[str]) -> str:
    noun = "unit" if types <= {"map", "direct", "recalled"} else "input"
    return f"{show_count(number)} {noun_for(number, noun)}"


def _count_tokens(number: int) -> str:
    return f"{show_count(number)} {noun_for(number, 'token')}"


def _describe_end(node: GraphNode) -> list[str]:
    """Say how a node ended; in fewer words, what is most remarkable of that."""
    end = describe_form(node)
    if node.status not in WELL:
        end.insert(0, STATUSES.get(node.status, node.status))
    if node.status and node.type != "recalled":
        end.append(show_seconds(node.seconds))
    return [", ".join(end[:count]) for count in range(len(end), 0, -1)]


def describe_form(node: GraphNode) -> list[str]:
    """Say who made what a node gives, if no agent did."""
    return [FORMS[node.form]] if node.form in FORMS else []


FORMS = {
    "pandas": "by pandas",
    "function": "by a function",
    "recipe": "by a recipe",
    "journal": "from the journal",
    "result": "found before",
}
