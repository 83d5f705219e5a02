"""The units that are run dry: all of them, or a part if they are many."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pandas_amr._map.cut import (
    Sample,
    cut_first_run,
    drop_empty,
    functions_read_empty,
    make_context,
)
from pandas_amr._plan.compute import all_labels, group_rows
from pandas_amr._run.sample import make_sample, shards_of, spread_places
from pandas_amr._units.by import find_missing_keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pandas_amr._context.spec import Spec
    from pandas_amr._map.stage import MapStage
    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units

Item = TypeVar("Item")

MOST_SHARDS = 1000  # that are run dry
MOST_GROUPS = 200  # likewise: each has a tree of its own
MOST_UNITS = 3_000  # likewise: these take half a second
MOST_LONG_TOKENS = 500_000  # of long units that are run dry beside them: a second or two


@dataclass(frozen=True)
class Extent:
    """How much some shards are.

    Attributes:
        long: shards of one unit that is so long that agents read it piece by piece.
        short: the other shards.
        units: those of the other shards.
        tokens: likewise.
    """

    long: int = 0
    short: int = 0
    units: int = 0
    tokens: int = 0

    @classmethod
    def of(cls, spec: Spec, units: Units, shards: Sequence[Shard]) -> Extent:
        """Count shards and their units."""
        long = find_long(spec, units, shards)
        short: list[int] = []
        for shard in shards:
            if long.isdisjoint(shard.positions):
                short += shard.positions
        tokens = int(units.sizes(short).sum())
        return cls(long=len(long), short=len(shards) - len(long), units=len(short), tokens=tokens)


@dataclass(frozen=True)
class DrawnGroup:
    """A group of which rows are in the part.

    Attributes:
        rows: how many it has.
        drawn: how many of them are in the part.
        weight: for how many groups it stands.
    """

    rows: int
    drawn: int
    weight: float


@dataclass(frozen=True)
class Part:
    """The units that are run dry: all of them, or some from all over the frame.

    Attributes:
        shards: those that are to be mapped, of the whole.
        extent: how much these are.
        leaves: the shards of all units: whether reducers read anything of them.
        scale: how many units of the whole there are per unit of the part.
        groups: the groups that agents write about, by their number in the part; empty if these are
            yet to be found, and for the whole.
        sample: the units that are mapped, if only some are; the shards of a large one are drawn.
    """

    spec: Spec
    units: Units
    shards: Sequence[Shard] = ()
    extent: Extent = field(default_factory=Extent)
    leaves: tuple[bool, ...] = ()
    scale: float = 1.0
    groups: Mapping[int, DrawnGroup] = field(default_factory=dict)
    sample: Sample | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is all."""
        return self.scale == 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """The units of each shard that is to be mapped, of the whole."""
        return tuple(len(shard.positions) for shard in self.shards)


def draw_part(spec: Spec, units: Units, stage: MapStage | None) -> Part:
    """Draw some of the units if they are many: of all groups if these are known, or whole shards.

    Args:
        spec: what the run is asked for.
        units: all units of the run.
        stage: the map that is about to run; None if none is begun.
    """
    shards = shards_of(spec, units)
    open_shards = shards if stage is None else stage.open_shards
    extent = Extent.of(spec, units, open_shards)
    whole = Part(spec, units, open_shards, extent, _find_leaves(spec, units))
    if stage is not None and stage.sample is not None:
        return _draw_from_sample(whole)
    groups = _known_groups(spec, units)
    if len(shards) <= _most_shards(shards) and len(groups) <= MOST_GROUPS:
        return whole
    if groups:
        return _draw_groups(whole, groups)
    drawn = _draw_shards(spec, units, shards)
    return _take_rows(whole, _rows_of(units, drawn))


def _most_shards(shards: Sequence[Shard]) -> int:
    """Return how many shards are run dry: bounded are they, and their units."""
    units = max(1, sum(len(shard.positions) for shard in shards))
    most = MOST_UNITS * len(shards) // units
    return max(1, min(MOST_SHARDS, most))


