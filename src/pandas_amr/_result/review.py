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
        if status is not None:
            self.amounts[(status["status"] == CORRECTED).to_numpy()] = 0

    def why(self, position: int) -> str:
        """Return the reasons for a row."""
        return "; ".join(self._reasons[position])

    def positions_by_doubt(self) -> NDArray[np.int64]:
        """Return the positions of the rows in doubt, those most in doubt first."""
        order = np.argsort(-self.amounts, kind="stable")
        return order[self.amounts[order] > 0]


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
    if status is not None:
        _doubt_statuses(doubts, status)
    has_finding = np.ones(len(frame), dtype=bool) if status is None else have_findings(status)
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
    columns = (rows["position"].tolist(), rows["field"], rows["second"])
    for position, field, value in zip(*columns, strict=True):
        doubts.add([position], "disagreed", f"{field}: the second look says {value!r}")


def _doubt_values(doubts: _Doubts, column: pd.Series, has_finding: NDArray[np.bool_]) -> None:
    empty = np.flatnonzero(column.isna().to_numpy() & has_finding)
    doubts.add(empty, "empty", f"{column.name} is empty")
    doubts.add(_unusual(column, has_finding), "unusual", f"{column.name} is unusual")


def _unusual(column: pd.Series, has_finding: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the positions of rare classes, and of numbers far from the others."""
    positions = np.flatnonzero(has_finding & column.notna().to_numpy())
    values = column.iloc[positions]
    if len(values) < LEAST_ROWS or pd.api.types.is_bool_dtype(column):
        return positions[:0]
    if pd.api.types.is_numeric_dtype(column):
        numbers = values.astype(float).to_numpy()
        distance = np.abs(numbers - np.median(numbers))
        spread = float(np.median(distance))
        return positions[distance > FAR_DEVIATIONS * spread] if spread else positions[:0]
    if isinstance(column.dtype, pd.CategoricalDtype):
        shares = values.map(values.value_counts(normalize=True)).astype(float).to_numpy()
        return positions[shares < RARE_SHARE]
    return positions[:0]
