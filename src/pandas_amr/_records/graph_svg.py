"""A graph as SVG: levels from top to bottom, boxes that say what became of a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pandas_amr._records import svg
from pandas_amr._records.graph_fold import STATUSES, Fold, describe_form, describe_node, fold
from pandas_amr._records.html import element

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._records.graph import Graph, GraphNode
    from pandas_amr._records.graph_fold import Box, Edge, Folded
    from pandas_amr._records.html import Html

WIDTH = 960.0  # at most
LEAST_WIDTH = 340.0  # for the legend
MARGIN, GAP_X, GAP_Y = 12.0, 8.0, 46.0
BOX_WIDTH, BOX_HEIGHT = 148.0, 48.0
FOLD_WIDTH = 236.0
FOLD_SHADOW = 3.0  # of the sheets behind a box that stands for many
INSET = 2.5  # of a dashed line in a frame
LINE_HEIGHT, FIRST_LINE, INDENT = 14.0, 15.0, 7.0
NAME_SIZE, FIGURE_SIZE = 11.0, 10.0
LEGEND_HEIGHT = 22.0
SWATCH = 12.0
TITLE_PARENTS = 5

# By status if a node did not end well, else by type.
FILLS = {
    "plan": "#e6e6e6",
    "map": "#cfe3f7",
    "reduce": "#d5ecd0",
    "final-reduce": "#aedba3",
    "direct": "#aedba3",
    "compute": "#f5ecb8",
    "recalled": "#e3d9f2",
    "failed": "#f6c4be",
    "cancelled": "#f6c4be",
    "partial": "#fbdca6",
    "passed": "#f4f4f4",
    "running": "#ffffff",
}
STROKES = {"failed": "#c0392b", "cancelled": "#c0392b", "partial": "#b9770e"}
SINGULAR = {
    "plan": "plan",
    "map": "map",
    "reduce": "reduce",
    "final-reduce": "final reduce",
    "direct": "direct answer",
    "compute": "computed",
    "recalled": "found before",
}


class _Line(NamedTuple):
    """How an edge is drawn; edges that are drawn alike are one path."""

    is_critical: bool = False
    about: bool = False
    is_joined: bool = False


def draw_svg(graph: Graph) -> str:
    """Draw a graph."""
    return _Drawing(fold(graph)).draw(repr(graph).strip("<>"))


class _Drawing:
    """A drawing of rows of boxes.

    Args:
        folded: what is drawn.
    """

    def __init__(self, folded: Folded) -> None:
        self._folded = folded
        # Of each box: where it begins, how wide and how high it is.
        self._places: dict[str, tuple[float, float, float, float]] = {}
        widths = [sum(_widths(row)) + GAP_X * (len(row) - 1) for row in folded.rows]
        self._width = max([LEAST_WIDTH, *widths]) + 2 * MARGIN
        y = MARGIN
        for row in folded.rows:
            y = self._place_row(row, y) + GAP_Y
        self._bottom = y - GAP_Y if folded.rows else MARGIN

    def _place_row(self, row: Sequence[Box], y: float) -> float:
        """Place the boxes of a row in the middle; return where the row ends."""
        widths = _widths(row)
        x = (self._width - sum(widths) - GAP_X * (len(row) - 1)) / 2
        height = max(map(_height, row))
        for box, width in zip(row, widths, strict=True):
            self._places[box.id] = (x, y, width, _height(box))
            x += width + GAP_X
        return y + height

    def draw(self, label: str) -> str:
        """Draw all: edges first, so that boxes stand before them."""
        boxes = [box for row in self._folded.rows for box in row]
        content = self._draw_edges(self._folded.edges)
        content += [self._draw_box(box) for box in boxes]
        content += self._draw_legend(boxes)
        return svg.picture(self._width, self._bottom, f"Graph of a run: {label}", content)

    # -- boxes

    def _draw_box(self, box: Box) -> Html:
        if isinstance(box, Fold):
            return self._draw_fold(box)
        x, y, width, height = self._places[box.id]
        frame = _draw_frame(x, y, width, height, _fill(box), box)
        return svg.group(_title(box), *frame, _draw_lines(x, y, width, height, describe_node(box)))

    def _draw_fold(self, box: Fold) -> Html:
        x, y, width, height = self._places[box.id]
        fill = _fill_of_fold(box)
        sheets: list[Html] = []
        for sheet in (2, 1):
            shift = sheet * FOLD_SHADOW
            sheets += _draw_frame(x + shift, y + shift, width, height, fill, box)[:1]
        frame = _draw_frame(x, y, width, height, fill, box)
        lines = _draw_lines(x, y, width, height, [[line] for line in box.lines])
        return svg.group("\n".join(box.lines), *sheets, *frame, lines)

    # -- edges

    def _draw_edges(self, edges: Sequence[Edge]) -> list[Html]:
        """Draw all edges of a kind as one path; those of the critical path last, on top."""
        paths: dict[_Line, list[str]] = {}
        for edge in edges:
            line = _Line(edge.is_critical, edge.about, edge.count > 1)
            paths.setdefault(line, []).append(self._bend(edge))
        return [_draw_path("".join(paths[line]), line) for line in sorted(paths)]

    def _bend(self, edge: Edge) -> str:
        x, y, width, height = self._places[edge.start]
        to_x, to_y, to_width, _ = self._places[edge.end]
        x, y, to_x = x + width / 2, y + height, to_x + to_width / 2
        middle = (y + to_y) / 2
        return (
            f"M{x:.0f} {y:.0f}C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y:.0f}"
        )

    # -- legend

    def _draw_legend(self, boxes: Sequence[Box]) -> list[Html]:
        """Explain the colours and lines that are there; set how far down it goes."""
        x, y = MARGIN, self._bottom + MARGIN
        drawn: list[Html] = []
        for entry in _list_entries(boxes, self._folded.edges):
            if x > MARGIN and x + entry.width > self._width:
                x, y = MARGIN, y + LEGEND_HEIGHT
            drawn += entry.draw(x, y)
            x += entry.width
        self._bottom = y + LEGEND_HEIGHT
        return drawn


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the legend: a colour of boxes, or a line."""

    name: str
    key: str = ""
    line: _Line | None = None

    @property
    def width(self) -> float:
        """How much room it takes."""
        return SWATCH + 20 + len(self.name) * NAME_SIZE * svg.CHARACTER_WIDTH

    def draw(self, x: float, y: float) -> list[Html]:
        """Draw it."""
        name = svg.text(x + SWATCH + 6, y + 10, self.name, fill=svg.NOTE)
        if self.line is not None:
            return [_draw_path(f"M{x:.0f} {y + 6:.0f}h{SWATCH + 2:.0f}", self.line), name]
        stroke = STROKES.get(self.key, svg.LINE)
        return [svg.box(x, y, SWATCH, SWATCH, fill=FILLS[self.key], stroke=stroke, rx="2"), name]