def _draw_shards(spec: Spec, units: Units, shards: Sequence[Shard]) -> list[Shard]:
    """Draw shards from all over; those of long units all if they are not too many: each differs."""
    positions = find_long(spec, units, shards)
    long: list[Shard] = []
    short: list[Shard] = []
    for shard in shards:
        if positions.isdisjoint(shard.positions):
            short.append(shard)
        else:
            long.append(shard)
    tokens = max(1, int(units.sizes(sorted(positions)).sum()))
    most_long = max(1, MOST_LONG_TOKENS * len(long) // tokens)
    return [*_spread(short, _most_shards(shards)), *_spread(long, most_long)]


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """Draw items from all over; all if they are no more than ``most``."""
    count = len(items)
    places = spread_places(count, min(most, count))
    return [items[place] for place in places]


def find_long(spec: Spec, units: Units, shards: Sequence[Shard]) -> frozenset[int]:
    """Find the units that are longer than a shard may be: each is one."""
    most = spec.plan.shard_tokens
    assert most is not None
    single = [shard.positions[0] for shard in shards if len(shard.positions) == 1]
    sizes = units.sizes(single).tolist()
    long: set[int] = set()
    for position, size in zip(single, sizes, strict=True):
        if size > most:
            long.add(position)
    return frozenset(long)


def _find_leaves(spec: Spec, units: Units) -> tuple[bool, ...]:
    """Tell of each shard of a first run whether anything of it is read: empty units are not."""
    leaves = cut_first_run(spec, units, make_context(spec, units))
    if functions_read_empty(spec):
        return (True,) * len(leaves)
    return tuple(bool(shard.positions) for shard in drop_empty(leaves, units))


def _draw_from_sample(whole: Part) -> Part:
    """Draw some of the shards of a sample, which a run maps alone, if they are many."""
    if not whole.shards:
        return whole
    drawn = list(whole.shards)
    if len(drawn) > _most_shards(drawn):
        drawn = _draw_shards(whole.spec, whole.units, drawn)
    sample = make_sample([shard.positions for shard in drawn])
    scale = sum(whole.sizes) / len(sample.positions)
    return replace(whole, sample=sample, scale=scale)


def _rows_of(units: Units, shards: Sequence[Shard]) -> NDArray[np.int64]:
    """Return the rows that the units of some shards answer for."""
    positions = np.concatenate([shard.positions for shard in shards])
    is_drawn = np.isin(units.asked, positions)
    is_row_drawn = is_drawn[units.answered_by]
    return np.flatnonzero(is_row_drawn)


def _draw_groups(whole: Part, groups: list[list[int]]) -> Part:
    """Draw rows of the largest group and of others, as many of each; all groups if they are few."""
    *others, largest = sorted(groups, key=len)
    order = np.random.default_rng(0).permutation(len(others))
    drawn = [others[place] for place in order[: MOST_GROUPS - 1]]
    most = max(1, MOST_UNITS // (1 + len(drawn)))
    group_of = _draw_rows(largest, most, weight=1.0)
    for rows in drawn:
        weight = len(others) / len(drawn)
        group_of |= _draw_rows(rows, most, weight=weight)
    positions = sorted(group_of)
    part = _take_rows(whole, np.array(positions, dtype=np.int64))
    drawn_groups = [group_of[position] for position in positions]
    return replace(part, groups=_number_groups(part, drawn_groups))


def _draw_rows(rows: Sequence[int], most: int, *, weight: float) -> dict[int, DrawnGroup]:
    """Draw rows from all over a group; return the group of each."""
    drawn = _spread(rows, most)
    group = DrawnGroup(rows=len(rows), drawn=len(drawn), weight=weight)
    return dict.fromkeys(drawn, group)


def _number_groups(part: Part, groups: Sequence[DrawnGroup]) -> dict[int, DrawnGroup]:
    """Return the groups by their number in a part, by the group of each of its rows."""
    job = part.spec.job
    assert job.by is not None
    _, rows_by_number = group_rows(job.frame, job.by)
    by_number: dict[int, DrawnGroup] = {}
    for number, rows in enumerate(rows_by_number):
        if rows:
            by_number[number] = groups[rows[0]]
    return by_number


def _take_rows(whole: Part, rows: NDArray[np.int64]) -> Part:
    """Return the part that some rows are, as a frame of their own."""
    units = whole.units.take(rows)
    job = replace(whole.spec.job, frame=units.frame)
    if job.by is not None:
        by = job.by.at(rows, units.frame.index)
        job = replace(job, by=by)
    if job.redacted is not None:
        job = replace(job, redacted=units.sent)
    spec = replace(whole.spec, job=job)
    scale = _count(whole.units) / _count(units)
    return replace(whole, spec=spec, units=units, scale=scale)


def _count(units: Units) -> int:
    """Count the units that have content; all if none has."""
    return len(units.with_content().asked) or len(units.asked)


def _known_groups(spec: Spec, units: Units) -> list[list[int]]:
    """Return the rows of each group that agents write about, without those that nothing reads."""
    job = spec.job
    is_written = spec.reduce_kind == "agents_by_group" or job.column_agents
    if job.by is None or not is_written or has_found_groups(spec):
        return []
    is_read = np.ones(len(units), dtype=bool)
    if len(units.empty) and not functions_read_empty(spec):
        is_read = ~units.is_empty_row
    _, groups = group_rows(job.frame, job.by)
    known: list[list[int]] = []
    for rows in groups:
        read = [row for row in rows if is_read[row]]
        if read:
            known.append(read)
    return known


def has_found_groups(spec: Spec) -> bool:
    """Tell whether the groups are of a field that is still to be found."""
    job = spec.job
    if job.by is None:
        return False
    labels = all_labels(job.frame)
    return bool(find_missing_keys(job.by, labels, job.frame.index))
