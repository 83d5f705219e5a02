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
MARGIN = 12.0
GAP_X = 8.0
GAP_Y = 46.0
BOX_WIDTH = 148.0
BOX_HEIGHT = 48.0
FOLD_WIDTH = 236.0
FOLD_SHADOW = 3.0  # of the sheets behind a box that stands for many
INSET = 2.5  # of a dashed line in a frame
LINE_HEIGHT = 14.0
FIRST_LINE = 15.0
INDENT = 7.0
NAME_SIZE = 11.0
FIGURE_SIZE = 10.0
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


class _Place(NamedTuple):
    """Where a box stands, and how large it is."""

    x: float
    y: float
    width: float
    height: float


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
        self._places: dict[str, _Place] = {}
        widths = [_row_width(_widths(row)) for row in folded.rows]
        self._width = max([LEAST_WIDTH, *widths]) + 2 * MARGIN
        self._bottom = MARGIN
        y = MARGIN
        for row in folded.rows:
            self._bottom = self._place_row(row, y)
            y = self._bottom + GAP_Y

    def _place_row(self, row: Sequence[Box], y: float) -> float:
        """Place the boxes of a row in the middle; return where the row ends."""
        widths = _widths(row)
        x = (self._width - _row_width(widths)) / 2
        bottom = y
        for box, width in zip(row, widths, strict=True):
            height = _height(box)
            self._places[box.id] = _Place(x, y, width, height)
            x += width + GAP_X
            bottom = max(bottom, y + height)
        return bottom

    def draw(self, label: str) -> str:
        """Draw all: edges first, so that boxes stand before them."""
        boxes: list[Box] = []
        for row in self._folded.rows:
            boxes += row
        content = self._draw_edges(self._folded.edges)
        for box in boxes:
            content.append(self._draw_box(box))
        content += self._draw_legend(boxes)
        return svg.picture(self._width, self._bottom, f"Graph of a run: {label}", content)

    # -- boxes

    def _draw_box(self, box: Box) -> Html:
        place = self._places[box.id]
        if isinstance(box, Fold):
            return _draw_fold(box, place)
        frame = _draw_frame(place, _fill(box), box)
        lines = _draw_lines(place, describe_node(box))
        return svg.group(_title(box), *frame, lines)

    # -- edges

    def _draw_edges(self, edges: Sequence[Edge]) -> list[Html]:
        """Draw all edges of a kind as one path; those of the critical path last, on top."""
        paths: dict[_Line, list[str]] = {}
        for edge in edges:
            line = _Line(edge.is_critical, edge.about, edge.count > 1)
            paths.setdefault(line, []).append(self._bend(edge))
        return [_draw_path("".join(paths[line]), line) for line in sorted(paths)]

    def _bend(self, edge: Edge) -> str:
        """Draw a curve from the middle of a box's lower side to that of another's upper side."""
        start = self._places[edge.start]
        end = self._places[edge.end]
        from_x = f"{start.x + start.width / 2:.0f}"
        from_y = start.y + start.height
        to_x = f"{end.x + end.width / 2:.0f}"
        middle = f"{(from_y + end.y) / 2:.0f}"
        return f"M{from_x} {from_y:.0f}C{from_x} {middle} {to_x} {middle} {to_x} {end.y:.0f}"

    # -- legend

    def _draw_legend(self, boxes: Sequence[Box]) -> list[Html]:
        """Explain the colours and lines that are there; set how far down it goes."""
        x = MARGIN
        y = self._bottom + MARGIN
        drawn: list[Html] = []
        for entry in _list_entries(boxes, self._folded.edges):
            if x > MARGIN and x + entry.width > self._width:
                x = MARGIN
                y += LEGEND_HEIGHT
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
            line = f"M{x:.0f} {y + 6:.0f}h{SWATCH + 2:.0f}"
            return [_draw_path(line, self.line), name]
        fill = FILLS[self.key]
        stroke = STROKES.get(self.key, svg.LINE)
        return [svg.box(x, y, SWATCH, SWATCH, fill=fill, stroke=stroke, rx="2"), name]


def _list_entries(boxes: Sequence[Box], edges: Sequence[Edge]) -> list[_Entry]:
    """List what is to be explained."""
    entries: list[_Entry] = []
    for key in _keys_of(boxes):
        name = SINGULAR.get(key) or STATUSES[key]
        entries.append(_Entry(name, key))
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


