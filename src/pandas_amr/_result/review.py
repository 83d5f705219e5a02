"""Rank the rows of a result that are most in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pandas_amr._findings.store import CORRECTED
from pandas_amr._result.careless import find_careless_ends
from pandas_amr._result.frames import have_findings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pandas_amr._result.verify import Verification

DOUBT = {
    "failed": 1.0,
    "skipped": 0.9,
    "disagreed": 0.8,
    "repaired": 0.5,
    "late": 0.4,
    "empty": 0.3,
    "unusual": 0.2,
}
RARE_SHARE = 0.01
LEAST_ROWS = 100  # before a class is called rare, or a number far from the others
FAR_DEVIATIONS = 5.0  # median absolute deviations
DOUBT_COLUMN = "amr_doubt"
WHY_COLUMN = "amr_why"


class _Doubts:
    """The doubt about each row of a frame, with the reasons."""

    def __init__(self, rows: int) -> None:
        self.amounts = np.zeros(rows)
        self._reasons: dict[int, list[str]] = {}

    def add(self, positions: NDArray[np.int64] | list[int], kind: str, reason: str) -> None:
        """Add the doubt of one kind to some rows."""
        self.amounts[positions] += DOUBT[kind]
        for position in positions:
            self._reasons.setdefault(int(position), []).append(reason)

    def dismiss(self, status: pd.DataFrame | None) -> None:
        """Have no doubt about the rows that a person has corrected."""
        if status is None:
            return
        is_corrected = (status["status"] == CORRECTED).to_numpy()
        self.amounts[is_corrected] = 0

    def why(self, position: int) -> str:
        """Return the reasons for a row."""
        return "; ".join(self._reasons[position])

    def positions_by_doubt(self) -> NDArray[np.int64]:
        """Return the positions of the rows in doubt, those most in doubt first."""
        order = np.argsort(-self.amounts, kind="stable")
        is_doubtful = self.amounts[order] > 0
        return order[is_doubtful]


def most_in_doubt(
    frame: pd.DataFrame,
    fields: list[str],
    status: pd.DataFrame | None,
    seen_twice: Verification | None,
    most: int,
    *,
    shards: Mapping[str, Sequence[int]],
) -> pd.DataFrame:
    """Return the rows most in doubt, first: how much, why, and the frame's columns.

    Args:
        frame: the frame of a result.
        fields: the columns of its findings.
        status: its status frame.
        seen_twice: a verification of it.
        most: how many rows to return at most.
        shards: the positions of the units of each shard, in their order, by the shard's name.
    """
    doubts = _Doubts(len(frame))
    if status is None:
        has_finding = np.ones(len(frame), dtype=bool)
    else:
        _doubt_statuses(doubts, status)
        has_finding = have_findings(status)
    if seen_twice is not None:
        _doubt_disagreements(doubts, seen_twice.disagreements)
    for field in fields:
        _doubt_values(doubts, frame[field], has_finding)
        for end, reason in find_careless_ends(frame[field], shards):
            doubts.add(end, "late", reason)
    doubts.dismiss(status)
    positions = doubts.positions_by_doubt()[:most]
    shown = frame.iloc[positions].copy()
    shown.insert(0, DOUBT_COLUMN, doubts.amounts[positions])
    shown.insert(1, WHY_COLUMN, [doubts.why(position) for position in positions.tolist()])
    return shown


def _doubt_statuses(doubts: _Doubts, status: pd.DataFrame) -> None:
    reasons = status["reason"]
    for kind in ("failed", "skipped", "repaired"):
        is_kind = (status["status"] == kind).to_numpy()
        for position in np.flatnonzero(is_kind).tolist():
            reason = reasons.iloc[position]
            doubts.add([position], kind, kind if pd.isna(reason) else str(reason))


def _doubt_disagreements(doubts: _Doubts, rows: pd.DataFrame) -> None:
    positions = rows["position"].tolist()
    for position, field, value in zip(positions, rows["field"], rows["second"], strict=True):
        reason = f"{field}: the second look says {value!r}"
        doubts.add([position], "disagreed", reason)


def _doubt_values(doubts: _Doubts, column: pd.Series, has_finding: NDArray[np.bool_]) -> None:
    is_empty = column.isna().to_numpy()
    empty = np.flatnonzero(has_finding & is_empty)
    doubts.add(empty, "empty", f"{column.name} is empty")
    filled = np.flatnonzero(has_finding & ~is_empty)
    unusual = filled[_are_unusual(column.iloc[filled])]
    doubts.add(unusual, "unusual", f"{column.name} is unusual")


def _are_unusual(values: pd.Series) -> NDArray[np.bool_]:
    """Tell which values are rare classes, or numbers far from the others."""
    none = np.zeros(len(values), dtype=bool)
    if len(values) < LEAST_ROWS or pd.api.types.is_bool_dtype(values):
        return none
    if pd.api.types.is_numeric_dtype(values):
        numbers = values.astype(float).to_numpy()
        distance = np.abs(numbers - np.median(numbers))
        spread = float(np.median(distance))
        if not spread:
            return none
        is_far: NDArray[np.bool_] = distance > FAR_DEVIATIONS * spread
        return is_far
    if isinstance(values.dtype, pd.CategoricalDtype):
        share_of = values.value_counts(normalize=True)
        shares = values.map(share_of).astype(float).to_numpy()
        is_rare: NDArray[np.bool_] = shares < RARE_SHARE
        return is_rare
    return none
