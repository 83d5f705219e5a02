"""Units into shards, as the plan cuts them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._plan.call import may_ask_model
from pandas_amr._units.neighbours import CONTEXT_ROWS, Context
from pandas_amr._units.shards import Shard, make_shards

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._context.spec import Spec
    from pandas_amr._units.rows import IntArray
    from pandas_amr._units.units import Units


@dataclass(frozen=True)
class Sample:
    """Some of the asked units, in blocks: ``blocks`` has a number for each of ``positions``."""

    positions: IntArray
    blocks: IntArray

    def blocks_of(self, positions: IntArray) -> IntArray:
        """Return the blocks of some of them."""
        order = np.argsort(self.positions)
        places = np.searchsorted(self.positions[order], positions)
        return self.blocks[order][places]


def cut_shards(spec: Spec, units: Units, groups: IntArray | None) -> list[Shard]:
    """Cut the asked units into shards; with a group for each, no shard has units of two."""
    plan = spec.plan
    assert plan.shard_size is not None
    assert plan.shard_tokens is not None
    return make_shards(
        units.asked,
        units.tokens,
        shard_size=plan.shard_size,
        shard_tokens=plan.shard_tokens,
        groups=groups,
    )


def drop_empty(shards: Sequence[Shard], units: Units) -> list[Shard]:
    """Leave the units without content out of shards. A shard may then have no unit."""
    if not len(units.empty):
        return list(shards)
    empty = set(units.empty.tolist())
    read: list[Shard] = []
    for shard in shards:
        positions = [position for position in shard.positions if position not in empty]
        read.append(replace(shard, positions=tuple(positions)))
    return read


def cuts_empty(spec: Spec) -> bool:
    """Tell whether shards are cut with empty units: a map reads them, or keys are made of all."""
    return spec.plan.keyed == "shard" or functions_read_empty(spec)


def functions_read_empty(spec: Spec) -> bool:
    """Tell whether a map reads empty units: agents, and recipes that ask a model, do not."""
    functions = spec.job.callables.values()
    return not all(may_ask_model(function) for function in functions)


def cut_first_run(spec: Spec, units: Units, context: Context | None) -> list[Shard]:
    """Cut units into shards as a first run does. One may hold nothing but empty units."""
    if not cuts_empty(spec):
        units = units.with_content()
    groups = None
    if context is not None:
        groups = context.groups(units.asked)
    return cut_shards(spec, units, groups)


def add_units(shards: Sequence[Shard], positions: Sequence[int]) -> list[Shard]:
    """Add units to the shards between whose units they stand, or to the first one.

    Example:
        >>> add_units([Shard(1, 2, (1, 2)), Shard(2, 2, (5, 6))], [0, 3])
        [<Shard 1/2 rows=4>, <Shard 2/2 rows=2>]
    """
    if not positions:
        return list(shards)
    if not shards:
        return [Shard(1, 1, tuple(sorted(positions)))]
    firsts = [min(shard.positions, default=0) for shard in shards]
    added: dict[int, list[int]] = {}
    for position in positions:
        before = [place for place, first in enumerate(firsts) if first < position]
        place = before[-1] if before else 0
        added.setdefault(place, []).append(position)
    with_units = list(shards)
    for place, extra in added.items():
        shard = shards[place]
        units = sorted([*shard.positions, *extra])
        with_units[place] = replace(shard, positions=tuple(units))
    return with_units


def make_context(spec: Spec, units: Units) -> Context | None:
    """Make what is shown with a shard: neighbouring rows, or its group; None if nothing is."""
    plan = spec.plan
    if plan.segmentation in {None, "rows"} or spec.job.all_callable:
        return None
    assert plan.segmentation is not None
    labels = list(spec.job.frame.columns)
    columns = [labels.index(label) for label in plan.group_columns or ()]
    rows = plan.context_rows or CONTEXT_ROWS
    return Context(units, plan.segmentation, rows, tuple(columns))
