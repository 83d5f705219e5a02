"""A run's graph: what fed what, how long it took, and how it is shown: JSON, Mermaid, SVG."""

from __future__ import annotations

import html
import itertools
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from pandas_amr._records.public import public

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

Mode = Literal["static", "adaptive", "direct", "map"]
SHOWN_A_LEVEL = 12
BOX = (118, 34)
GAP = (14, 58)
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
    """One box: ``seconds`` and ``status`` are those of the run, or empty before it."""

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
        mode: how it reduces: ``static``, ``adaptive``, ``direct``; ``map`` where no agent reduces.
        nodes: in the order in which they began.
    """

    mode: Mode
    nodes: tuple[GraphNode, ...]

    @property
    def levels(self) -> list[dict[str, Any]]:
        """A dict a level, the maps first: ``level nodes units tokens seconds``; its seconds from first to last."""
        told = []
        for level in sorted({node.level for node in self.nodes if node.level >= 0}):
            part = [node for node in self.nodes if node.level == level]
            end = max(node.start + node.seconds for node in part)
            told.append(
                {
                    "level": level,
                    "nodes": len(part),
                    "units": sum(node.units for node in part),
                    "tokens": sum(node.tokens for node in part),
                    "seconds": end - min(node.start for node in part),
                }
            )
        return told

    @property
    def critical_path(self) -> list[str]:
        """The chain of nodes that took longest, from a map to the end: ids."""
        known = {node.id: node for node in self.nodes}
        cost: dict[str, float] = {}
        before: dict[str, str | None] = {}
        for node in sorted(self.nodes, key=lambda one: one.level):
            parents = [parent for parent in node.parents if parent in cost]
            longest = max(parents, key=lambda parent: cost[parent], default=None)
            before[node.id] = longest
            cost[node.id] = known[node.id].seconds + (cost[longest] if longest is not None else 0.0)
        path: list[str] = []
        last = max(cost, key=lambda name: cost[name], default=None)
        while last is not None:
            path.insert(0, last)
            last = before[last]
        return path

    def to_json(self) -> str:
        """Mode, levels, critical path and nodes as JSON."""
        told = {
            "mode": self.mode,
            "levels": self.levels,
            "critical_path": self.critical_path,
            "nodes": [asdict(node) for node in self.nodes],
        }
        return json.dumps(told, indent=2)

    def to_mermaid(self) -> str:
        """A Mermaid flowchart; of wide levels the beginning."""
        shown, hidden = self._shown()
        names = {node.id: f"n{number}" for number, node in enumerate(shown)}
        lines = ["flowchart TD"]
        for node in shown:
            label = f"{node.id}<br/>{_figures(node)}".replace('"', "'")
            lines.append(f'  {names[node.id]}["{label}"]')
        lines += [f"  more{level}([and {count} more])" for level, count in hidden.items()]
        lines += [
            f"  {names[parent]} --> {names[node.id]}"
            for node in shown
            for parent in node.parents
            if parent in names
        ]
        return "\n".join(lines)

    def to_svg(self) -> str:
        """A drawing: levels from top to bottom, boxes by kind and status, the critical path drawn thick."""
        shown, hidden = self._shown()
        levels = sorted({node.level for node in shown})
        places: dict[str, tuple[float, float]] = {}
        widths = {
            level: sum(node.level == level for node in shown) + (level in hidden)
            for level in levels
        }
        width = max(widths.values(), default=1) * (BOX[0] + GAP[0]) + GAP[0]
        parts: list[str] = []
        for row, level in enumerate(levels):
            y = GAP[0] + row * (BOX[1] + GAP[1])
            left = (width - widths[level] * (BOX[0] + GAP[0]) + GAP[0]) / 2
            for number, node in enumerate(node for node in shown if node.level == level):
                x = left + number * (BOX[0] + GAP[0])
                places[node.id] = (x, y)
                parts.append(_box(node, x, y))
            if level in hidden:
                x = left + (widths[level] - 1) * (BOX[0] + GAP[0])
                parts.append(
                    f'<text x="{x + 8}" y="{y + BOX[1] / 2 + 4}">and {hidden[level]} more</text>'
                )
        path = self.critical_path
        steps = set(itertools.pairwise(path))
        edges = [
            _edge(places[parent], places[node.id], thick=(parent, node.id) in steps)
            for node in shown
            for parent in node.parents
            if parent in places
        ]
        height = GAP[0] * 2 + len(levels) * (BOX[1] + GAP[1]) - GAP[1]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" font-family="sans-serif" font-size="11">{"".join(edges)}{"".join(parts)}</svg>'
        )

    def _shown(self) -> tuple[list[GraphNode], dict[int, int]]:
        """The nodes that are drawn, and how many are not, by level. The critical path's are drawn first."""
        path = set(self.critical_path)
        shown: list[GraphNode] = []
        hidden: dict[int, int] = {}
        places: dict[str, float] = {}
        for level in sorted({node.level for node in self.nodes}):
            part = [node for node in self.nodes if node.level == level]
            part.sort(
                key=lambda node: _middle(node, places)
            )  # below what feeds it, so that edges cross little
            places |= {node.id: place for place, node in enumerate(part)}
            kept = sorted(part, key=lambda node: (node.id not in path, node.status == "ok"))[
                :SHOWN_A_LEVEL
            ]
            shown += [node for node in part if node in kept]
            if len(part) > len(kept):
                hidden[level] = len(part) - len(kept)
        return shown, hidden

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


