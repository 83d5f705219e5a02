"""What the parts have found, joined: as one map stage would have left it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._engines.dask.messages import MapOutcome, PartOutcome
from pandas_amr._findings.finding_type import only_list_type
from pandas_amr._findings.map_findings import SKIPPED, MapFindings
from pandas_amr._findings.store import FindingStore
from pandas_amr._plan.call import finding_types
from pandas_amr._run.part_rows import PartNodes, plain_units, select_columns
from pandas_amr._run.pipeline import make_read_units, may_dedupe

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from pandas_amr._context.spec import Spec
    from pandas_amr._findings.store import Failure
    from pandas_amr._units.units import Units


@dataclass(frozen=True)
class JoinedParts:
    """All parts as one.

    Attributes:
        spec: what was asked for; of a frame that is not here, about the columns that were returned.
        findings: what was found.
        failures: the rows that failed.
        made_by: names the node of a row.
        starts: the position of each part's first row.
    """

    spec: Spec
    findings: MapFindings
    failures: list[Failure]
    made_by: Callable[[int], tuple[str, ...]]
    starts: Sequence[int]


@dataclass
class _Stacked:
    """The units of all parts, one after the other.

    Attributes:
        asked: their positions, part by part.
        answered_by: for each row, the number of its unit, part by part.
        statuses: the status of each unit, by the map's name.
        from_journal: whether the journal had what is known of it, likewise.
        digests: of the content of each unit, if these are known.
    """

    asked: list[NDArray[np.int64]] = field(default_factory=list)
    answered_by: list[NDArray[np.int64]] = field(default_factory=list)
    statuses: dict[str | None, NDArray[np.object_]] = field(default_factory=dict)
    from_journal: dict[str | None, NDArray[np.bool_]] = field(default_factory=dict)
    digests: list[bytes] = field(default_factory=list)


def join_parts(
    spec: Spec, outcomes: Mapping[int, PartOutcome], rows: Sequence[int], *, are_here: bool
) -> JoinedParts:
    """Join what came of the parts. Rows of a part of which nothing came are skipped.

    Args:
        spec: what the run was asked for.
        outcomes: what came of the parts, by their numbers.
        rows: how many rows each part has; 0 if that is not known.
        are_here: whether the spec is about the rows.
    """
    starts = [0, *accumulate(rows)]
    stacked = _stack(spec, outcomes, rows)
    if not are_here:
        spec = _with_returned_columns(spec, outcomes)
    base = make_read_units(spec) if are_here else plain_units(spec.job.frame)
    units, kept = _merge_equal(spec, base, stacked, are_here=are_here)
    findings = _make_findings(spec, units, stacked, kept)
    failures: list[Failure] = []
    for number in sorted(outcomes):
        outcome = outcomes[number]
        start = starts[number]
        _add_findings(findings, outcome, start)
        failures += _move(outcome.failures, start)
    nodes = frozenset(f"map-part-{number}" for number in outcomes)
    made_by = PartNodes(starts[:-1] or [0], nodes)
    return JoinedParts(spec, findings, failures, made_by, starts)


def _make_findings(
    spec: Spec, units: Units, stacked: _Stacked, kept: NDArray[np.int64]
) -> MapFindings:
    """Make the findings of the units that are kept, still without what was found."""
    kinds = finding_types(spec.job, spec.plan)
    stores: dict[str | None, FindingStore] = {}
    statuses: dict[str | None, NDArray[np.object_]] = {}
    from_journal: dict[str | None, NDArray[np.bool_]] = {}
    for name in spec.job.names:
        stores[name] = FindingStore(name, kinds[name])
        statuses[name] = stacked.statuses[name][kept]
        from_journal[name] = stacked.from_journal[name][kept]
    record_type = only_list_type(list(kinds.values()))
    return MapFindings(units, stores, statuses, from_journal, record_type)


def _stack(spec: Spec, outcomes: Mapping[int, PartOutcome], rows: Sequence[int]) -> _Stacked:
    """Put the units of the parts one after the other."""
    pieces: list[PartOutcome] = []
    for number, size in enumerate(rows):
        nothing = _nothing_found(spec, size)
        outcome = outcomes.get(number, nothing)
        pieces.append(outcome if outcome.maps else nothing)
    stacked = _Stacked()
    unit_count = row_count = 0
    for piece in pieces:
        stacked.asked.append(piece.asked + row_count)
        stacked.answered_by.append(piece.answered_by + unit_count)
        stacked.digests += piece.digests
        row_count += piece.rows
        unit_count += len(piece.asked)
    for name in spec.job.names:
        statuses = [piece.maps[name].statuses for piece in pieces]
        from_journal = [piece.maps[name].from_journal for piece in pieces]
        stacked.statuses[name] = _concatenate(statuses, object)
        stacked.from_journal[name] = _concatenate(from_journal, bool)
    return stacked


def _concatenate(arrays: Sequence[NDArray[Any]], kind: type) -> NDArray[Any]:
    """Join arrays, of which there may be none."""
    return np.concatenate([np.empty(0, dtype=kind), *arrays])


def _nothing_found(spec: Spec, rows: int) -> PartOutcome:
    """Make the outcome of a part of which nothing came."""
    units = np.arange(rows, dtype=np.int64)
    statuses = np.full(rows, SKIPPED, dtype=object)
    from_journal = np.zeros(rows, dtype=bool)
    found = MapOutcome(units[:0], pa.table({}), statuses, from_journal)
    maps = dict.fromkeys(spec.job.names, found)
    return PartOutcome(rows, units, units, maps)


def _with_returned_columns(spec: Spec, outcomes: Mapping[int, PartOutcome]) -> Spec:
    """Make the call one about the columns that the parts have returned."""
    frames: list[pd.DataFrame] = []
    for number in sorted(outcomes):
        columns = outcomes[number].columns
        if columns is not None:
            frames.append(columns)
    frame = pd.concat(frames) if frames else spec.job.frame.iloc[:0]
    return replace(spec, job=select_columns(spec, frame))


def _merge_equal(
    spec: Spec, base: Units, stacked: _Stacked, *, are_here: bool
) -> tuple[Units, NDArray[np.int64]]:
    """Make one unit of equal units of several parts that have come to the same.

    Returns:
        The units, and which of the stacked ones they are.
    """
    all_asked = _concatenate(stacked.asked, np.int64)
    contents: Sequence[Hashable] | None = None
    if are_here and may_dedupe(spec):
        contents = base.answered_by[all_asked].tolist()
    elif stacked.digests and len(stacked.digests) == len(all_asked):
        contents = stacked.digests
    kept = np.arange(len(all_asked))
    places = kept
    if contents is not None:
        kept, places = _keep_first(contents, list(stacked.statuses.values()))
    asked = all_asked[kept]
    answered_by = places[_concatenate(stacked.answered_by, np.int64)]
    tokens = base.tokens[base.answered_by[asked]]
    empty = asked[base.is_empty_row[asked]]
    units = replace(base, asked=asked, answered_by=answered_by, tokens=tokens, empty=empty)
    return units, kept


def _keep_first(
    contents: Sequence[Hashable], statuses: Sequence[NDArray[np.object_]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keep the first of units with the same content and statuses.

    Returns:
        Which ones are kept; and for each unit, which of the kept ones stands for it.
    """
    known: dict[Any, int] = {}
    kept: list[int] = []
    places = np.empty(len(contents), dtype=np.int64)
    for number, content in enumerate(contents):
        key = (content, *(column[number] for column in statuses))
        if key not in known:
            known[key] = len(kept)
            kept.append(number)
        places[number] = known[key]
    return np.array(kept, dtype=np.int64), places