def _row_width(widths: Sequence[float]) -> float:
    return sum(widths) + GAP_X * (len(widths) - 1)


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
    if len(types) > 1:
        return "#efefef"
    return FILLS.get(types.pop(), "#ffffff")


def _keys_of(boxes: Sequence[Box]) -> list[str]:
    """List the colours of the boxes, in the order of ``FILLS``."""
    keys: set[str] = set()
    for box in boxes:
        if isinstance(box, Fold):
            keys |= {node.type for node in box.nodes}
        else:
            keys.add(_key_of(box))
    return [key for key in FILLS if key in keys]


def _draw_fold(box: Fold, place: _Place) -> Html:
    fill = _fill_of_fold(box)
    sheets: list[Html] = []
    for sheet in (2, 1):
        shift = sheet * FOLD_SHADOW
        behind = place._replace(x=place.x + shift, y=place.y + shift)
        sheets += _draw_frame(behind, fill, box)[:1]  # no dashes
    frame = _draw_frame(place, fill, box)
    lines = _draw_lines(place, [[line] for line in box.lines])
    return svg.group("\n".join(box.lines), *sheets, *frame, lines)


def _draw_frame(place: _Place, fill: str, box: Box) -> list[Html]:
    """Draw the frame of a box; that of what may not be there has a dashed line in it."""
    status = "" if isinstance(box, Fold) else box.status
    stroke = STROKES.get(status, svg.LINE)
    stroke_width = "2" if status in STROKES else None
    frame = svg.box(*place, fill=fill, rx="5", stroke=stroke, stroke_width=stroke_width)
    if not box.about:
        return [frame]
    x, y, width, height = place
    inside = (x + INSET, y + INSET, width - 2 * INSET, height - 2 * INSET)
    dashes = svg.box(*inside, fill="none", rx="3", stroke=svg.DASHES, stroke_dasharray="4 3")
    return [frame, dashes]


def _draw_lines(place: _Place, lines: Sequence[Sequence[str]]) -> Html:
    """Write the lines of a box, each in the words that fit; what does not fit is cut off."""
    room = place.width - 2 * INDENT + 2
    drawn: list[Html] = []
    y = FIRST_LINE
    for variants in filter(None, lines):
        if not drawn:
            # The end of the name of a sub-run's node says more than the beginning.
            name = svg.fit_first(variants, room, NAME_SIZE, keep_end=True)
            drawn.append(svg.text(INDENT, y, name))
        else:
            figure = svg.fit_first(variants, room, FIGURE_SIZE)
            drawn.append(svg.text(INDENT, y, figure, font_size=f"{FIGURE_SIZE:.0f}"))
        y += LINE_HEIGHT
    return element(
        "svg",
        *drawn,
        x=f"{place.x:.1f}",
        y=f"{place.y:.1f}",
        width=f"{place.width - 2:.1f}",
        height=f"{place.height:.1f}",
    )


def _draw_path(path: str, line: _Line) -> Html:
    stroke_width = None
    if line.is_critical:
        stroke_width = "2.4"
    elif line.is_joined:
        stroke_width = "1.7"
    return svg.path(
        path,
        fill="none",
        stroke=svg.EMPHASIS if line.is_critical else svg.LINE,
        stroke_width=stroke_width,
        stroke_dasharray="4 3" if line.about else None,
    )


def _title(node: GraphNode) -> str:
    """Say all figures of a node."""
    _, read, _ = describe_node(node)
    lines = [node.id, SINGULAR.get(node.type, node.type), *read[:1]]
    if node.status and node.type != "recalled":
        seconds = svg.show_seconds(node.seconds)
        start = svg.show_seconds(node.start)
        end = svg.show_seconds(node.start + node.seconds)
        lines.append(f"{seconds}, from {start} to {end}")
    form = describe_form(node)
    if form:
        lines += form
    elif node.form:
        lines.append(f"form: {node.form}")
    if node.status:
        lines.append(STATUSES.get(node.status, node.status))
    if node.parents:
        lines.append(f"after {_name_parents(node.parents)}")
    return "\n".join(lines)


def _name_parents(parents: Sequence[str]) -> str:
    """Name the first parents, and count the others."""
    named = ", ".join(parents[:TITLE_PARENTS])
    more = len(parents) - TITLE_PARENTS
    if more > 0:
        return f"{named} and {more:,} more"
    return named
