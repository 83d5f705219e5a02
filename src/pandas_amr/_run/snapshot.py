"""The graph and the timeline of a run that may still go on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pandas_amr._records.graph import graph_of
from pandas_amr._records.timeline import Timeline
from pandas_amr._result.frames import spans_later, trace_frame

if TYPE_CHECKING:
    from pandas_amr._context.progress import Watch
    from pandas_amr._records.graph import Graph
    from pandas_amr._records.trace import Node


def draw_graph_so_far(watch: Watch) -> Graph:
    """Return the graph of the nodes that have begun by now."""
    return graph_of(trace_frame(_copy_nodes(watch)), static=watch.is_static)


def draw_timeline_so_far(watch: Watch) -> Timeline:
    """Return the timeline until now; what has not ended is not in it but for its node."""
    nodes = _copy_nodes(watch)
    spans = spans_later(watch.trace, [node.id for node in nodes])
    seconds = max((node.start + node.seconds for node in nodes), default=0.0)
    return Timeline(trace_frame(nodes), None if spans is None else spans(), seconds)


def _copy_nodes(watch: Watch) -> list[Node]:
    """Copy the nodes, from any thread; those that still run have taken the time until now."""
    nodes: list[Node] = []
    for node in list(watch.trace.nodes):
        copied = replace(node)
        if copied.status == "running":
            copied.seconds = watch.trace.seconds - copied.start
        nodes.append(copied)
    return nodes
