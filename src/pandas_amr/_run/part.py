"""The units that are run dry: all of them, or a part if they are many."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._map.cut import Sample, cut_first_run, drop_empty, make_context
from pandas_amr._plan.call import may_ask_model
from pandas_amr._plan.compute import all_labels, group_rows
from pandas_amr._run.sample import make_sample, shards_of, spread_places
from pandas_amr._units.by import find_missing_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pandas_amr._context.spec import Spec
    from pandas_amr._map.stage import MapStage
    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units

MOST_SHARDS = 1000  # that are run dry; as many groups
MOST_UNITS = 30_000  # likewise


@dataclass(frozen=True)
class Part:
    """The units that are run dry: all of them, or some from all over the frame.

    Attributes:
        sizes: the units of each shard that is to be mapped, of the whole.
        leaves: the shards of all units: whether reducers read anything of them.
        scale: how many units of the whole there are per unit of the part.
        groups: likewise for the groups that agents write about; 0 if these are yet to be found.
        sample: the units that are mapped, if only some are; the shards of a large one are drawn.
    """

    spec: Spec
    units: Units
    sizes: tuple[int, ...] = ()
    leaves: tuple[bool, ...] = ()
    scale: float = 1.0
    groups: float = 0.0
    sample: Sample | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is all."""
        return self.scale == 1


def draw_part(spec: Spec, units: Units, stage: MapStage | None) -> Part:
    """Draw some of the units if they are many: whole groups if these are known, or whole shards.

    Args:
        spec: what the run is asked for.
        units: all units of the run.
        stage: the map that is about to run; None if none is begun.
    """
    shards = shards_of(spec, units)
    open_shards = shards if stage is None else stage.open_shards
    sizes = tuple(len(shard.positions) for shard in open_shards)
    whole = Part(spec, units, sizes, _find_leaves(spec, units))
    if stage is not None and stage.sample is not None:
        return _draw_from_sample(whole, open_shards)
    groups = _known_groups(spec, units)
    readable = sum(len(shard.positions) for shard in shards)
    most = min(MOST_SHARDS, MOST_UNITS * len(shards) // max(1, readable))
    if len(shards) <= most and len(groups) <= MOST_SHARDS:
        return whole
    if groups:
        rows, drawn = _draw_groups(groups, len(units) * most // len(shards))
        return replace(_take_rows(whole, rows), groups=len(groups) / drawn)
    places = spread_places(len(shards), max(1, most))
    return _take_rows(whole, _rows_of(units, [shards[place] for place in places]))


def _find_leaves(spec: Spec, units: Units) -> tuple[bool, ...]:
    """Tell of each shard of a first run whether anything of it is read: empty units are not."""
    leaves = cut_first_run(spec, units, make_context(spec, units))
    if any(not may_ask_model(function) for function in spec.job.callables.values()):
        return (True,) * len(leaves)
    return tuple(bool(shard.positions) for shard in drop_empty(leaves, units))


def _draw_from_sample(whole: Part, shards: Sequence[Shard]) -> Part:
    """Draw some of the shards of a sample, which a run maps alone, if they are many."""
    places = spread_places(len(shards), min(MOST_SHARDS, len(shards)))
    drawn = [shards[place].positions for place in places]
    scale = sum(whole.sizes) / max(1, sum(map(len, drawn)))
    return replace(whole, sample=make_sample(drawn), scale=scale if drawn else 1.0)


def _rows_of(units: Units, shards: Sequence[Shard]) -> NDArray[np.int64]:
    asked = np.concatenate([shard.positions for shard in shards])
    return np.flatnonzero(np.isin(units.asked, asked)[units.answered_by])


def _draw_groups(groups: list[list[int]], most_rows: int) -> tuple[NDArray[np.int64], int]:
    """Draw whole groups until they have so many rows; return the rows, and how many groups."""
    rows: list[int] = []
    drawn = 0
    for place in np.random.default_rng(0).permutation(len(groups))[:MOST_SHARDS].tolist():
        if len(rows) < most_rows:
            rows += groups[place]
            drawn += 1
    return np.array(sorted(rows), dtype=np.int64), drawn


def _take_rows(whole: Part, rows: NDArray[np.int64]) -> Part:
    """Return the part that some rows are, as a frame of their own."""
    job, units = whole.spec.job, whole.units.take(rows)
    by = job.by.at(rows, units.frame.index) if job.by is not None else None
    redacted = None if job.redacted is None else units.sent
    spec = replace(whole.spec, job=replace(job, frame=units.frame, redacted=redacted, by=by))
    readable = len(whole.units.with_content().asked)
    return replace(whole, spec=spec, units=units, scale=readable / len(units.with_content().asked))


def _known_groups(spec: Spec, units: Units) -> list[list[int]]:
    """Return the rows of each group that agents write about: of those that have any content."""
    job = spec.job
    if job.by is None or has_found_groups(spec) or not (spec.is_written or job.column_agents):
        return []
    groups = [rows for rows in group_rows(job.frame, job.by)[1] if rows]
    if not len(units.empty) or any(not may_ask_model(one) for one in job.callables.values()):
        return groups
    is_empty = units.is_empty_row
    return [rows for rows in groups if not is_empty[rows].all()]


def has_found_groups(spec: Spec) -> bool:
    """Tell whether the groups are of a field that is still to be found."""
    job = spec.job
    if job.by is None:
        return False
    return bool(find_missing_keys(job.by, all_labels(job.frame), job.frame.index))
