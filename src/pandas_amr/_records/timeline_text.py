"""A timeline as bars of text, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_amr._records.counts import counted
from pandas_amr._records.svg import count_columns, show_seconds
from pandas_amr._records.terminal import escape_unprintable
from pandas_amr._records.timeline_lanes import NAME_COLUMNS, shorten_name
from pandas_amr._records.timeline_spans import bin_spans

if TYPE_CHECKING:
    from pandas_amr._records.timeline_lanes import Lanes
    from pandas_amr._records.timeline_spans import Lane

BAR_COLUMNS = 48
LETTERS = {
    "model": "=",
    "place": ".",
    "limit": "!",
    "retry": "~",
    "server": "s",
    "budget": "b",
    "batch": "B",
    "journal": "j",
    "code": "#",
    "tool": "t",
    "compute": "c",
    "other": "-",
    "inside": ">",
}


def write_timeline(lanes: Lanes) -> str:
    """Write a line per lane that is shown, what the letters mean, and the longest wait."""
    lines = [f"<Timeline {lanes}>"]
    lines += [_write_lane(lane, lanes.end) for lane in lanes.shown]
    if len(lanes.shown) < len(lanes.all):
        lines.append(f"... {counted(len(lanes.all) - len(lanes.shown), 'more node')}")
    keys: list[str] = []
    for kind, seconds in lanes.sums.items():
        keys.append(f"{LETTERS[kind]} {lanes.name_kind(kind)} {show_seconds(seconds)}")
    if keys:
        lines.append("; ".join(keys))
    for wait in lanes.longest_waits[:1]:
        lines.append(f"longest wait: {escape_unprintable(str(wait))}")
    if lanes.note:
        lines.append(f"({lanes.note})")
    return "\n".join(lines)


def _write_lane(lane: Lane, end: float) -> str:
    bins = bin_spans(lane.spans, 0.0, end, BAR_COLUMNS)
    bar = "".join(LETTERS.get(kind, " ") for kind in bins)
    name = escape_unprintable(shorten_name(lane.name))
    padding = " " * (NAME_COLUMNS - count_columns(name))  # none if the name is longer
    outcome = show_seconds(lane.seconds)
    if lane.status != "ok":
        outcome = f"{outcome} {lane.status}"
    return f"{name}{padding} |{bar}| {outcome}"
