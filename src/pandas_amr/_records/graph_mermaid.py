"""A graph as a Mermaid flowchart, for pages that render Mermaid."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pandas_amr._records.graph_fold import Fold, describe_node, fold
from pandas_amr._records.html import show_unprintable
from pandas_amr._records.svg import EMPHASIS

if TYPE_CHECKING:
    from pandas_amr._records.graph import Graph
    from pandas_amr._records.graph_fold import Box

# What could end a label, or begin markup in it, is written as the number of its character.
SPECIAL = re.compile(r"""["'<>&#;`\[\]{}|\\]""")
LABEL_CHARACTERS = 120


def draw_mermaid(graph: Graph) -> str:
    """Draw a graph; the same boxes as in SVG, and edges by which nodes fed others."""
    folded = fold(graph)
    boxes = [box for row in folded.rows for box in row]
    names = {box.id: f"n{number}" for number, box in enumerate(boxes)}
    lines = ["flowchart TD"]
    lines += [f"  {names[box.id]}{_draw_box(box)}" for box in boxes]
    critical: list[str] = []
    for number, edge in enumerate(folded.edges):
        arrow = "-.->" if edge.about else "-->"
        lines.append(f"  {names[edge.start]} {arrow} {names[edge.end]}")
        if edge.is_critical:
            critical.append(str(number))
    if critical:
        lines.append(f"  linkStyle {','.join(critical)} stroke:{EMPHASIS},stroke-width:3px")
    return "\n".join(lines)


def _draw_box(box: Box) -> str:
    if isinstance(box, Fold):
        return f'(["{_label(box.lines)}"])'
    lines = [variants[0] for variants in describe_node(box) if variants]
    return f'["{_label(lines)}"]'


def _label(lines: list[str]) -> str:
    return "<br/>".join(_escape(line) for line in lines)


def _escape(line: str) -> str:
    shown = " ".join(show_unprintable(line[:LABEL_CHARACTERS]).split())
    return SPECIAL.sub(_show_code, shown)


def _show_code(match: re.Match[str]) -> str:
    return f"#{ord(match.group())};"
