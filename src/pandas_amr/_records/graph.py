"""The graph of a run: what fed what and how long it took, as JSON, Mermaid or SVG."""

from __future__ import annotations

import html
import itertools
import json
from dataclasses import asdict, dataclass
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

from pandas_amr._records.public import public

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    import pandas as pd

Mode = Literal["static", "adaptive", "direct", "map"]
SHOWN_PER_LEVEL = 12
BOX_WIDTH, BOX_HEIGHT = 118, 34
GAP_X, GAP_Y = 14, 58
STEP_X, STEP_Y = BOX_WIDTH + GAP_X, BOX_HEIGHT + GAP_Y
NAME_CHARACTERS = 19
COLOURS = {
    "plan": "#e8e8e8",
    "map": "#cfe3f7",
    "reduce": "#d8efd3",
    "final-reduce": "#b8e0b0",
    "direct": "#b8e0b0",
    "failed": "#f5c6c2",
    "partial": "#fbe3b5",
    "passed": "#ffffff",
    "cancelled": "#f5c6c2",
}


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One node: ``seconds`` and ``status`` are those of the run, or empty before it."""

    id: str
    type: str
    level: int
    parents: tuple[str, ...]
    units: int
    tokens: int = 0
    start: float = 0.0
    seconds: float = 0.0
    status: str = ""


@public
@dataclass(frozen=True)
class Graph:
    """The nodes of a run, and what follows from them.

    Attributes:
        mode: how it reduces: ``static``, ``adaptive``, ``direct``; ``map`` if no agent reduces.
        nodes: in the order in which they began.
    """

    mode: Mode
    nodes: tuple[GraphNode, ...]

    @property
    def levels(self) -> list[dict[str, Any]]:
        """One dict per level, the maps first: ``level nodes units tokens seconds``.

        The seconds are those from the first start of the level to its last end.
        """
        numbers = {node.level for node in self.nodes if node.level >= 0}
        return [self._level_figures(level) for level in sorted(numbers)]

    def _level_figures(self, level: int) -> dict[str, Any]:
        nodes = [node for node in self.nodes if node.level == level]
        start = min(node.start for node in nodes)
        end = max(node.start + node.seconds for node in nodes)
        return {
            "level": level,
            "nodes": len(nodes),
            "units": sum(node.units for node in nodes),
            "tokens": sum(node.tokens for node in nodes),
            "seconds": end - start,
        }

    @property
    def critical_path(self) -> list[str]:
        """The ids of the chain of nodes that took longest, from a map to the end."""
        seconds: dict[str, float] = {}  # of the longest chain that ends at a node
        before: dict[str, str | None] = {}
        for node in sorted(self.nodes, key=attrgetter("level")):
            parents = [parent for parent in node.parents if parent in seconds]
            longest = max(parents, key=seconds.__getitem__, default=None)
            before[node.id] = longest
            seconds[node.id] = node.seconds
            if longest is not None:
                seconds[node.id] += seconds[longest]
        path: list[str] = []
        last = max(seconds, key=seconds.__getitem__, default=None)
        while last is not None:
            path.insert(0, last)
            last = before[last]
        return path

    def to_json(self) -> str:
        """Give mode, levels, critical path and nodes as JSON."""
        content = {
            "mode": self.mode,
            "levels": self.levels,
            "critical_path": self.critical_path,
            "nodes": [asdict(node) for node in self.nodes],
        }
        return json.dumps(content, indent=2)

    def to_mermaid(self) -> str:
        """Give a Mermaid flowchart; wide levels are shortened."""
        nodes, hidden = self._visible_nodes()
        names = {node.id: f"n{number}" for number, node in enumerate(nodes)}
        lines = ["flowchart TD"]
        for node in nodes:
            label = f"{node.id}<br/>{_figures(node)}".replace('"', "'")
            lines.append(f'  {names[node.id]}["{label}"]')
        for level, count in hidden.items():
            lines.append(f"  more{level}([and {count} more])")
        for node in nodes:
            parents = [names[parent] for parent in node.parents if parent in names]
            lines += [f"  {parent} --> {names[node.id]}" for parent in parents]
        return "\n".join(lines)

    def to_svg(self) -> str:
        """Draw the levels from top to bottom; the critical path has thick lines."""
        nodes, hidden = self._visible_nodes()
        return _Drawing(nodes, hidden).to_svg(set(itertools.pairwise(self.critical_path)))

    def _visible_nodes(self) -> tuple[list[GraphNode], dict[int, int]]:
        """Choose the nodes to draw; also give how many are hidden, by level.

        In a level with too many nodes those of the critical path come first, then those that did
        not end well. Each node stands below its parents, so that few edges cross.
        """
        path = set(self.critical_path)
        visible: list[GraphNode] = []
        hidden: dict[int, int] = {}
        places: dict[str, float] = {}
        for level in sorted({node.level for node in self.nodes}):
            row = [node for node in self.nodes if node.level == level]
            row.sort(key=partial(_middle_of_parents, places=places))
            places |= {node.id: place for place, node in enumerate(row)}
            first = sorted(row, key=partial(_display_rank, path=path))[:SHOWN_PER_LEVEL]
            visible += [node for node in row if node in first]
            if len(row) > len(first):
                hidden[level] = len(row) - len(first)
        return visible, hidden

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        del options
        return {
            "image/svg+xml": self.to_svg(),
            "text/vnd.mermaid": self.to_mermaid(),
            "text/plain": repr(self),
        }

    def __repr__(self) -> str:
        shape = " -> ".join(str(level["nodes"]) for level in self.levels)
        return f"<Graph {self.mode}: {shape}>"


def _middle_of_parents(node: GraphNode, *, places: Mapping[str, float]) -> float:
    parents = [places[parent] for parent in node.parents if parent in places]
    if not parents:
        return 0.0
    return sum(parents) / len(parents)


def _display_rank(node: GraphNode, *, path: Container[str]) -> tuple[bool, bool]:
    return node.id not in path, node.status == "ok"


def _figures(node: GraphNode) -> str:
    figures = [f"{node.units} in"]
    if node.seconds:
        figures.append(f"{node.seconds:.2f} s")
    if node.status not in {"", "ok"}:
        figures.append(node.status)
    return ", ".join(figures)


# -- SVG -------------------------------------------------------------------------------------------


class _Drawing:
    """An SVG drawing of nodes that are sorted by level.

    Args:
        nodes: those to draw.
        hidden: how many nodes of a level are not drawn.
    """

    def __init__(self, nodes: Sequence[GraphNode], hidden: Mapping[int, int]) -> None:
        self._nodes = nodes
        self._hidden = hidden
        self._places: dict[str, tuple[float, float]] = {}
        self._rows: dict[int, list[GraphNode]] = {}
        for node in nodes:
            self._rows.setdefault(node.level, []).append(node)
        columns = [self._columns(level) for level in self._rows]
        self._width = max(columns, default=1) * STEP_X + GAP_X
        self._height = 2 * GAP_X + len(self._rows) * STEP_Y - GAP_Y

    def _columns(self, level: int) -> int:
        """Count the columns of a level: its nodes, and the text that tells of hidden ones."""
        return len(self._rows[level]) + (level in self._hidden)

    def to_svg(self, thick_edges: Container[tuple[str, str]]) -> str:
        """Draw all; ``thick_edges`` has the parent and child of each edge of the critical path."""
        boxes: list[str] = []
        for number, level in enumerate(self._rows):
            boxes += self._draw_row(level, GAP_X + number * STEP_Y)
        edges = self._draw_edges(thick_edges)
        width, height = f"{self._width:.0f}", f"{self._height:.0f}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">'
            f"{''.join(edges)}{''.join(boxes)}</svg>"
        )

    def _draw_row(self, level: int, y: float) -> list[str]:
        boxes: list[str] = []
        x = (self._width - self._columns(level) * STEP_X + GAP_X) / 2
        for node in self._rows[level]:
            self._places[node.id] = (x, y)
            boxes.append(_draw_box(node, x, y))
            x += STEP_X
        if level in self._hidden:
            label = f"and {self._hidden[level]} more"
            boxes.append(f'<text x="{x + 8}" y="{y + BOX_HEIGHT / 2 + 4}">{label}</text>')
        return boxes

    def _draw_edges(self, thick_edges: Container[tuple[str, str]]) -> list[str]:
        edges: list[str] = []
        for node in self._nodes:
            for parent in node.parents:
                if parent in self._places:
                    start, end = self._places[parent], self._places[node.id]
                    is_thick = (parent, node.id) in thick_edges
                    edges.append(_draw_edge(start, end, thick=is_thick))
        return edges


def _draw_box(node: GraphNode, x: float, y: float) -> str:
    colour = COLOURS.get(node.status) or COLOURS.get(node.type, "#ffffff")
    title = html.escape(f"{node.id}: {_figures(node)}, {node.tokens} tokens")
    name = html.escape(_shorten_name(node.id))
    figures = html.escape(_figures(node)[:22])
    return (
        f'<g><title>{title}</title><rect x="{x:.1f}" y="{y:.1f}" '
        f'width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5" fill="{colour}" stroke="#888"/>'
        f'<text x="{x + 6:.1f}" y="{y + 14:.1f}">{name}</text>'
        f'<text x="{x + 6:.1f}" y="{y + 27:.1f}" fill="#555">{figures}</text></g>'
    )


def _shorten_name(name: str) -> str:
    """Shorten a node's name to its box. The end of the name of a sub-run's node says more."""
    if len(name) <= NAME_CHARACTERS:
        return name
    return "…" + name[1 - NAME_CHARACTERS :]


def _draw_edge(start: tuple[float, float], end: tuple[float, float], *, thick: bool) -> str:
    x, y = start[0] + BOX_WIDTH / 2, start[1] + BOX_HEIGHT
    to_x, to_y = end[0] + BOX_WIDTH / 2, end[1]
    middle = (y + to_y) / 2
    stroke = 'stroke="#b03030" stroke-width="2"' if thick else 'stroke="#aaa"'
    bend = f"M{x:.1f} {y:.1f} C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"
    return f'<path d="{bend}" fill="none" {stroke}/>'


# -- graphs of runs and of plans -------------------------------------------------------------------


def graph_of(trace: pd.DataFrame, *, static: bool) -> Graph:
    """Make the graph of a run from its trace."""
    nodes = tuple(_node_of(row) for row in trace.to_dict("records"))
    types = {node.type for node in nodes}
    mode: Mode = "map"
    if "direct" in types:
        mode = "direct"
    elif types & {"reduce", "final-reduce"}:
        mode = "static" if static else "adaptive"
    return Graph(mode, nodes)


def _node_of(row: Mapping[Any, Any]) -> GraphNode:
    return GraphNode(
        id=str(row["id"]),
        type=str(row["type"]),
        level=int(row["level"]),
        parents=tuple(row["parents"]),
        units=int(row["units"]),
        tokens=int(row["tokens"]),
        start=float(row["start"]),
        seconds=float(row["seconds"]),
        status=str(row["status"]),
    )


def graph_of_shape(
    sizes: Sequence[int], fan_in: int, units: Sequence[int], maps: Sequence[str | None] = (None,)
) -> Graph:
    """Make the graph of a static tree before its run.

    Args:
        sizes: nodes per level, the maps first.
        fan_in: how many nodes one reducer reads.
        units: of each shard.
        maps: names of the maps; each maps every shard.
    """
    nodes: list[GraphNode] = []
    inputs: list[list[str]] = []  # of the next level: node ids, those of one shard together
    for number, size in enumerate(units, start=1):
        maps_of_shard = [_map_node(name, number, size) for name in maps]
        nodes += maps_of_shard
        inputs.append([node.id for node in maps_of_shard])
    final_level = len(sizes) - 1
    for level in range(1, final_level):
        reducers = _reduce_level(level, sizes[level], inputs, fan_in)
        nodes += reducers
        inputs = [[node.id] for node in reducers]
    if final_level >= 1:
        nodes.append(_reduce_node("final-reduce", "final-reduce", final_level, inputs))
    return Graph("static", tuple(nodes))


def _map_node(name: str | None, number: int, units: int) -> GraphNode:
    node_id = f"map-{number}" if name is None else f"map-{name}-{number}"
    return GraphNode(node_id, "map", 0, (), units)


def _reduce_level(
    level: int, size: int, inputs: Sequence[Sequence[str]], fan_in: int
) -> list[GraphNode]:
    nodes: list[GraphNode] = []
    for number in range(size):
        group = inputs[number * fan_in : (number + 1) * fan_in]
        nodes.append(_reduce_node(f"reduce-{level}-{number}", "reduce", level, group))
    return nodes


def _reduce_node(name: str, type: str, level: int, inputs: Sequence[Sequence[str]]) -> GraphNode:
    parents = tuple(itertools.chain.from_iterable(inputs))
    return GraphNode(name, type, level, parents, len(parents))
