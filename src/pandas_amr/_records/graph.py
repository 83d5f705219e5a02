"""The graph of a run: what fed what and how long it took, as JSON, Mermaid or SVG."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

from pandas_amr._records.public import public

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

Mode = Literal["static", "adaptive", "direct", "map"]
AGENTS = frozenset({"reduce", "final-reduce"})  # types of nodes


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One node: ``seconds`` and ``status`` are those of the run, or empty before it.

    Attributes:
        form: as in the trace: the form of structured output; ``pandas``, ``function`` or ``recipe``
            of what no agent writes; ``journal`` or ``result`` of findings that were there before.
        about: whether what is found decides if there will be such a node.
    """

    id: str
    type: str
    level: int
    parents: tuple[str, ...]
    units: int
    tokens: int = 0
    start: float = 0.0
    seconds: float = 0.0
    status: str = ""
    form: str = ""
    about: bool = False


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
        by_level: dict[int, list[GraphNode]] = {}
        for node in self.nodes:
            if node.level >= 0:
                by_level.setdefault(node.level, []).append(node)
        return [_level_figures(level, by_level[level]) for level in sorted(by_level)]

    @property
    def critical_path(self) -> list[str]:
        """The ids of the chain of nodes that took longest, to the end; empty before a run."""
        seconds: dict[str, float] = {}  # of the longest chain that ends at a node
        before: dict[str, str | None] = {}
        for node in sorted(self.nodes, key=attrgetter("level")):
            parents = [parent for parent in node.parents if parent in seconds]
            longest = max(parents, key=seconds.__getitem__, default=None)
            before[node.id] = longest
            seconds[node.id] = node.seconds
            if longest is not None:
                seconds[node.id] += seconds[longest]
        last = max(seconds, key=seconds.__getitem__, default=None)
        if last is None or not seconds[last]:
            return []
        path: list[str] = []
        while last is not None:
            path.append(last)
            last = before[last]
        return path[::-1]

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
        """Give a Mermaid flowchart; most nodes of a wide level are one box."""
        from pandas_amr._records.graph_mermaid import draw_mermaid  # noqa: PLC0415 (as below)

        return draw_mermaid(self)

    def to_svg(self) -> str:
        """Draw the levels from top to bottom; the critical path has thick lines.

        Most nodes of a wide level are one box, which counts them; those that failed and those of
        the critical path keep boxes of their own, as far as there is room.
        """
        from pandas_amr._records.graph_svg import draw_svg  # noqa: PLC0415 (when it is drawn)

        return draw_svg(self)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        # JupyterLab would prefer Mermaid to SVG, and draw a picture without figures.
        del options
        return {"image/svg+xml": self.to_svg(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        shape = " -> ".join(str(level["nodes"]) for level in self.levels)
        if any(node.about for node in self.nodes):
            shape = f"about {shape}"
        return f"<Graph {self.mode}: {shape}>"


def _level_figures(level: int, nodes: list[GraphNode]) -> dict[str, Any]:
    start = min(node.start for node in nodes)
    end = max(node.start + node.seconds for node in nodes)
    return {
        "level": level,
        "nodes": len(nodes),
        "units": sum(node.units for node in nodes),
        "tokens": sum(node.tokens for node in nodes),
        "seconds": end - start,
    }


def graph_of(trace: pd.DataFrame, *, static: bool) -> Graph:
    """Make the graph of a run from its trace."""
    nodes = tuple(_node_of(row) for row in trace.to_dict("records"))
    return Graph(mode_of({node.type for node in nodes}, static=static), nodes)


def mode_of(types: set[str], *, static: bool) -> Mode:
    """Say how nodes of such types reduce."""
    if "direct" in types:
        return "direct"
    if types & AGENTS:
        return "static" if static else "adaptive"
    return "map"


def _node_of(row: Mapping[Any, Any]) -> GraphNode:
    form = row.get("form")  # results that were saved long ago have none
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
        form=form if isinstance(form, str) else "",
    )
