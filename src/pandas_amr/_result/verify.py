"""Compare findings with those of a second model, and rank the rows most in doubt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._result.compare import compare_columns, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

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
LEAST_SHARD = 6  # units; the end of a smaller shard is not examined
LEAST_END = 3
CHANCE = 0.05  # an end of equal values is reported if chance makes it less often than this
DOUBT_COLUMN = "amr_doubt"
WHY_COLUMN = "amr_why"


@dataclass(frozen=True, repr=False)
class Verification:
    """How a second model agrees with the findings on a share of the rows; no finding was changed.

    Attributes:
        agreement: one row per field: ``rows`` seen twice, ``same``, ``agreement`` with ``low`` and
            ``high`` (Wilson's 95 % interval) and ``kappa``, the agreement beyond chance (Cohen
            1960; for words and bools).
        rows: one row per field and row of the frame: ``field label position found second same``.
        failed: how many rows the second model did not answer.
        usage: what the verification used.
        model: the second model.
    """

    agreement: pd.DataFrame
    rows: pd.DataFrame
    failed: int
    usage: pd.DataFrame
    model: str

    @property
    def disagreements(self) -> pd.DataFrame:
        """The rows on which the two differ."""
        return self.rows[~self.rows["same"]]

    def __repr__(self) -> str:
        parts = []
        for name, row in self.agreement[self.agreement["rows"] > 0].iterrows():
            interval = f"{row.low:.1%} to {row.high:.1%}"
            parts.append(f"{name} {row.agreement:.1%} ({interval}) of {int(row.rows)}")
        return f"<Verification by {self.model}: {'; '.join(parts) or 'nothing was seen twice'}>"

    def _repr_html_(self) -> str:
        tables = (self.agreement.round(3), self.disagreements.head(10))
        return "".join(table.to_html(escape=True) for table in tables if len(table))


def verification(
    first: pd.DataFrame,
    second: pd.DataFrame,
    seen_twice: NDArray[np.bool_],
    fields: list[str],
    *,
    tolerance: float,
    failed: int,
    usage: pd.DataFrame,
    model: str,
) -> Verification:
    """Compare the columns ``fields`` of two frames over the rows that were seen twice."""
    positions = np.flatnonzero(seen_twice)
    parts: list[pd.DataFrame] = []
    figures: dict[str, dict[str, Any]] = {}
    for field in fields:
        rows = compare_columns(
            field,
            first[field],
            second[field],
            positions,
            names=("second", "same"),
            tolerance=tolerance,
        )
        parts.append(rows)
        figures[field] = _agreement(rows)
    return Verification(
        agreement=pd.DataFrame.from_dict(figures, orient="index").rename_axis("field"),
        rows=pd.concat(parts, ignore_index=True),
        failed=failed,
        usage=usage,
        model=model,
    )


def _agreement(rows: pd.DataFrame) -> dict[str, Any]:
    total, equal = len(rows), int(rows["same"].sum())
    low, high = wilson_interval(equal, total)
    return {
        "rows": total,
        "same": equal,
        "agreement": equal / total if total else None,
        "low": low,
        "high": high,
        "kappa": _kappa(rows["found"].tolist(), rows["second"].tolist(), rows["same"].tolist()),
    }


def _kappa(first: list[Any], second: list[Any], same: list[bool]) -> float | None:
    """Return the agreement beyond chance; None if values are not classes, or chance alone agrees."""
    if not same or not all(isinstance(value, str | bool | None) for value in [*first, *second]):
        return None
    chance = float(_shares(first).mul(_shares(second), fill_value=0.0).sum())
    if chance >= 1:
        return None
    return (sum(same) / len(same) - chance) / (1 - chance)


def _shares(values: list[Any]) -> pd.Series:
    return pd.Series(values, dtype=object).map(str).value_counts(normalize=True)


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
    has_finding = doubts.amounts < DOUBT["skipped"]
    if seen_twice is not None:
        _doubt_disagreements(doubts, seen_twice.disagreements)
    for field in fields:
        _doubt_values(doubts, frame[field], has_finding)
        for end, reason in _careless_ends(frame[field], shards):
            doubts.add(end, "late", reason)
    positions = doubts.positions_by_doubt()[:most]
    shown = frame.iloc[positions].copy()
    shown.insert(0, DOUBT_COLUMN, doubts.amounts[positions])
    shown.insert(1, WHY_COLUMN, [doubts.why(position) for position in positions.tolist()])
    return shown


def _doubt_statuses(doubts: _Doubts, status: pd.DataFrame) -> None:
    for kind in ("failed", "skipped", "repaired"):
        for position in np.flatnonzero((status["status"] == kind).to_numpy()).tolist():
            reason = status["reason"].iloc[position]
            doubts.add([position], kind, kind if pd.isna(reason) else str(reason))


def _doubt_disagreements(doubts: _Doubts, rows: pd.DataFrame) -> None:
    columns = (rows["position"].tolist(), rows["field"], rows["second"])
    for position, field, value in zip(*columns, strict=True):
        doubts.add([position], "disagreed", f"{field}: the second look says {value!r}")


def _doubt_values(doubts: _Doubts, column: pd.Series, has_finding: NDArray[np.bool_]) -> None:
    empty = np.flatnonzero(column.isna().to_numpy() & has_finding)
    doubts.add(empty, "empty", f"{column.name} is empty")
    doubts.add(_unusual(column, has_finding), "unusual", f"{column.name} is unusual")


def _careless_ends(
    column: pd.Series, shards: Mapping[str, Sequence[int]]
) -> Iterator[tuple[list[int], str]]:
    """Yield the ends of shards at which a field does not vary any more, each with the reason."""
    for name, positions in shards.items():
        end = constant_end(column.iloc[list(positions)].tolist())
        if end:
            reason = (
                f"{column.name} is the same in the last {end} of the {len(positions)} units of "
                f"{name}, not before"
            )
            yield list(positions[-end:]), reason


def constant_end(values: Sequence[Any]) -> int:
    """Count the equal values at the end of a shard; 0 if chance explains them.

    Models grow careless late in a long shard: they repeat one label. An end counts from a third of
    the shard on, and only if the values before it vary.

    Example:
        >>> constant_end(["a", "b", "a", "c", "b", "a", "b", "b", "b", "b", "b"])
        5
        >>> constant_end(["a"] * 10 + ["b"])
        0
    """
    texts = [_comparable(value) for value in values]
    if len(texts) < LEAST_SHARD:
        return 0
    end = 1
    while end < len(texts) and texts[-1 - end] == texts[-1]:
        end += 1
    before = texts[:-end]
    if end < max(LEAST_END, len(texts) / 3) or len(set(before)) < 2:
        return 0
    # Laplace's rule of succession: a value that was not seen before is still possible.
    share = (before.count(texts[-1]) + 1) / (len(before) + 2)
    return end if share**end < CHANCE else 0


def _comparable(value: Any) -> str:
    missing = pd.api.types.is_scalar(value) and pd.isna(value)
    return repr(None) if missing else repr(value)


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
