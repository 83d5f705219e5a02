"""A timeline as SVG: lanes of what nodes did; of many nodes, how many did what at each moment."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

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

LABEL_WIDTH = 150.0
TRACK_WIDTH = 640.0
END_WIDTH = 180.0
MARGIN = 12.0
LEFT = MARGIN + LABEL_WIDTH
RIGHT = LEFT + TRACK_WIDTH + END_WIDTH
WIDTH = RIGHT + MARGIN
LANE_HEIGHT = 18.0
BAR_HEIGHT = 11.0
THIN_HEIGHT = 4.0
AREA_HEIGHT = 150.0
AXIS_HEIGHT = 24.0
LINE_HEIGHT = 17.0
BASELINE = 12.0  # of a text, below the top of its line
FONT_SIZE = 11
SWATCH = 12.0
WAITS_LEFT = MARGIN + 92  # behind "Longest waits:"
LANE_BINS = 350
AREA_BINS = 240
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


class _Run(NamedTuple):
    """Bins of one kind that follow each other."""

    kind: str
    first: int
    bins: int


class _Layer(NamedTuple):
    """What a kind takes of an area: from one height to another in each bin."""

    kind: str
    below: list[float]
    above: list[float]


class _Step(NamedTuple):
    """A level part of the upper or the lower line of a layer."""

    left: float
    right: float
    y: float


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
            has_failed = any(lane.status in BAD for lane in lanes.shown)
            which = "some that failed and the slowest" if has_failed else "the slowest"
            self._write(f"Of {count} nodes, {which}, from their start:")
            self._end = max(lane.seconds for lane in lanes.shown) or 1.0
            self._draw_lanes([_move_to_start(lane) for lane in lanes.shown])
        else:
            self._draw_lanes(lanes.all)
        self._draw_legend()
        self._write_waits()
        note = lanes.note
        if note:
            self._write(f"{note[0].upper()}{note[1:]}.")
        height = self._y + MARGIN
        return svg.picture(WIDTH, height, f"Timeline of a run: {lanes}", self._content)

    def _x(self, seconds: float) -> float:
        return LEFT + seconds / self._end * TRACK_WIDTH

    def _write(self, line: str, x: float = MARGIN) -> None:
        self._content.append(svg.text(x, self._y + BASELINE, line, fill=svg.NOTE))
        self._y += LINE_HEIGHT

    # -- lanes

    def _draw_lanes(self, lanes: Sequence[Lane]) -> None:
        top = self._y
        for lane in lanes:
            self._draw_lane(lane)
        self._draw_axis(top)

    def _draw_lane(self, lane: Lane) -> None:
        colour = svg.EMPHASIS if lane.status in BAD else svg.NOTE
        name = svg.fit(lane.name, LABEL_WIDTH - 8, keep_end=True)
        label = _draw_label(name, self._y + BASELINE, colour)
        bars = self._draw_bars(lane)
        end = self._draw_end(lane, colour)
        self._content.append(svg.group(_title(lane), label, *bars, end))
        self._y += LANE_HEIGHT

    def _draw_bars(self, lane: Lane) -> list[Html]:
        """Draw the spans of a lane, all of a kind as one path; short ones may not be seen."""
        x = self._x(lane.start)
        length = self._x(lane.end) - x
        count = max(1, min(LANE_BINS, 2 * int(length)))
        width = max(1.5, length) / count
        paths: defaultdict[str, str] = defaultdict(str)
        for run in _find_runs(bin_spans(lane.spans, lane.start, lane.end, count)):
            height = THIN_HEIGHT if run.kind in THIN else BAR_HEIGHT
            left = x + run.first * width
            top = self._y + (LANE_HEIGHT - height) / 2 - 1
            across = f"{run.bins * width:.1f}"
            paths[run.kind] += f"M{left:.1f} {top:.1f}h{across}v{height:.0f}h-{across}z"
        return [_fill(kind, path) for kind, path in paths.items()]

    def _draw_end(self, lane: Lane, colour: str) -> Html:
        """Write how a lane ended behind its bar; before it, if there is no room behind."""
        end = svg.show_seconds(lane.seconds)
        if lane.status != "ok":
            end = f"{end}, {lane.status}"
        if lane.began:
            end = f"{end}, at {svg.show_seconds(lane.began)}"
        room = svg.count_columns(end) * FONT_SIZE * svg.CHARACTER_WIDTH + 5
        behind = self._x(lane.end) + 5
        before = self._x(lane.start) - 5
        y = self._y + BASELINE
        if behind + room > WIDTH and before - room > LEFT:
            return svg.text(before, y, end, fill=colour, text_anchor="end")
        shown = svg.fit(end, WIDTH - behind)
        return svg.text(behind, y, shown, fill=colour)

    # -- how many nodes did what

    def _draw_area(self, lanes: Sequence[Lane]) -> None:
        """Draw how many nodes were in each kind of span, one kind upon the other."""
        layers = _pile_up(count_running(lanes, self._end, AREA_BINS))
        most = max(max(layer.above) for layer in layers) or 1.0
        top = self._y
        bottom = top + AREA_HEIGHT
        for layer in layers:
            path = _draw_layer(layer, bottom, AREA_HEIGHT / most)
            self._content.append(svg.group(NAMES[layer.kind], _fill(layer.kind, path)))
        self._content.append(_draw_label(f"{most:.0f} at once", top + 5, svg.NOTE))
        self._content.append(_draw_label("0", bottom + 5, svg.NOTE))
        self._y = bottom
        self._draw_axis(top)
        self._y += 6

    # -- axis, legend, waits

    def _draw_axis(self, top: float) -> None:
        y = self._y + 2
        steps = (step for step in STEPS_S if self._end / step <= MOST_TICKS)
        step = next(steps, self._end)
        lines: list[Html] = []
        count = int(self._end / step + 1e-9)
        for number in range(count + 1):
            seconds = number * step
            x = self._x(seconds)
            lines.append(_draw_line(f"M{x:.1f} {top:.0f}V{y + 4:.0f}"))
            label = svg.show_seconds(seconds)
            self._content.append(svg.text(x, y + 16, label, fill=svg.NOTE, text_anchor="middle"))
        lines.append(_draw_line(f"M{LEFT:.0f} {y:.0f}h{TRACK_WIDTH:.0f}"))
        self._content = lines + self._content  # behind all else
        self._y = y + AXIS_HEIGHT

    def _draw_legend(self) -> None:
        x = MARGIN
        for kind, seconds in self._lanes.sums.items():
            name = f"{self._lanes.name_kind(kind)} {svg.show_seconds(seconds)}"
            width = SWATCH + 18 + len(name) * FONT_SIZE * svg.CHARACTER_WIDTH
            if x + width > RIGHT:
                x = MARGIN
                self._y += LINE_HEIGHT
            height = THIN_HEIGHT if kind in THIN else SWATCH
            top = self._y + 2 + (SWATCH - height) / 2
            self._content.append(svg.box(x, top, SWATCH, height, fill=COLOURS[kind]))
            y = self._y + BASELINE
            self._content.append(svg.text(x + SWATCH + 4, y, name, fill=svg.NOTE))
            x += width
        self._y += LINE_HEIGHT + 4

    def _write_waits(self) -> None:
        waits = self._lanes.longest_waits
        if not waits:
            return
        start = "Longest waits:" if len(waits) > 1 else "Longest wait:"
        self._content.append(svg.text(MARGIN, self._y + BASELINE, start, fill=svg.NOTE))
        for wait in waits:
            self._write(svg.fit(str(wait), WIDTH - LEFT - MARGIN), WAITS_LEFT)


def _draw_label(label: str, y: float, colour: str) -> Html:
    """Write what stands before the axis."""
    return svg.text(LEFT - 8, y, label, fill=colour, text_anchor="end")


def _move_to_start(lane: Lane) -> Lane:
    """Move what a node did to the beginning; its times are those since it began."""
    spans: list[Span] = []
    for span in lane.spans:
        spans.append(Span(span.kind, span.start - lane.start, span.end - lane.start))
    return replace(lane, start=0.0, end=lane.seconds, spans=tuple(spans), began=lane.start)


def _find_runs(bins: Sequence[str]) -> list[_Run]:
    """Find the bins that follow each other without a change; empty bins are none."""
    runs: list[_Run] = []
    first = 0
    for kind, alike in itertools.groupby(bins):
        count = len(list(alike))
        if kind:
            runs.append(_Run(kind, first, count))
        first += count
    return runs


def _pile_up(counts: Mapping[str, Sequence[float]]) -> list[_Layer]:
    """Pile kinds up: each begins where the one before it ends."""
    below = [0.0] * AREA_BINS
    layers: list[_Layer] = []
    for kind in KINDS:
        if kind not in counts or kind == INSIDE:
            continue
        above = [low + more for low, more in zip(below, counts[kind], strict=True)]
        layers.append(_Layer(kind, below, above))
        below = above
    return layers


def _draw_layer(layer: _Layer, bottom: float, scale: float) -> str:
    """Draw a layer: along its upper line, and back along its lower one."""
    parts = [f"M{LEFT:.1f} {bottom:.1f}"]
    for step in _find_steps(layer.above, bottom, scale):
        parts.append(f"V{step.y:.1f}H{step.right:.1f}")
    for step in reversed(_find_steps(layer.below, bottom, scale)):
        parts.append(f"V{step.y:.1f}H{step.left:.1f}")
    parts.append("z")
    return "".join(parts)


def _find_steps(heights: Sequence[float], bottom: float, scale: float) -> list[_Step]:
    """Find the steps of a line; bins of the same height are one step."""
    width = TRACK_WIDTH / len(heights)
    steps: list[_Step] = []
    for place, height in enumerate(heights):
        y = round(bottom - height * scale, 1)
        left = LEFT + place * width
        right = LEFT + (place + 1) * width
        if steps and steps[-1].y == y:
            left = steps.pop().left
        steps.append(_Step(left, right, y))
    return steps


def _fill(kind: str, d: str) -> Html:
    return svg.path(d, fill=COLOURS[kind])


def _draw_line(d: str) -> Html:
    return svg.path(d, fill="none", stroke=svg.LINE, stroke_opacity="0.35")


def _title(lane: Lane) -> str:
    start = lane.start + lane.began
    end = start + lane.seconds
    lines = [
        f"{lane.name}: {lane.status}, {svg.show_seconds(lane.seconds)}",
        f"from {svg.show_seconds(start)} to {svg.show_seconds(end)}",
    ]
    for kind, seconds in lane.sums().items():
        lines.append(f"{NAMES[kind]}: {svg.show_seconds(seconds)}")
    return "\n".join(lines)
