"""What a run is expected to look like: the nodes of its graph, before it runs."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pandas_amr._map.cut import cut_first_run, drop_empty, make_context
from pandas_amr._plan.aggregations import function_of
from pandas_amr._plan.call import Pipeline, finding_types, may_ask_model
from pandas_amr._records.graph import GraphNode
from pandas_amr._records.graph_shape import EVERY_MAP, MapShape, Shape, spread_level
from pandas_amr._reduce.compute_node import CHOOSE, COMPUTE, RANK, REDUCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._context.spec import Spec
    from pandas_amr._map.stage import MapStage
    from pandas_amr._records.trace import Node
    from pandas_amr._run.part import Part
    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units


@dataclass(frozen=True)
class DryReduce:
    """The nodes of a reduce by agents that was run dry.

    Attributes:
        prefix: what their names begin with.
        nodes: of all units, or of the part that was run.
        calls: how many calls the reduce of all units is expected to take.
        about: whether what is found decides how many nodes there are.
    """

    prefix: str
    nodes: Sequence[Node]
    calls: int
    about: bool


def make_shape(
    part: Part, units: Units, stage: MapStage | None, tree: Sequence[int], dry: Sequence[DryReduce]
) -> Shape:
    """Make the shape of a run.

    Args:
        part: what of it was run dry.
        units: all units of the run.
        stage: the map that is about to run; None if none is begun.
        tree: nodes per level of a tree that takes findings as they land; empty for any other.
        dry: the reduces by agents that were run dry.
    """
    spec = part.spec
    maps = _expect_maps(spec, units, stage)
    reduces = _expect_computed(spec, len(units))
    fan_in = None
    was_reduced_whole = dry and part.is_whole
    if tree and not was_reduced_whole:
        fan_in = spec.plan.fan_in
    elif was_reduced_whole:
        for reduce in dry:
            about = reduce.about and not tree
            reduces += [_make_expected_node(node, about=about) for node in reduce.nodes]
    elif dry:
        for reduce in dry:
            reduces += _scale(reduce, part, maps)
    elif spec.is_written:
        reduces += _expect_unknown(spec, len(units))
    is_static = spec.plan.fan_in is not None
    return Shape(maps, tuple(reduces), fan_in, is_static)


def shape_of_answer(dry: DryReduce) -> Shape:
    """Make the shape of a run in which one agent answers from the whole content."""
    nodes = [_make_expected_node(node, about=False) for node in dry.nodes]
    return Shape(reduces=tuple(nodes))


def _make_expected_node(node: Node, *, about: bool) -> GraphNode:
    return GraphNode(
        node.id,
        node.type,
        node.level,
        node.parents,
        node.units,
        form=node.form,
        # An agent says first how a number is computed, whatever comes of that.
        about=about and not node.id.endswith(CHOOSE),
    )


# -- maps


def _expect_maps(spec: Spec, units: Units, stage: MapStage | None) -> tuple[MapShape, ...]:
    if not spec.job.maps:
        return ()
    if stage is not None:
        return _open_maps(spec, stage)
    shards = cut_first_run(spec, units, make_context(spec, units))
    without_empty = drop_empty(shards, units)
    maps: list[MapShape] = []
    for name in spec.job.names:
        read = shards if _reads_empty(spec, name) else without_empty
        form = _form_of_map(spec, name)
        maps.append(MapShape(name, _sizes_of(read), form))
    return tuple(maps)


def _open_maps(spec: Spec, stage: MapStage) -> tuple[MapShape, ...]:
    """Return what is still to be mapped, by each map."""
    maps: list[MapShape] = []
    for name in spec.job.names:
        shards = stage.shards_of(name)
        form = _form_of_map(spec, name)
        numbers = tuple(shard.number for shard in shards)
        maps.append(MapShape(name, _sizes_of(shards), form, numbers))
    return tuple(maps)


def _sizes_of(shards: Sequence[Shard]) -> tuple[int, ...]:
    return tuple(len(shard.positions) for shard in shards)


def _form_of_map(spec: Spec, name: str | None) -> str:
    function = spec.job.callables.get(name)
    if function is None:
        return ""
    return "recipe" if isinstance(function, Pipeline) else "function"


def _reads_empty(spec: Spec, name: str | None) -> bool:
    function = spec.job.callables.get(name)
    if function is None:
        return False
    return not may_ask_model(function)


# -- reduces


def _expect_computed(spec: Spec, rows: int) -> list[GraphNode]:
    """Expect the node of what is reduced without an agent."""
    about = _has_lists(spec)
    if spec.reduce_kind == "function":
        form = "recipe" if isinstance(spec.job.reducer, Pipeline) else "function"
        return [_compute_node(REDUCE, rows, form=form, about=about)]
    if spec.reduce_kind == "ranking":
        return [_compute_node(RANK, rows, about=about)]
    if spec.reduce_kind == "aggregations" and _has_plain(spec):
        return [_compute_node(COMPUTE, rows, about=about)]
    return []


def _has_plain(spec: Spec) -> bool:
    """Whether pandas computes one of the aggregations, and not only agents write columns."""
    agents = spec.job.column_agents
    functions = [function_of(how) for how in spec.aggregations.values()]
    return any(function not in agents for function in functions)


def _has_lists(spec: Spec) -> bool:
    """Whether units have none or many records, so that nobody knows yet how many rows there are."""
    if spec.plan.where is not None:
        return True
    for kind in finding_types(spec.job, spec.plan).values():
        if kind is not None and kind.item is not None:
            return True
    return False


def _compute_node(
    name: str,
    rows: int,
    *,
    form: str = "pandas",
    about: bool = False,
    parents: tuple[str, ...] = (),
    level: int = 1,
) -> GraphNode:
    parents = (*parents, *EVERY_MAP)
    return GraphNode(name, "compute", level, parents, rows, form=form, about=about)


def _expect_unknown(spec: Spec, rows: int) -> list[GraphNode]:
    """Expect the least of a reduce that nobody could run dry."""
    if not rows:
        return []
    if spec.reduce_kind == "chosen_number":
        choose = GraphNode(CHOOSE, "reduce", 1, EVERY_MAP, rows)
        compute = _compute_node(COMPUTE, rows, about=True, parents=(CHOOSE,), level=2)
        return [choose, compute]
    return [GraphNode("final-reduce", "final-reduce", 1, EVERY_MAP, rows, about=True)]


# -- reduces of which a part was run dry


def _scale(dry: DryReduce, part: Part, maps: Sequence[MapShape]) -> list[GraphNode]:
    """Expect the nodes of a reduce over all units by those of a reduce over some."""
    if part.spec.reduce_kind == "chosen_number":
        return _with_all_maps(dry)
    names: list[str] = []
    for one in maps:
        names += [node.id for node in one.nodes()]
    if part.groups:
        return _scale_groups(dry, part, names)
    return _scale_tree(dry, part.scale, names)


def _scale_tree(dry: DryReduce, scale: float, maps: Sequence[str]) -> list[GraphNode]:
    """Expect a tree over all units: its levels grow as the units do."""
    nodes: list[GraphNode] = []
    before: Sequence[str] = maps
    units_of_part = sum(node.units for node in dry.nodes if node.level == 1)
    units = round(units_of_part * scale)
    counts = _scale_levels(dry, scale)
    for level, count in enumerate(counts, start=1):
        reducers = spread_level(dry.prefix, level, count, before, units)
        nodes += reducers
        before = [node.id for node in reducers]
        units = count
    about = dry.about or bool(counts)
    final = f"{dry.prefix}final-reduce"
    level = len(counts) + 1
    parents = tuple(before) if counts else EVERY_MAP
    nodes.append(GraphNode(final, "final-reduce", level, parents, units, about=about))
    return nodes


def _scale_levels(dry: DryReduce, scale: float) -> list[int]:
    """Expect how many nodes each level below the final one has."""
    levels = Counter(node.level for node in dry.nodes if node.type == "reduce")
    if not levels and dry.calls > 1:
        return [dry.calls - 1]
    return [round(levels[level] * scale) for level in sorted(levels)]


def _with_all_maps(dry: DryReduce) -> list[GraphNode]:
    """Expect the same nodes, but that they read what all maps have found."""
    names = {node.id for node in dry.nodes}
    nodes: list[GraphNode] = []
    for node in dry.nodes:
        own = [parent for parent in node.parents if parent in names]
        parents = (*own, *EVERY_MAP)
        expected = _make_expected_node(node, about=dry.about)
        nodes.append(replace(expected, parents=parents))
    return nodes


def _scale_groups(dry: DryReduce, part: Part, maps: Sequence[str]) -> list[GraphNode]:
    """Expect a tree per group, each of them like the others."""
    drawn = {id(group): group for group in part.groups.values()}.values()
    count = round(sum(group.weight for group in drawn))
    inner = sum(node.type == "reduce" for node in dry.nodes)
    inner_of_each = math.ceil(inner / len(drawn))
    rows_of_each = round(len(part.units) * part.scale / count)
    nodes: list[GraphNode] = []
    for number in range(count):
        place = number * len(maps) // count
        read = maps[place : place + 1]
        prefix = f"{dry.prefix}group-{number}-"
        nodes += _expect_group(prefix, read, inner_of_each, rows_of_each)
    return nodes


def _expect_group(prefix: str, before: Sequence[str], inner: int, rows: int) -> list[GraphNode]:
    """Expect the tree of one group: so many nodes below the final one."""
    name = f"{prefix}final-reduce"
    if not inner:
        return [GraphNode(name, "final-reduce", 1, tuple(before), rows, about=True)]
    nodes = spread_level(prefix, 1, inner, before, rows)
    parents = tuple(node.id for node in nodes)
    final = GraphNode(name, "final-reduce", 2, parents, inner, about=True)
    return [*nodes, final]
