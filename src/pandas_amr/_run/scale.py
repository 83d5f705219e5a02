"""What a part of the units took, scaled to all of them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pandas_amr._reduce.packing import level_calls
from pandas_amr._reduce.task import make_reduce_agent, reduce_budget
from pandas_amr._run.cost import Cost, sum_costs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._records.trace import Node
    from pandas_amr._reduce.task import ReduceTask
    from pandas_amr._run.part import Extent, Part

GROUP_NUMBER = re.compile(r"group-(\d+)-")  # in the name of a node


def scale_map(short: Cost, long: Cost, *, drawn: Extent, whole: Extent) -> None:
    """Make what a map of a part took what a map of the whole takes.

    The whole has the tokens of its units, which are counted, and as many beside them per shard.

    Args:
        short: what the shards took but for the long units.
        long: what long units took.
        drawn: the shards of the part.
        whole: all shards that are to be mapped.
    """
    shards = whole.short
    if drawn.long:
        per_long = whole.long / drawn.long
        long.scale(per_long, per_long)
    else:
        shards += whole.long
    if not drawn.short:
        return
    beside = max(0.0, short.input_tokens - drawn.tokens)
    short.calls = round(short.calls * shards / drawn.short)
    short.input_tokens = whole.tokens + beside * shards / drawn.short
    short.output_tokens *= whole.units / drawn.units


@dataclass(frozen=True)
class TreeBounds:
    """What the nodes of a tree of agents are given.

    Attributes:
        opening: the tokens of a prompt without findings.
        share: most tokens of findings, if a tree is packed by these.
        fan_in: of a static tree; None for one that is packed.
        size: most findings of a batch.
    """

    opening: int
    share: int
    fan_in: int | None
    size: int

    @classmethod
    def of(cls, spec: Spec, services: Services, state: State, task: ReduceTask) -> TreeBounds:
        """Count the opening of an agent, and what its window leaves for findings."""
        agent = make_reduce_agent(spec, services, state, task)
        opening = 0
        for message in agent.prompt.messages((), final=True):
            opening += agent.count(message.content or "")
        share = max(1, reduce_budget(spec, task).share)
        size = spec.plan.shard_size or 1
        return cls(opening, share, spec.plan.fan_in, size)


def scale_groups(nodes: Sequence[Node], part: Part, bounds: TreeBounds) -> Cost:
    """Return what the trees of all groups take, by the nodes of those of some, or of their part."""
    by_group: dict[int, list[Node]] = {}
    for node in nodes:
        found = GROUP_NUMBER.search(node.id)
        if found is not None:
            number = int(found[1])
            by_group.setdefault(number, []).append(node)
    total = Cost("reduce")
    calls = 0.0  # of groups by their weights, which are no whole numbers
    for number, of_group in by_group.items():
        group = part.groups[number]
        weight = group.weight
        cost = scale_tree(of_group, bounds, drawn=group.drawn, whole=group.rows)
        stands_for_other_trees = weight > 1 and cost.calls > 1
        total.about |= cost.about or stands_for_other_trees
        calls += weight * cost.calls
        total.add(0, weight * cost.input_tokens, weight * cost.output_tokens)
    total.calls = round(calls)
    return total


def scale_tree(
    nodes: Sequence[Node],
    bounds: TreeBounds,
    *,
    drawn: int,
    whole: int,
    leaves: tuple[bool, ...] | None = None,
) -> Cost:
    """Return what a tree over all findings takes, by the nodes of a tree over some of them.

    Args:
        nodes: those of the tree over some.
        bounds: what they are given.
        drawn: how many units these are of.
        whole: how many units there are.
        leaves: of a tree that takes findings as they land: the map's shards.
    """
    inner, final = _add_levels(nodes)
    if drawn == whole:
        cost = sum_costs([*inner, final])
        cost.about = bounds.fan_in is None and len(inner) > 0
        return cost
    if bounds.fan_in is None:
        return _scale_adaptive(inner, final, bounds, whole / drawn)
    if leaves is not None:
        calls = level_calls(leaves, bounds.fan_in)
        return _scale_static(inner, final, calls)
    # Leaves are batches of findings: of as many as a shard has, unless tokens bound them.
    calls_of_part = [level.calls for level in (*inner, final)]
    expected_of_part = level_calls(_make_batches(bounds, drawn), bounds.fan_in)
    calls = level_calls(_make_batches(bounds, whole), bounds.fan_in)
    cost = _scale_static(inner, final, calls)
    cost.about = calls_of_part != expected_of_part
    return cost


def _add_levels(nodes: Sequence[Node]) -> tuple[list[Cost], Cost]:
    """Add up the nodes of each level below the final one, and of that."""
    final = Cost("reduce")
    levels: dict[int, Cost] = {}
    for node in nodes:
        level = final
        if node.type == "reduce":
            level = levels.setdefault(node.level, Cost("reduce"))
        level.add_usage(node.usage)
    return list(levels.values()), final


def _make_batches(bounds: TreeBounds, units: int) -> tuple[bool, ...]:
    """Make the leaves of a tree over so many units: a reducer reads each of them."""
    count = math.ceil(units / bounds.size)
    return (True,) * count


def _scale_static(inner: Sequence[Cost], final: Cost, wanted: Sequence[int]) -> Cost:
    """Scale each level to the calls of a tree over all; levels that are missing are like others."""
    cost = Cost("reduce")
    *inner_calls, final_calls = wanted
    alike = final
    for number, calls in enumerate(inner_calls):
        if number < len(inner):
            alike = inner[number]
        scale = calls / max(1, alike.calls)
        cost.add(calls, alike.input_tokens * scale, alike.output_tokens * scale)
    cost.add(final_calls, final.input_tokens, final.output_tokens)
    return cost


def _scale_adaptive(inner: Sequence[Cost], final: Cost, bounds: TreeBounds, scale: float) -> Cost:
    """Scale a tree that is packed by tokens."""
    cost = Cost("reduce")
    for level in inner:
        calls = round(level.calls * scale)
        cost.add(calls, level.input_tokens * scale, level.output_tokens * scale)
    if inner:
        cost.add(final.calls, final.input_tokens, final.output_tokens)
        cost.about = True
        return cost
    opening = min(bounds.opening, final.input_tokens)
    findings = (final.input_tokens - opening) * scale
    cost.about = 2 * findings > bounds.share  # too near to the bound to be certain
    if findings <= bounds.share:
        cost.add(final.calls, opening + findings, final.output_tokens)
        return cost
    nodes = math.ceil(findings / bounds.share)
    answers = nodes * final.output_tokens
    cost.add(nodes, nodes * opening + findings, answers)
    cost.add(final.calls, opening + answers, final.output_tokens)
    return cost