def _middle(node: GraphNode, places: dict[str, float]) -> float:
    above = [places[parent] for parent in node.parents if parent in places]
    return sum(above) / len(above) if above else 0.0


def _figures(node: GraphNode) -> str:
    told = [f"{node.units} in"]
    if node.seconds:
        told.append(f"{node.seconds:.2f} s")
    return ", ".join(told + ([node.status] if node.status not in {"", "ok"} else []))


def _tail(name: str) -> str:
    """A node's name as its box holds it: of one inside other runs, the end."""
    return name if len(name) <= NAME_CHARACTERS else "…" + name[1 - NAME_CHARACTERS :]


def _box(node: GraphNode, x: float, y: float) -> str:
    colour = COLOURS.get(node.status) or COLOURS.get(node.type, "#ffffff")
    title = html.escape(f"{node.id}: {_figures(node)}, {node.tokens} tokens")
    return (
        f'<g><title>{title}</title><rect x="{x:.1f}" y="{y:.1f}" width="{BOX[0]}" height="{BOX[1]}" rx="5" '
        f'fill="{colour}" stroke="#888"/><text x="{x + 6:.1f}" y="{y + 14:.1f}">{html.escape(_tail(node.id))}</text>'
        f'<text x="{x + 6:.1f}" y="{y + 27:.1f}" fill="#555">{html.escape(_figures(node)[:22])}</text></g>'
    )


def _edge(start: tuple[float, float], end: tuple[float, float], *, thick: bool) -> str:
    x, y = start[0] + BOX[0] / 2, start[1] + BOX[1]
    to_x, to_y = end[0] + BOX[0] / 2, end[1]
    middle = (y + to_y) / 2
    stroke = 'stroke="#b03030" stroke-width="2"' if thick else 'stroke="#aaa"'
    bend = f"M{x:.1f} {y:.1f} C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"
    return f'<path d="{bend}" fill="none" {stroke}/>'


def graph_of(trace: pd.DataFrame, *, static: bool) -> Graph:
    """The graph of a run, from its trace."""
    nodes = tuple(
        GraphNode(
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
        for row in trace.to_dict("records")
    )
    kinds = {node.type for node in nodes}
    mode: Mode = "map"
    if "direct" in kinds:
        mode = "direct"
    elif kinds & {"reduce", "final-reduce"}:
        mode = "static" if static else "adaptive"
    return Graph(mode, nodes)


def graph_of_shape(
    sizes: Sequence[int], fan_in: int, units: Sequence[int], maps: Sequence[str | None] = (None,)
) -> Graph:
    """The graph of a static tree before its run; ``units`` of each shard, which each of ``maps`` gets."""
    below: list[list[str]] = []
    nodes: list[GraphNode] = []
    for number, size in enumerate(units, start=1):
        names = [f"map-{number}" if name is None else f"map-{name}-{number}" for name in maps]
        nodes += [GraphNode(name, "map", 0, (), size) for name in names]
        below.append(names)
    for level, size in enumerate(sizes[1:], start=1):
        final = level == len(sizes) - 1
        above: list[list[str]] = []
        for number in range(size):
            fed = below if final else below[number * fan_in : (number + 1) * fan_in]
            parents = tuple(name for part in fed for name in part)
            name = "final-reduce" if final else f"reduce-{level}-{number}"
            nodes.append(
                GraphNode(name, "final-reduce" if final else "reduce", level, parents, len(parents))
            )
            above.append([name])
        below = above
    return Graph("static", tuple(nodes))
