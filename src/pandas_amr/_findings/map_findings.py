"""The findings and statuses of a run's map stage."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._findings.store import FOUND, FindingStore, MapName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr._findings.corrections import CorrectedUnit
    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._units.rows import BoolArray, IntArray, ObjectArray
    from pandas_amr._units.units import Units

EMPTY = "empty"  # a unit without content, which is not asked
SKIPPED = "skipped"
STATUSES = (*FOUND, EMPTY, SKIPPED, "failed")  # from the best to the worst


def none_from_journal(
    statuses: Mapping[MapName, ObjectArray],
) -> dict[MapName, BoolArray]:
    """Say of the units of each map that the journal had none of them."""
    return {name: np.zeros(len(column), dtype=bool) for name, column in statuses.items()}


@dataclass(frozen=True)
class MapFindings:
    """What the map stage has found so far. A later run can continue from it.

    Attributes:
        units: all units of the run.
        stores: the findings, by the map's name.
        statuses: the status of each distinct unit, by the map's name.
        from_journal: which distinct units' findings or failures the journal had, by the map's name.
        is_retry: whether a run that goes on from these findings asks again what failed before,
            however long ago.
        list_type: the finding type, if each unit holds a list of records and there is one map.
        left: the asked units that a run that goes on from these findings leaves as they are, by the
            map's name.
        corrected: what is known of the units that a person corrected, by the map's name and the
            unit's position.
        taken_back: the units of which nothing is known since a correction was taken back.
        is_closed: whether a run that goes on from these findings maps nothing.
    """

    units: Units
    stores: dict[MapName, FindingStore]
    statuses: dict[MapName, ObjectArray]
    from_journal: dict[MapName, BoolArray]
    list_type: FindingType | None = None
    left: dict[MapName, BoolArray] = field(default_factory=dict)
    is_retry: bool = False
    corrected: dict[MapName, dict[int, CorrectedUnit]] = field(default_factory=dict)
    taken_back: frozenset[int] = frozenset()
    is_closed: bool = False

    @property
    def has_findings(self) -> bool:
        """Whether any unit has a finding."""
        return any(np.isin(column, FOUND).any() for column in self.statuses.values())

    def copy(self, *, leave_skipped: bool = False) -> MapFindings:
        """Return a copy that a later run can add to: failed units are open again.

        Args:
            leave_skipped: whether skipped units are not. Those that were left before never are.
        """
        stores = {name: store.copy() for name, store in self.stores.items()}
        corrected = {name: dict(units) for name, units in self.corrected.items()}
        statuses: dict[MapName, ObjectArray] = {}
        from_journal: dict[MapName, BoolArray] = {}
        left: dict[MapName, BoolArray] = {}
        for name, column in self.statuses.items():
            is_failed = column == "failed"
            statuses[name] = np.where(is_failed, SKIPPED, column)
            from_journal[name] = self.from_journal[name] & ~is_failed
            if leave_skipped:
                left[name] = column == SKIPPED
            elif name in self.left:
                left[name] = self.left[name]
        return replace(
            self,
            stores=stores,
            statuses=statuses,
            from_journal=from_journal,
            left=left,
            is_retry=True,
            corrected=corrected,
            taken_back=frozenset(),
            is_closed=False,
        )

    @property
    def has_corrections(self) -> bool:
        """Whether a person corrected anything."""
        return any(self.corrected.values())

    def close(self) -> MapFindings:
        """Return a copy whose findings can be corrected, and to which no run adds any."""
        stores = {name: store.copy() for name, store in self.stores.items()}
        statuses = {name: column.copy() for name, column in self.statuses.items()}
        from_journal = {name: column.copy() for name, column in self.from_journal.items()}
        corrected = {name: dict(units) for name, units in self.corrected.items()}
        return replace(
            self,
            stores=stores,
            statuses=statuses,
            from_journal=from_journal,
            corrected=corrected,
            is_closed=True,
        )

    @property
    def was_interrupted(self) -> bool:
        """Whether a run ended before it had asked about all units."""
        is_taken_back = np.isin(self.units.asked, list(self.taken_back))
        for column in self.statuses.values():
            is_skipped = column == SKIPPED
            if (is_skipped & ~is_taken_back).any():
                return True
        return False

    def rows_taken_back(self) -> IntArray:
        """Return the rows of which nothing is known since a correction was taken back."""
        is_taken_back = np.isin(self.units.asked, list(self.taken_back))
        return np.flatnonzero(is_taken_back[self.units.answered_by])

    def rows_with(self, *statuses: str) -> int:
        """Count the rows that have one of some statuses, the worst of their maps'."""
        is_wanted = np.isin(self.row_statuses(), statuses)
        return int(is_wanted.sum())

    def rows_found(self) -> BoolArray:
        """Tell of each row whether any map has found something of it."""
        is_found = np.zeros(len(self.units.asked), dtype=bool)
        for column in self.statuses.values():
            is_found |= np.isin(column, FOUND)
        rows: BoolArray = is_found[self.units.answered_by]
        return rows

    def findings(self) -> pd.DataFrame:
        """Return one row per unit, labelled like the frame; ``<NA>`` if a unit has no finding."""
        units = self.units
        columns: dict[Any, Any] = {}
        for store in self.stores.values():
            columns |= store.columns(units.asked, units.answered_by)
        return pd.DataFrame(columns, index=units.frame.index)

    def row_statuses(self) -> ObjectArray:
        """Return the status of each row: the worst of its maps'."""
        if not len(self.units):
            return np.array([], dtype=object)
        rank_of = {status: rank for rank, status in enumerate(STATUSES)}
        worst = np.zeros(len(self.units.asked), dtype=int)
        for column in self.statuses.values():
            ranks = [rank_of[status] for status in column]
            worst = np.maximum(worst, np.array(ranks, dtype=int))
        names: ObjectArray = np.array(STATUSES, dtype=object)
        of_units = names[worst]
        return of_units[self.units.answered_by]

    def count_remembered(self) -> int:
        """Count the rows that a map did not ask about, since they had failed before."""
        is_remembered = np.zeros(len(self.units.asked), dtype=bool)
        for name, column in self.statuses.items():
            is_failed = column == "failed"
            is_remembered |= is_failed & self.from_journal[name]
        rows = is_remembered[self.units.answered_by]
        return int(rows.sum())

    def rows_from_journal(self) -> BoolArray:
        """Tell of each row whether the journal had what all maps know of it."""
        by_map = list(self.from_journal.values())
        is_known = np.logical_and.reduce(by_map)
        rows: BoolArray = is_known[self.units.answered_by]
        return rows
