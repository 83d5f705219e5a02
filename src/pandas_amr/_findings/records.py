"""The units behind records: over what the frame's own columns are aggregated, if units hold none or many records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._findings.findings import items_frame, with_findings
from pandas_amr._units.by import By, column, group_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pandas_amr._findings.findings import FindingType


@dataclass(frozen=True)
class UnitRows:
    """The units behind records. What is a unit's own counts once, however many records the unit holds.

    Attributes:
        table: one row per unit: the frame's own columns, and those that findings add to a unit.
        records: the columns of the records, which hide others of the same name.
        positions: the row of ``table`` behind each record.
        by: how the units are grouped; None if nothing groups them, or a field of the records does.
        chosen: whether something chose among the records: then units without a chosen record do not count.
    """

    table: pd.DataFrame
    records: frozenset[Any]
    positions: NDArray[np.int64]
    by: By | None = None
    chosen: bool = False

    def owns(self, label: Any) -> bool:
        """Whether a column is the units' own."""
        return label not in self.records and label in self.table.columns

    def at(self, rows: NDArray[np.int64]) -> UnitRows:
        """The units behind some of the records, which something chose."""
        return replace(self, positions=self.positions[rows], chosen=True)

    def of_group(self, rows: NDArray[np.int64]) -> UnitRows:
        """The units of a group, given its records; if only the units are grouped, those without a record too."""
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
        """Each unit that counts, once."""
        return self.table.iloc[np.unique(self.positions)] if self.chosen else self.table

    def counted_by(self, records: pd.DataFrame, by: By) -> tuple[pd.DataFrame, By]:
        """Each unit once per group in which it has a record, and how these rows are grouped."""
        _, numbers = group_numbers(records, by)
        pairs = pd.DataFrame({"unit": self.positions, "group": numbers})
        rows = np.flatnonzero(~pairs.duplicated().to_numpy())
        table = self.table.set_flags(allows_duplicate_labels=True).iloc[self.positions[rows]]
        beside = records.iloc[rows]
        keys: list[Any] = []
        for key in by.at(rows, table.index).keys:
            if isinstance(key, pd.Grouper) and key.key is not None and not self.owns(key.key):
                table = table.assign(**{str(key.key): column(beside, key.key)})
            keys.append(column(beside, key).rename(key) if _is_field(key, self.records) else key)
        return table, by.with_keys(keys)


def _is_field(key: Any, records: frozenset[Any]) -> bool:
    return not isinstance(key, pd.Series | pd.Grouper) and key in records


def record_rows(
    frame: pd.DataFrame, findings: pd.DataFrame, kind: FindingType, by: By | None
) -> tuple[pd.DataFrame, pd.DataFrame, UnitRows]:
    """Spread the records of units over rows of their own.

    Returns:
        The records beside the frame's own columns; the records alone; and the units behind them.
    """
    records, positions = items_frame(findings, kind)
    repeated = frame.set_flags(allows_duplicate_labels=True).iloc[positions]
    own = by is not None and not any(label in kind.item_columns for label in by.labels)
    units = UnitRows(
        with_findings(frame, findings), frozenset(kind.item_columns), positions, by if own else None
    )
    return with_findings(repeated, records), records, units
