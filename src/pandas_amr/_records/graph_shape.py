"""The graph of a run before it runs: what is known of its nodes, and what is expected."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pandas_amr._records.graph import Graph, GraphNode, mode_of

if TYPE_CHECKING:
    from collections.abc import Sequence

EVERY_MAP = ("*",)  # the parents of a node that reads what all maps have found


@dataclass(frozen=True, slots=True)
class MapShape:
    """The nodes of one map.

    Attributes:
        name: of the map, if there are several side by side.
        sizes: the units of each shard; 0 if it holds nothing but empty ones.
        form: ``function`` or ``recipe`` if no agent maps.
        numbers: of the shards; None if they are numbered from 1.
    """

    name: str | None
    sizes: tuple[int, ...]
    form: str = ""
    numbers: tuple[int, ...] | None = None

    def nodes(self) -> list[GraphNode]:
        """Make a node per shard."""
        numbers = self.numbers or range(1, len(self.sizes) + 1)
        prefix = "map" if self.name is None else f"map-{self.name}"
        nodes: list[GraphNode] = []
        for number, units in zip(numbers, self.sizes, strict=True):
            name = f"{prefix}-{number}"
            nodes.append(GraphNode(name, "map", 0, (), units, form=self.form))
        return nodes


@dataclass(frozen=True, slots=True)
class Shape:
    """What a run is expected to look like, in few bytes.

    Attributes:
        maps: those that run side by side over the same shards.
        reduces: the nodes of its reduce, but for a tree that takes findings as they land.
        fan_in: of such a tree, of which each node is known; None if there is none.
        is_static: whether trees are by fan-in.
    """

    maps: tuple[MapShape, ...] = ()
    reduces: tuple[GraphNode, ...] = ()
    fan_in: int | None = None
    is_static: bool = False

    def graph(self) -> Graph:
        """Make the graph."""
        by_map = [one.nodes() for one in self.maps]
        maps = _order_maps(by_map)
        reduces = _name_parents(self.reduces, maps)
        if self.fan_in is not None:
            leaves = _make_leaves(by_map)
            reduces += _make_tree(leaves, self.fan_in)
        nodes = (*maps, *reduces)
        types = {node.type for node in nodes}
        return Graph(mode_of(types, static=self.is_static), nodes)


def _order_maps(by_map: Sequence[list[GraphNode]]) -> list[GraphNode]:
    """Order the nodes of maps side by side, shard by shard, as a run begins them."""
    maps: list[GraphNode] = []
    for nodes in itertools.zip_longest(*by_map):
        maps += [node for node in nodes if node is not None]
    return maps


@dataclass(frozen=True, slots=True)
class _Child:
    """What a reducer reads: the nodes that made it, and how many inputs it is."""

    nodes: tuple[str, ...]
    inputs: int


def _make_leaves(by_map: Sequence[list[GraphNode]]) -> list[_Child]:
    """Put the nodes of each shard together: what its maps find of a unit is one input."""
    leaves: list[_Child] = []
    for nodes in zip(*by_map, strict=True):
        names = tuple(node.id for node in nodes)
        units = max(node.units for node in nodes)
        leaves.append(_Child(names, units))
    return leaves


def _name_parents(reduces: Sequence[GraphNode], maps: Sequence[GraphNode]) -> list[GraphNode]:
    """Name the maps as parents of the nodes that read what all of them have found."""
    every_map = tuple(node.id for node in maps)
    named: list[GraphNode] = []
    for node in reduces:
        others = tuple(parent for parent in node.parents if parent not in EVERY_MAP)
        if others == node.parents:
            named.append(node)
        else:
            named.append(replace(node, parents=others + every_map))
    return named


def _make_tree(leaves: list[_Child], fan_in: int) -> list[GraphNode]:
    """Make the nodes of a static tree, if each reducer gives one input to the next level."""
    nodes: list[GraphNode] = []
    children = leaves
    level = 1
    while len(children) > fan_in:
        parents: list[_Child] = []
        for first in range(0, len(children), fan_in):
            group = children[first : first + fan_in]
            name = f"reduce-{level}-{len(parents)}"
            node = _reduce_node(name, "reduce", level, group)
            nodes.append(node)
            is_passed = len(group) == 1 or not node.units  # without a call
            inputs = node.units if is_passed else 1
            parents.append(_Child((node.id,), inputs))
        children = parents
        level += 1
    if children:
        nodes.append(_reduce_node("final-reduce", "final-reduce", level, children))
    return nodes


def _reduce_node(name: str, type: str, level: int, children: Sequence[_Child]) -> GraphNode:
    parents: list[str] = []
    units = 0
    for child in children:
        parents += child.nodes
        units += child.inputs
    return GraphNode(name, type, level, tuple(parents), units)


def spread_level(
    prefix: str, level: int, count: int, before: Sequence[str], units: int
) -> list[GraphNode]:
    """Make the nodes of a level of which only the number is expected: as large as each other.

    Args:
        prefix: what their names begin with.
        level: of the tree.
        count: how many there are.
        before: the nodes of the level before.
        units: how many inputs they read together.
    """
    size = round(units / count)
    nodes: list[GraphNode] = []
    for number in range(count):
        first = number * len(before) // count
        last = (number + 1) * len(before) // count
        last = max(last, first + 1)
        name = f"{prefix}reduce-{level}-{number}"
        parents = tuple(before[first:last])
        nodes.append(GraphNode(name, "reduce", level, parents, size, about=True))
    return nodes