def _list_entries(boxes: Sequence[Box], edges: Sequence[Edge]) -> list[_Entry]:
    """List what is to be explained."""
    entries = [_Entry(SINGULAR.get(key) or STATUSES[key], key) for key in _keys_of(boxes)]
    if any(edge.is_critical for edge in edges):
        entries.append(_Entry("took longest", line=_Line(is_critical=True)))
    if any(box.about for box in boxes):
        entries.append(_Entry("depends on what is found", line=_Line(about=True)))
    return entries


def _widths(row: Sequence[Box]) -> list[float]:
    """Return how wide the boxes of a row are: narrower if they are many."""
    folds = sum(isinstance(box, Fold) for box in row)
    nodes = len(row) - folds
    room = WIDTH - 2 * MARGIN - folds * FOLD_WIDTH - GAP_X * (len(row) - 1)
    width = min(BOX_WIDTH, room / max(1, nodes))
    return [FOLD_WIDTH if isinstance(box, Fold) else width for box in row]


def _height(box: Box) -> float:
    if not isinstance(box, Fold):
        return BOX_HEIGHT
    return FIRST_LINE + LINE_HEIGHT * (len(box.lines) - 1) + 7


def _fill(node: GraphNode) -> str:
    return FILLS.get(_key_of(node), "#ffffff")


