"""Findings that a person corrected: what was found is known still, and can be restored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from pandas_amr._findings.map_findings import SKIPPED
from pandas_amr._findings.store import CORRECTED, Failure, MapName
from pandas_amr._types.arrow_values import make_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._findings.map_findings import MapFindings


@dataclass(frozen=True, slots=True)
class Correction:
    """What a person says in place of a unit's finding.

    Attributes:
        record: the whole finding, as Arrow takes it.
        form: the finding in JSON that is read as this record again; None if none is.
        fields: the names of the fields that the person gave; the others stay as they were found.
    """

    record: Mapping[str, Any]
    form: Mapping[str, Any] | None
    fields: tuple[str, ...]


# By the map's name and the unit's position; None takes a correction back.
Corrections: TypeAlias = "Mapping[MapName, Mapping[int, Correction | None]]"


@dataclass(frozen=True, slots=True)
class CorrectedUnit:
    """What is known of a unit that a person corrected.

    Attributes:
        status: its status before.
        from_journal: whether the journal had what was known of it before.
        record: its finding before, as Arrow holds it; None if it had none.
        failures: why it had none, a failure per row.
        fields: the names of the fields that a person gave.
    """

    status: str
    from_journal: bool
    record: Mapping[str, Any] | None
    failures: tuple[Failure, ...] = ()
    fields: tuple[str, ...] = ()


def correct_units(
    findings: MapFindings,
    name: MapName,
    kind: FindingType,
    corrections: Mapping[int, Correction],
    failures: Sequence[Failure] = (),
    *,
    from_journal: bool,
) -> list[Failure]:
    """Put corrections in the place of what a map found of some units.

    Args:
        findings: the findings, which are changed.
        name: the map's name.
        kind: the type of its findings.
        corrections: the corrections by position of an asked unit.
        failures: the failures of all rows.
        from_journal: whether the journal had the corrections.

    Returns:
        The failures that are left.
    """
    positions = sorted(corrections)
    failed, left = _split_failures(findings, name, positions, failures)
    known = _find_known(findings, name, positions, failed)
    corrected = findings.corrected.setdefault(name, {})
    for position in positions:
        before = corrected.get(position, known[position])
        corrected[position] = _add_fields(before, corrections[position].fields)
    store = findings.stores[name]
    places = np.searchsorted(findings.units.asked, positions)
    records = [corrections[position].record for position in positions]
    store.remove(positions)
    store.add(positions, make_table(records, kind.arrow))
    findings.statuses[name][places] = CORRECTED
    findings.from_journal[name][places] = from_journal
    return left


def _find_known(
    findings: MapFindings,
    name: MapName,
    positions: Sequence[int],
    failed: Mapping[int, Sequence[Failure]],
) -> dict[int, CorrectedUnit]:
    """Return what is known of some units."""
    records = findings.stores[name].records(positions)
    known: dict[int, CorrectedUnit] = {}
    statuses, from_journal = findings.statuses[name], findings.from_journal[name]
    for position in positions:
        place = int(np.searchsorted(findings.units.asked, position))
        known[position] = CorrectedUnit(
            status=str(statuses[place]),
            from_journal=bool(from_journal[place]),
            record=records.get(position),
            failures=tuple(failed.get(position, ())),
        )
    return known


def _add_fields(unit: CorrectedUnit, fields: Sequence[str]) -> CorrectedUnit:
    named = dict.fromkeys([*unit.fields, *fields])
    return replace(unit, fields=tuple(named))


def _split_failures(
    findings: MapFindings, name: MapName, positions: Sequence[int], failures: Sequence[Failure]
) -> tuple[dict[int, list[Failure]], list[Failure]]:
    """Split failures into those of some units of a map, by unit, and all others."""
    units = findings.units
    wanted = set(positions)
    of_units: dict[int, list[Failure]] = {}
    others: list[Failure] = []
    for failure in failures:
        unit = -1
        if failure.position >= 0 and failure.map == name:
            place = units.answered_by[failure.position]
            unit = int(units.asked[place])
        if unit in wanted:
            of_units.setdefault(unit, []).append(failure)
        else:
            others.append(failure)
    return of_units, others


def restore_units(
    findings: MapFindings,
    name: MapName,
    kind: FindingType,
    known: Mapping[int, CorrectedUnit],
) -> list[Failure]:
    """Restore what was known of units before they were corrected.

    Args:
        findings: the findings, which are changed, but for ``taken_back``.
        name: the map's name.
        kind: the type of its findings.
        known: what was known, by position of an asked unit.

    Returns:
        The failures that are there again.
    """
    positions = sorted(known)
    store, statuses = findings.stores[name], findings.statuses[name]
    store.remove(positions)
    found: dict[int, Mapping[str, Any]] = {}
    failures: list[Failure] = []
    corrected = findings.corrected.get(name, {})
    for position in positions:
        before = known[position]
        corrected.pop(position, None)
        place = int(np.searchsorted(findings.units.asked, position))
        statuses[place] = before.status
        findings.from_journal[name][place] = before.from_journal
        failures += before.failures
        if before.record is not None:
            found[position] = before.record
    store.add(list(found), make_table(found.values(), kind.arrow))
    return failures


def is_unknown(unit: CorrectedUnit) -> bool:
    """Tell whether nothing was known of a unit before, and not since it has no content."""
    return unit.record is None and unit.status == SKIPPED
