"""The units behind records, if a unit can hold none or many.

Aggregations of the frame's own columns are made over the units, not over the records.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._findings.columns import items_frame, with_findings
from pandas_amr._units.by import By, column, group_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pandas_amr._findings.finding_type import FindingType


@dataclass(frozen=True)
class UnitRows:
    """The units behind records. A unit counts once, however many records it holds.

    Attributes:
        table: one row per unit: the frame's own columns, and those that findings add to a unit.
        records: the columns of the records, which hide others of the same name.
        positions: the row of ``table`` behind each record.
        by: how the units are grouped; None if they are not, or by a field of the records.
        chosen: whether records were selected: then units without a selected record do not count.
    """

    table: pd.DataFrame
    records: frozenset[Any]
    positions: NDArray[np.int64]
    by: By | None = None
    chosen: bool = False

    def owns(self, label: Any) -> bool:
        """Whether a column belongs to the units, not to the records."""
        return label not in self.records and label in self.table.columns

    def at(self, rows: NDArray[np.int64]) -> UnitRows:
        """Return the units behind some records that were selected."""
        return replace(self, positions=self.positions[rows], chosen=True)

    def of_group(self, rows: NDArray[np.int64]) -> UnitRows:
        """Return the units of a group, given its records.

        If the units are grouped, those without a record are among them.
        """
        if self.by is None or self.chosen or not len(rows):
            return self.at(rows)
        _, numbers = group_numbers(self.table, self.by)
        places = np.flatnonzero(numbers == numbers[self.positions[rows[0]]])
        return replace(
            self,
            table=self.table.iloc[places],
            positions=np.searchsorted(places, self.positions[rows]),
            by=self.by.at(places, self.table.index[places]),
        )

    def counted(self) -> pd.DataFrame:
        """Return the units that count."""
        return self.table.iloc[np.unique(self.positions)] if self.chosen else self.table

    def counted_by(self, records: pd.DataFrame, by: By) -> tuple[pd.DataFrame, By]:
        """Return each unit once per group in which it has a record, and their grouping."""
        _, numbers = group_numbers(records, by)
        pairs = pd.DataFrame({"unit": self.positions, "group": numbers})
        rows = np.flatnonzero(~pairs.duplicated().to_numpy())
        table = self.table.set_flags(allows_duplicate_labels=True).iloc[self.positions[rows]]
        beside = records.iloc[rows]
        keys: list[Any] = []
        for key in by.at(rows, table.index).keys:
            if isinstance(key, pd.Grouper) and key.key is not None and not self.owns(key.key):
                table = table.assign(**{str(key.key): column(beside, key.key)})
            if _is_field(key, self.records):
                keys.append(column(beside, key).rename(key))
            else:
                keys.append(key)
        return table, by.with_keys(keys)


def _is_field(key: Any, records: frozenset[Any]) -> bool:
    return not isinstance(key, pd.Series | pd.Grouper) and key in records


def record_rows(
    frame: pd.DataFrame, findings: pd.DataFrame, kind: FindingType, by: By | None
) -> tuple[pd.DataFrame, pd.DataFrame, UnitRows]:
    """Spread the records of units over rows of their own.

    Returns:
        The records with the frame's own columns, the records alone, and the units behind them.
    """
    records, positions = items_frame(findings, kind)
    repeated = frame.set_flags(allows_duplicate_labels=True).iloc[positions]
    fields = frozenset(kind.item_columns)
    unit_by = by
    if by is not None and not fields.isdisjoint(by.labels):
        unit_by = None
    units = UnitRows(with_findings(frame, findings), fields, positions, unit_by)
    return with_findings(repeated, records), records, units
