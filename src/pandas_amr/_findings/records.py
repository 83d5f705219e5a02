"""Records and the units that hold them, if a unit holds a list of records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._findings.columns import add_findings, spread_items
from pandas_amr._units.by import By, column, group_numbers

if TYPE_CHECKING:
    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._units.rows import IntArray


@dataclass(frozen=True)
class UnitRows:
    """The units behind records.

    A column of the units is aggregated over the units: each counts once, however many records it
    holds.

    Attributes:
        table: one row per unit: the frame's own columns, and those that findings add to a unit.
        records: the columns of the records. They hide columns of the same name.
        positions: the row of ``table`` behind each record.
        by: how the units are grouped; None if they are not, or if a field of the records is a key.
        chosen: whether some of the records were selected. Units without one then do not count.
    """

    table: pd.DataFrame
    records: frozenset[Any]
    positions: IntArray
    by: By | None = None
    chosen: bool = False

    def owns(self, label: object) -> bool:
        """Tell whether a column belongs to the units, and not to the records."""
        return label not in self.records and label in self.table.columns

    def select(self, rows: IntArray) -> UnitRows:
        """Return the units behind some of the records, after a selection."""
        return replace(self, positions=self.positions[rows], chosen=True)

    def select_group(self, rows: IntArray) -> UnitRows:
        """Return the units of a group, whose records are given.

        If the keys are columns of the units, units of the group without a record belong to it, too.
        """
        if self.by is None or self.chosen or not len(rows):
            return self.select(rows)
        _, numbers = group_numbers(self.table, self.by)
        positions = self.positions[rows]
        group = numbers[positions[0]]
        places = np.flatnonzero(numbers == group)
        table = self.table.iloc[places]
        return replace(
            self,
            table=table,
            positions=np.searchsorted(places, positions),
            by=self.by.at(places, table.index),
        )

    @property
    def have_own_groups(self) -> bool:
        """Whether a record is in its unit's group, and a unit without records in one, too."""
        return self.by is not None and not self.chosen

    def group_records(self) -> tuple[pd.Index, IntArray]:
        """Number the groups as ``group_numbers`` does.

        Returns:
            The index of the units' groups, and the number of the group of each record's unit.
        """
        assert self.by is not None
        index, numbers = group_numbers(self.table, self.by)
        return index, numbers[self.positions]

    def counted(self) -> pd.DataFrame:
        """Return each unit that counts, once."""
        if not self.chosen:
            return self.table
        rows = np.unique(self.positions)
        return self.table.iloc[rows]

    def units_per_group(self, records: pd.DataFrame, by: By) -> tuple[pd.DataFrame, By]:
        """Return each unit once per group in which it has a record.

        Returns:
            The units, and how they are grouped.
        """
        _, numbers = group_numbers(records, by)
        pairs = pd.DataFrame({"unit": self.positions, "group": numbers})
        rows = np.flatnonzero(~pairs.duplicated().to_numpy())
        units = self.table.set_flags(allows_duplicate_labels=True)
        table = units.iloc[self.positions[rows]]
        first_records = records.iloc[rows]
        keys: list[Any] = []
        for key in by.at(rows, table.index).keys:
            if isinstance(key, pd.Grouper) and key.key is not None and not self.owns(key.key):
                dates = column(first_records, key.key)
                table = table.assign(**{str(key.key): dates})
            if _is_field(key, self.records):
                keys.append(column(first_records, key).rename(key))
            else:
                keys.append(key)
        return table, by.replace_keys(keys)


def _is_field(key: object, records: frozenset[Any]) -> bool:
    """Tell whether a grouping key names a field of the records."""
    return not isinstance(key, pd.Series | pd.Grouper) and key in records


def spread_records(
    frame: pd.DataFrame, findings: pd.DataFrame, kind: FindingType, by: By | None
) -> tuple[pd.DataFrame, pd.DataFrame, UnitRows]:
    """Give each record of a unit a row of its own.

    Returns:
        The records with the frame's own columns, the records alone, and the units behind them.
    """
    records, positions = spread_items(findings, kind)
    repeatable = frame.set_flags(allows_duplicate_labels=True)
    repeated = repeatable.iloc[positions]
    fields = frozenset(kind.item_columns)
    unit_by = by
    if by is not None and not fields.isdisjoint(by.labels):
        unit_by = None
    table = add_findings(frame, findings)
    units = UnitRows(table, fields, positions, unit_by)
    return add_findings(repeated, records), records, units
