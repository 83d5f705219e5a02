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

    from numpy.typing import NDArray

    from pandas_amr._context.spec import Spec
    from pandas_amr._units.units import Units


@dataclass(frozen=True)
class Sample:
    """Some of the asked units, in blocks: ``blocks`` has a number for each of ``positions``."""

    positions: NDArray[np.int64]
    blocks: NDArray[np.int64]

    def blocks_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the blocks of some of them."""
        order = np.argsort(self.positions)
        return self.blocks[order][np.searchsorted(self.positions[order], positions)]


def cut_shards(spec: Spec, units: Units, groups: NDArray[np.int64] | None) -> list[Shard]:
    """Cut the asked units into shards; with a group for each, no shard has units of two."""
    size, tokens = spec.plan.shard_size, spec.plan.shard_tokens
    assert size is not None
    assert tokens is not None
    return make_shards(
        units.asked, units.tokens, shard_size=size, shard_tokens=tokens, groups=groups
    )


def drop_empty(shards: Sequence[Shard], units: Units) -> list[Shard]:
    """Leave the units without content out of shards. A shard may then have no unit."""
    if not len(units.empty):
        return list(shards)
    empty = set(units.empty.tolist())
    read: list[Shard] = []
    for shard in shards:
        positions = tuple(one for one in shard.positions if one not in empty)
        read.append(replace(shard, positions=positions))
    return read


def cuts_empty(spec: Spec) -> bool:
    """Tell whether shards are cut with empty units: a map reads them, or keys are made of all."""
    return spec.plan.keyed == "shard" or functions_read_empty(spec)


def functions_read_empty(spec: Spec) -> bool:
    """Tell whether a map reads empty units: agents, and recipes that ask a model, do not."""
    return any(not may_ask_model(function) for function in spec.job.callables.values())


def cut_first_run(spec: Spec, units: Units, context: Context | None) -> list[Shard]:
    """Cut units into shards as a first run does. One may hold nothing but empty units."""
    if not cuts_empty(spec):
        units = units.with_content()
    groups = context.groups(units.asked) if context is not None else None
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
        added.setdefault(before[-1] if before else 0, []).append(position)
    with_units = list(shards)
    for place, extra in added.items():
        own = shards[place].positions
        with_units[place] = replace(shards[place], positions=tuple(sorted([*own, *extra])))
    return with_units


def make_context(spec: Spec, units: Units) -> Context | None:
    """Make what is shown with a shard: neighbouring rows, or its group; None if nothing is."""
    plan = spec.plan
    if plan.segmentation in {None, "rows"} or spec.job.all_callable:
        return None
    assert plan.segmentation is not None
    labels = list(spec.job.frame.columns)
    columns = tuple(labels.index(label) for label in plan.group_columns or ())
    return Context(units, plan.segmentation, plan.context_rows or CONTEXT_ROWS, columns)