def _key_of(node: GraphNode) -> str:
    """Return what gives a node its colour."""
    return node.status if node.status in FILLS else node.type


def _fill_of_fold(box: Fold) -> str:
    types = {node.type for node in box.nodes}
    return FILLS.get(types.pop(), "#ffffff") if len(types) == 1 else "#efefef"


def _keys_of(boxes: Sequence[Box]) -> list[str]:
    """List the colours of the boxes, in the order of ``FILLS``."""
    keys: set[str] = set()
    for box in boxes:
        if isinstance(box, Fold):
            keys |= {node.type for node in box.nodes}
        else:
            keys.add(_key_of(box))
    return [key for key in FILLS if key in keys]


def _draw_frame(x: float, y: float, width: float, height: float, fill: str, box: Box) -> list[Html]:
    """Draw the frame of a box; that of what may not be there has a dashed line in it."""
    status = "" if isinstance(box, Fold) else box.status
    stroke, stroke_width = STROKES.get(status, svg.LINE), "2" if status in STROKES else None
    place = (x, y, width, height)
    frame = svg.box(*place, fill=fill, rx="5", stroke=stroke, stroke_width=stroke_width)
    if not box.about:
        return [frame]
    inside = (x + INSET, y + INSET, width - 2 * INSET, height - 2 * INSET)
    dashes = svg.box(*inside, fill="none", rx="3", stroke=svg.DASHES, stroke_dasharray="4 3")
    return [frame, dashes]


def _draw_lines(
    x: float, y: float, width: float, height: float, lines: Sequence[Sequence[str]]
) -> Html:
    """Write the lines of a box, each in the words that fit; what does not fit is cut off."""
    room = width - 2 * INDENT + 2
    drawn: list[Html] = []
    for number, variants in enumerate(filter(None, lines)):
        size = FIGURE_SIZE if number else NAME_SIZE
        # The end of the name of a sub-run's node says more than the beginning.
        shown = svg.fit_first(variants, room, size, keep_end=number == 0)
        at = FIRST_LINE + number * LINE_HEIGHT
        font = f"{size:.0f}" if number else None
        drawn.append(svg.text(INDENT, at, shown, font_size=font))
    size_of = {"width": f"{width - 2:.1f}", "height": f"{height:.1f}"}
    return element("svg", *drawn, x=f"{x:.1f}", y=f"{y:.1f}", **size_of)


def _draw_path(path: str, line: _Line) -> Html:
    return svg.path(
        path,
        fill="none",
        stroke=svg.EMPHASIS if line.is_critical else svg.LINE,
        stroke_width="2.4" if line.is_critical else "1.7" if line.is_joined else None,
        stroke_dasharray="4 3" if line.about else None,
    )


def _title(node: GraphNode) -> str:
    """Say all figures of a node."""
    _, read, _ = describe_node(node)
    lines = [node.id, SINGULAR.get(node.type, node.type), *read[:1]]
    if node.status and node.type != "recalled":
        begin, end = svg.show_seconds(node.start), svg.show_seconds(node.start + node.seconds)
        lines.append(f"{svg.show_seconds(node.seconds)}, from {begin} to {end}")
    lines += describe_form(node) or ([f"form: {node.form}"] if node.form else [])
    if node.status:
        lines.append(STATUSES.get(node.status, node.status))
    if node.parents:
        shown = ", ".join(node.parents[:TITLE_PARENTS])
        more = len(node.parents) - TITLE_PARENTS
        lines.append(f"after {shown}" + (f" and {more:,} more" if more > 0 else ""))
    return "\n".join(lines)
