"""A timeline as SVG: lanes of what nodes did; of many nodes, how many did what at each moment."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pandas_amr._records import svg
from pandas_amr._records.timeline_lanes import BAD, NAMES
from pandas_amr._records.timeline_spans import (
    INSIDE,
    KINDS,
    OTHER,
    Span,
    bin_spans,
    count_running,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas_amr._records.html import Html
    from pandas_amr._records.timeline_lanes import Lanes
    from pandas_amr._records.timeline_spans import Lane

LABEL_WIDTH, TRACK_WIDTH, END_WIDTH = 150.0, 640.0, 180.0
MARGIN = 12.0
LEFT = MARGIN + LABEL_WIDTH
WIDTH = LEFT + TRACK_WIDTH + END_WIDTH + MARGIN
LANE_HEIGHT, BAR_HEIGHT, THIN_HEIGHT = 18.0, 11.0, 4.0
AREA_HEIGHT = 150.0
AXIS_HEIGHT, LINE_HEIGHT, SWATCH = 24.0, 17.0, 12.0
LANE_BINS, AREA_BINS = 350, 240
MOST_TICKS = 8
STEPS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400),
)
THIN = frozenset({OTHER, INSIDE})  # drawn as a line: the node is there, and nothing is remarkable

# Each with contrast on white and on almost black.
COLOURS = {
    "model": "#4a90d9",
    "place": "#93a1b0",
    "limit": "#e08a1e",
    "retry": "#d1495b",
    "server": "#a67c52",
    "budget": "#a67c52",
    "batch": "#a67c52",
    "journal": "#a67c52",
    "code": "#2f9e63",
    "tool": "#8e6cc9",
    "compute": "#b39b1f",
    "other": "#808080",
    "inside": "#808080",
}


def draw_timeline(lanes: Lanes) -> str:
    """Draw a timeline."""
    return _Drawing(lanes).draw()


class _Drawing:
    """A drawing of a timeline, from top to bottom."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._end = lanes.end or 1.0  # of the axis that is drawn to
        self._y = MARGIN
        self._content: list[Html] = []

    def draw(self) -> str:
        """Draw all."""
        lanes = self._lanes
        if len(lanes.shown) < len(lanes.all):
            self._draw_area(lanes.all)
            count = f"{len(lanes.all):,}"
            self._write(f"Of {count} nodes, some that failed and the slowest, from their start:")
            self._end = max(lane.seconds for lane in lanes.shown) or 1.0
            self._draw_lanes([_move_to_start(lane) for lane in lanes.shown])
        else:
            self._draw_lanes(lanes.all)
        self._draw_legend()
        self._write_waits()
        if lanes.note:
            self._write(f"{lanes.note[0].upper()}{lanes.note[1:]}.")
        label = f"Timeline of a run: {lanes}"
        return svg.picture(WIDTH, self._y + MARGIN, label, self._content)

    def _x(self, seconds: float) -> float:
        return LEFT + seconds / self._end * TRACK_WIDTH

    def _write(self, line: str, x: float = MARGIN) -> None:
        self._content.append(svg.text(x, self._y + 12, line, fill=svg.NOTE))
        self._y += LINE_HEIGHT

    # -- lanes

    def _draw_lanes(self, lanes: Sequence[Lane]) -> None:
        top = self._y
        for lane in lanes:
            self._draw_lane(lane)
        self._draw_axis(top)

    def _draw_lane(self, lane: Lane) -> None:
        y = self._y
        is_bad = lane.status in BAD
        colour = svg.EMPHASIS if is_bad else svg.NOTE
        name = svg.fit(lane.name, LABEL_WIDTH - 8, keep_end=True)
        end = svg.show_seconds(lane.seconds)
        if lane.status != "ok":
            end = f"{end}, {lane.status}"
        if lane.began:
            end = f"{end}, at {svg.show_seconds(lane.began)}"
        label = _draw_label(name, y + 12, colour)
        drawn = [label, *self._draw_bars(lane, y), self._draw_end(lane, end, colour)]
        self._content.append(svg.group(_title(lane), *drawn))
        self._y += LANE_HEIGHT

    def _draw_end(self, lane: Lane, end: str, colour: str) -> Html:
        """Write how a lane ended behind its bar; before it, if there is no room behind."""
        room = svg.count_columns(end) * 11 * svg.CHARACTER_WIDTH + 5
        x, y = self._x(lane.end) + 5, self._y + 12
        start = self._x(lane.start) - 5
        if x + room > WIDTH and start - room > LEFT:
            return svg.text(start, y, end, fill=colour, text_anchor="end")
        return svg.text(x, y, svg.fit(end, WIDTH - x), fill=colour)

    def _draw_bars(self, lane: Lane, y: float) -> list[Html]:
        """Draw the spans of a lane, all of a kind as one path; short ones may not be seen."""
        bins = bin_spans(lane.spans, lane.start, lane.end, self._count_bins(lane))
        paths: dict[str, list[str]] = {}
        width = max(1.5, self._x(lane.end) - self._x(lane.start)) / len(bins)
        x = self._x(lane.start)
        for kind, first, count in _find_runs(bins):
            height = THIN_HEIGHT if kind in THIN else BAR_HEIGHT
            top = y + (LANE_HEIGHT - height) / 2 - 1
            bar = f"M{x + first * width:.1f} {top:.1f}h{count * width:.1f}v{height:.0f}"
            paths.setdefault(kind, []).append(f"{bar}h-{count * width:.1f}z")
        return [_fill(kind, "".join(bars)) for kind, bars in paths.items()]

    def _count_bins(self, lane: Lane) -> int:
        pixels = int(self._x(lane.end) - self._x(lane.start))
        return max(1, min(LANE_BINS, 2 * pixels))

    # -- how many nodes did what

    def _draw_area(self, lanes: Sequence[Lane]) -> None:
        """Draw how many nodes were in each kind of span, one kind upon the other."""
        heights = _pile_up(count_running(lanes, self._end, AREA_BINS))
        most = max(max(above) for _, _, above in heights) or 1.0
        top, bottom = self._y, self._y + AREA_HEIGHT
        for kind, below, above in heights:
            path = self._draw_steps(above, below, bottom, AREA_HEIGHT / most)
            self._content.append(svg.group(NAMES[kind], _fill(kind, path)))
        for label, y in ((f"{most:.0f} at once", top), ("0", bottom)):
            self._content.append(_draw_label(label, y + 5, svg.NOTE))
        self._y = bottom
        self._draw_axis(top)
        self._y += 6

    def _draw_steps(
        self, above: Sequence[float], below: Sequence[float], bottom: float, scale: float
    ) -> str:
        """Draw what is between two heights: along the upper one, and back along the lower one."""
        upper, lower = _find_steps(above, bottom, scale), _find_steps(below, bottom, scale)
        there = [f"V{y:.1f}H{right:.1f}" for _, right, y in upper]
        back = [f"V{y:.1f}H{left:.1f}" for left, _, y in reversed(lower)]
        return f"M{LEFT:.1f} {bottom:.1f}{''.join(there)}{''.join(back)}z"

    # -- axis, legend, waits

    def _draw_axis(self, top: float) -> None:
        y = self._y + 2
        step = next((one for one in STEPS_S if self._end / one <= MOST_TICKS), self._end)
        ticks: list[Html] = []
        count = int(self._end / step + 1e-9)
        for number in range(count + 1):
            x = self._x(number * step)
            ticks.append(_draw_line(f"M{x:.1f} {top:.0f}V{y + 4:.0f}"))
            label = svg.show_seconds(number * step)
            self._content.append(svg.text(x, y + 16, label, fill=svg.NOTE, text_anchor="middle"))
        ticks.append(_draw_line(f"M{LEFT:.0f} {y:.0f}h{TRACK_WIDTH:.0f}"))
        self._content[:0] = ticks  # behind all else
        self._y = y + AXIS_HEIGHT

    def _draw_legend(self) -> None:
        x = MARGIN
        for kind, seconds in self._lanes.sums.items():
            name = f"{self._lanes.name_kind(kind)} {svg.show_seconds(seconds)}"
            width = SWATCH + 18 + len(name) * 11 * svg.CHARACTER_WIDTH
            if x + width > WIDTH - MARGIN:
                x, self._y = MARGIN, self._y + LINE_HEIGHT
            height = THIN_HEIGHT if kind in THIN else SWATCH
            y = self._y + 2 + (SWATCH - height) / 2
            self._content.append(svg.box(x, y, SWATCH, height, fill=COLOURS[kind]))
            self._content.append(svg.text(x + SWATCH + 4, self._y + 12, name, fill=svg.NOTE))
            x += width
        self._y += LINE_HEIGHT + 4

    def _write_waits(self) -> None:
        waits = self._lanes.longest_waits
        for number, wait in enumerate(waits):
            start = "Longest waits:" if len(waits) > 1 else "Longest wait:"
            if number == 0:
                self._content.append(svg.text(MARGIN, self._y + 12, start, fill=svg.NOTE))
            self._write(svg.fit(str(wait), WIDTH - LEFT - MARGIN), MARGIN + 92)