def _add_findings(findings: MapFindings, outcome: PartOutcome, start: int) -> None:
    """Add what was found of a part, but of units that equal one of an earlier part."""
    for name, found in outcome.maps.items():
        positions = found.positions + start
        is_kept = np.isin(positions, findings.units.asked)
        if is_kept.any():
            kept = positions[is_kept].tolist()
            findings.stores[name].add(kept, found.table.filter(is_kept))
        asked_of_part = findings.units.asked - start
        for position in np.intersect1d(list(found.corrected), asked_of_part).tolist():
            unit = found.corrected[position]
            failures = tuple(_move(unit.failures, start))
            of_map = findings.corrected.setdefault(name, {})
            of_map[position + start] = replace(unit, failures=failures)


def _move(failures: Iterable[Failure], start: int) -> list[Failure]:
    """Count the positions of a part's failures from the beginning of all rows."""
    return [replace(failure, position=failure.position + start) for failure in failures]


def rows_found(
    outcome: PartOutcome, found: MapOutcome
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of a part with a finding of a map, and the place of each one's finding."""
    unit_of_row = outcome.asked[outcome.answered_by]
    is_found = np.isin(unit_of_row, found.positions)
    rows = np.flatnonzero(is_found)
    places = np.searchsorted(found.positions, unit_of_row[rows])
    return rows, places
