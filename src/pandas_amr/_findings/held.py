"""TODO."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pandas_amr._findings.store import FOUND, FindingStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._units.units import Units


SKIPPED = "skipped"


GRAVITY = (*FOUND, SKIPPED, "failed")  # statuses, the gravest last


@dataclass(frozen=True)
class Kept:
    """What a run found, so that another can go on from it: findings and statuses of the asked units, by map.

    Attributes:
        listed: the finding type, where a unit holds none or many and nothing else is found.
    """

    units: Units
    stores: dict[str | None, FindingStore]
    statuses: dict[str | None, NDArray[np.object_]]
    listed: FindingType | None = None

    @property
    def has_findings(self) -> bool:
        """Whether anything was found."""
        return any(bool(np.isin(column, FOUND).any()) for column in self.statuses.values())

    def copy(self) -> Kept:
        """A copy that can be added to."""
        stores = {name: store.copy() for name, store in self.stores.items()}
        statuses = {
            name: np.where(column == "failed", SKIPPED, column)
            for name, column in self.statuses.items()
        }
        return replace(self, stores=stores, statuses=statuses)

    def findings(self) -> pd.DataFrame:
        """What was found so far: one row a unit, labelled like the frame, ``<NA>`` where there is nothing."""
        columns = {
            name: array
            for store in self.stores.values()
            for name, array in store.columns(self.units.asked, self.units.answered_by).items()
        }
        return pd.DataFrame(columns, index=self.units.frame.index)

    def of_rows(self) -> NDArray[np.object_]:
        """Each row's status: the gravest of its maps'."""
        ranks = [
            np.array([GRAVITY.index(one) for one in column], dtype=int)
            for column in self.statuses.values()
        ]
        gravest = (
            np.maximum.reduce(ranks)[self.units.answered_by]
            if len(self.units)
            else np.array([], dtype=int)
        )
        statuses: NDArray[np.object_] = np.array(GRAVITY, dtype=object)[gravest]
        return statuses
