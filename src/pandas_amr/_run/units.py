"""The units of a run; and the part of them that is run dry, if they are many."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._plan.compute import all_labels, group_rows
from pandas_amr._run.sample import shards_of, spread_places
from pandas_amr._units.by import find_missing_keys
from pandas_amr._units.units import Units, make_units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pandas_amr._context.spec import Spec
    from pandas_amr._units.shards import Shard

MOST_SHARDS = 1000  # that are run dry; as many groups
MOST_UNITS = 30_000  # likewise


def make_read_units(spec: Spec) -> Units:
    """Make units of the rows; equal ones that a model reads are asked about once."""
    job = spec.job
    if job.maps:
        is_read = not job.all_callable and spec.plan.view != "preview"
    else:
        is_read = spec.is_written
    if spec.lms and is_read:
        counter = spec.counter("map" if job.maps else "reduce")
        units = make_units(job.frame, job.columns, dedupe=_may_dedupe(spec), counter=counter)
    else:
        units = make_units(job.frame, job.columns, dedupe=False)
    if spec.has_repl("map") or job.all_callable:  # code sees all columns: they all make the key
        return replace(units, known_by=tuple(range(len(job.frame.columns))))
    return units


def _may_dedupe(spec: Spec) -> bool:
    """Tell whether units with equal content are equal to whoever maps them."""
    job = spec.job
    if not spec.plan.dedupe or not job.maps or job.callables:
        return False
    if spec.has_repl("map") and len(job.columns) < len(job.frame.columns):
        return False  # code sees the other columns, too
    return all(isinstance(agent.instruction, str) for agent in job.map_agents.values())


@dataclass(frozen=True)
class Part:
    """The units that are run dry: all of them, or some from all over the frame.

    Attributes:
        sizes: the units of each shard that is to be mapped, of the whole.
        shards: the shards of all units.
        scale: how many units of the whole there are per unit of the part.
        groups: likewise for the groups that agents write about; 0 if these are yet to be found.
    """

    spec: Spec
    units: Units
    sizes: tuple[int, ...] = ()
    shards: int = 0
    scale: float = 1.0
    groups: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether it is all."""
        return self.scale == 1


def draw_part(spec: Spec, units: Units, unmapped: Units) -> Part:
    """Draw some of the units if they are many: whole groups if these are known, or whole shards."""
    shards = shards_of(spec, units)
    open_shards = shards if unmapped is units else shards_of(spec, unmapped)
    whole = Part(spec, units, tuple(len(one.positions) for one in open_shards), len(shards))
    groups = _known_groups(spec)
    most = min(MOST_SHARDS, MOST_UNITS * len(shards) // max(1, len(units.asked)))
    if len(shards) <= most and len(groups) <= MOST_SHARDS:
        return whole
    if groups:
        rows, drawn = _draw_groups(groups, len(units) * most // len(shards))
        return replace(_take_rows(whole, rows), groups=len(groups) / drawn)
    places = spread_places(len(shards), max(1, most))
    return _take_rows(whole, _rows_of(units, [shards[place] for place in places]))


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
    job = whole.spec.job
    frame = job.frame.iloc[rows]
    by = job.by.at(rows, frame.index) if job.by is not None else None
    spec = replace(whole.spec, job=replace(job, frame=frame, by=by))
    units = make_read_units(spec)
    scale = len(whole.units.asked) / len(units.asked)
    return replace(whole, spec=spec, units=units, scale=scale)


def _known_groups(spec: Spec) -> list[list[int]]:
    """Return the rows of each group that agents write about."""
    job = spec.job
    if job.by is None or has_found_groups(spec) or not (spec.is_written or job.column_agents):
        return []
    return [rows for rows in group_rows(job.frame, job.by)[1] if rows]


def has_found_groups(spec: Spec) -> bool:
    """Tell whether the groups are of a field that is still to be found."""
    job = spec.job
    if job.by is None:
        return False
    return bool(find_missing_keys(job.by, all_labels(job.frame), job.frame.index))