def _draw_label(label: str, y: float, colour: str) -> Html:
    """Write what stands before the axis."""
    return svg.text(LEFT - 8, y, label, fill=colour, text_anchor="end")


def _move_to_start(lane: Lane) -> Lane:
    """Move what a node did to the beginning; its times are those since it began."""
    spans = [Span(one.kind, one.start - lane.start, one.end - lane.start) for one in lane.spans]
    return replace(lane, start=0.0, end=lane.seconds, spans=tuple(spans), began=lane.start)


def _find_runs(bins: Sequence[str]) -> list[tuple[str, int, int]]:
    """Find what follows each other without a change: what, from which bin on, and how many."""
    runs: list[tuple[str, int, int]] = []
    for place, kind in enumerate(bins):
        if runs and runs[-1][0] == kind:
            runs[-1] = (kind, runs[-1][1], runs[-1][2] + 1)
        else:
            runs.append((kind, place, 1))
    return [run for run in runs if run[0]]


def _pile_up(counts: Mapping[str, Sequence[float]]) -> list[tuple[str, list[float], list[float]]]:
    """Pile kinds up: of each, where it begins and where it ends, in each bin."""
    below = [0.0] * AREA_BINS
    piles: list[tuple[str, list[float], list[float]]] = []
    for kind in KINDS:
        if kind not in counts or kind == INSIDE:
            continue
        above = [low + more for low, more in zip(below, counts[kind], strict=True)]
        piles.append((kind, below, above))
        below = above
    return piles


def _find_steps(
    heights: Sequence[float], bottom: float, scale: float
) -> list[tuple[float, float, float]]:
    """Find the steps of a line: from where, to where, at which place."""
    width = TRACK_WIDTH / len(heights)
    steps: list[tuple[float, float, float]] = []
    for place, height in enumerate(heights):
        y = round(bottom - height * scale, 1)
        left = LEFT + place * width
        if steps and steps[-1][2] == y:
            left = steps.pop()[0]
        steps.append((left, LEFT + (place + 1) * width, y))
    return steps


def _fill(kind: str, d: str) -> Html:
    return svg.path(d, fill=COLOURS[kind])


def _draw_line(d: str) -> Html:
    return svg.path(d, fill="none", stroke=svg.LINE, stroke_opacity="0.35")


def _title(lane: Lane) -> str:
    lines = [f"{lane.name}: {lane.status}, {svg.show_seconds(lane.seconds)}"]
    start = lane.start + lane.began
    lines.append(f"from {svg.show_seconds(start)} to {svg.show_seconds(start + lane.seconds)}")
    for kind, seconds in lane.sums().items():
        lines.append(f"{NAMES[kind]}: {svg.show_seconds(seconds)}")
    return "\n".join(lines)
